"""The evidence policy: what is read, what is refused, and with which words."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import evidence
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from tests.factories.bundles import ROOT
from tests.vectors.bundle_parts import ORIGIN, ed25519, ml_dsa, vkey
from tests.vectors.generate_bundle import FILE, policy

VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
TEXT = VECTORS["policy"]
ANN = vkey("admin.example/ann")
PEM = ROOT.pem.decode()
BROKEN = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
TSA = f'[[tsa]]\nname = "one"\nroots = """\n{PEM}"""\n'


def refusal(text):
    with pytest.raises(SettingsError) as caught:
        parse_evidence_policy(text.encode() if isinstance(text, str) else text)
    assert caught.value.exit_code == 64
    return caught.value.message


def test_the_example():
    found = parse_evidence_policy(TEXT.encode())
    assert found.log == "sealtape.example/log"
    assert [log.verifier.name for log in found.tlog.logs] == [ORIGIN]
    assert found.tlog.quorum == "office"
    assert found.monitors == ("monitor",)
    assert [admin.name for admin in found.admins] == ["admin.example/ann", "admin.example/bob"]
    assert (found.admin_threshold, found.require) == (1, {"monitor"})
    assert found.sha256 == hashlib.sha256(TEXT.encode()).digest()
    assert (found.nodes, found.authorities) == ((), ())
    assert not found.wants_ml_dsa(ORIGIN, 2**62)
    assert found.authority("one") is None


def test_what_may_be_left_out():
    short = TEXT.split("monitors")[0] + f'admins = ["{ANN}"]\n'
    found = parse_evidence_policy(short.encode())
    assert (found.monitors, found.require, found.admin_threshold) == ((), set(), 1)


def test_nodes_and_authorities():
    more = f'[[nodes]]\nvkey = "{vkey("node-1")}"\n{TSA}'
    found = parse_evidence_policy((TEXT + more).encode())
    assert [node.name for node in found.nodes] == ["node-1"]
    assert found.authority("one").roots == PEM.encode()
    required = TEXT.replace('["monitor"]\n', '["monitor", "timestamp"]\n').replace(
        'monitors = ["monitor", "timestamp"]', 'monitors = ["monitor"]'
    )
    found = parse_evidence_policy((required + more).encode())
    assert found.require == {"monitor", "timestamp"}


def test_from_which_size_ml_dsa_is_needed():
    text = policy(ml_dsa=True)
    everywhere = parse_evidence_policy(text.encode())
    assert everywhere.wants_ml_dsa(ORIGIN, 0)
    later = text.replace("ml_dsa_from = 0", f'[ml_dsa_from]\n"{ORIGIN}" = 20')
    found = parse_evidence_policy(later.encode())
    assert [found.wants_ml_dsa(ORIGIN, size) for size in (19, 20)] == [False, True]
    assert not found.wants_ml_dsa("sealtape.example/log/2", 20)
    strict = text.replace('["monitor"]\nml', '["ml-dsa"]\nml')
    assert parse_evidence_policy(strict.encode()).require == {"ml-dsa"}


@pytest.mark.parametrize("name", VECTORS["refused_policies"])
def test_vectors_that_are_refused(name):
    assert "evidence policy" in refusal(VECTORS["refused_policies"][name])


REFUSED = {
    "thresholds": (TEXT + "admin_treshold = 1\n", "did you mean 'admin_threshold'?"),
    "far": (TEXT + "zzz = 1\n", "known are v, log"),
    "word": (TEXT.replace('= ["monitor"]\n', '= ["moniter"]\n'), "no witness"),
    "requires": (TEXT.replace('require = ["monitor"]', 'require = ["tstamp"]'), "timestamp"),
    "missing": (TEXT.replace("v = 1\n", ""), "`v` is missing"),
    "true": (TEXT.replace("v = 1", "v = true"), "whole number"),
    "list": (TEXT.replace('require = ["monitor"]', "require = 1"), "must be a list"),
    "texts": (TEXT.replace('require = ["monitor"]', "require = [1]"), "list of texts"),
    "tables": (TEXT + "nodes = [1]\n", "tables `[[nodes]]`"),
    "name": (TEXT.replace('log = "sealtape.example/log"', 'log = ""'), "`log`"),
    "zero": (TEXT.replace("threshold = 1", "threshold = 0"), "`admin_threshold` is 0"),
    "nobody": (TEXT.split("monitors")[0] + "admins = []\n", "1 to 64 keys"),
    "admin": (TEXT.replace(ANN, "ann+00000000+AQ=="), "`admins`"),
    "monitor twice": (
        TEXT.replace('monitors = ["monitor"]', 'monitors = ["monitor", "monitor"]'),
        "`monitors` has something twice",
    ),
    "monitor of nobody": (TEXT.replace('monitors = ["monitor"]\n', ""), "names none"),
    "tsa name": (TEXT + TSA.replace('"one"', '"One"'), "a-z"),
    "tsa twice": (TEXT + TSA + TSA, "`tsa` has something twice"),
    "tsa root": (TEXT + TSA.replace("BEGIN", "BEGUN"), "no PEM"),
    "tsa root cut off": (TEXT + TSA.replace("-----END CERTIFICATE-----", ""), "no PEM"),
    "tsa root that is none": (TEXT + TSA.replace(PEM, BROKEN), "one: a certificate cannot be read"),
    "tsa roots too long": (TEXT + TSA.replace(PEM, PEM + "-" * (1 << 18)), "262144 bytes"),
    "ml-dsa key": (TEXT.replace('e = ["monitor"]', 'e = ["ml-dsa"]'), "no such key"),
    "ml-dsa size": (policy(ml_dsa=True).replace("from = 0", "from = -1"), "must be a size"),
    "ml-dsa true": (policy(ml_dsa=True).replace("from = 0", "from = true"), "must be a size"),
    "ml-dsa text": (policy(ml_dsa=True).replace("from = 0", 'from = "0"'), "must be a size"),
    "ml-dsa origin": (
        policy(ml_dsa=True).replace("ml_dsa_from = 0", '[ml_dsa_from]\n"other/1" = 0'),
        "no shard",
    ),
    "ml-dsa shard": (
        policy(ml_dsa=True).replace(
            "ml_dsa_from = 0", '[ml_dsa_from]\n"sealtape.example/log/2" = 0'
        ),
        "does not have",
    ),
    "only ml-dsa": (
        policy(ml_dsa=True).replace(f"log {vkey(ORIGIN, key=ed25519('log'))}\n", ""),
        "no Ed25519 key",
    ),
    "shard number": (TEXT.replace("log/1+", "log/01+"), "`tlog_policy`"),
    "not UTF-8": (b"v = 1\xff\n", "not TOML"),
    "large": (b"#" * (evidence.MAX_POLICY + 1), "bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong(name):
    text, words = REFUSED[name]
    assert words in refusal(text)


def test_a_log_that_is_no_shard_of_a_number():
    other = vkey("sealtape.example/log/0", key=ed25519("log"))
    assert "log/N" in refusal(TEXT.replace(vkey(ORIGIN, key=ed25519("log")), other))


def test_not_more_authorities_than_are_read():
    many = "".join(TSA.replace('"one"', f'"n{number}"') for number in range(17))
    assert "at most 16" in refusal(TEXT + many)


def test_a_log_key_of_ml_dsa_alone_counts_for_its_origin():
    key = vkey("sealtape.example/log/2", b"\6", ml_dsa("office.example/witness"))
    text = TEXT.replace("witness office", f"log {key}\nwitness office", 1)
    found = parse_evidence_policy((text + "ml_dsa_from = 7\n").encode())
    assert found.wants_ml_dsa("sealtape.example/log/2", 7)


@given(st.integers(0, len(TEXT) - 1), st.characters(max_codepoint=255))
def test_one_character_changed_is_read_or_refused(at, character):
    text = TEXT[:at] + character + TEXT[at + 1 :]
    try:
        found = parse_evidence_policy(text.encode())
    except SettingsError:
        return
    assert 1 <= found.admin_threshold <= len(found.admins)


@given(st.integers(0, len(TEXT)))
def test_truncated_anywhere(end):
    try:
        found = parse_evidence_policy(TEXT[:end].encode())
    except SettingsError:
        return
    assert found.admins
