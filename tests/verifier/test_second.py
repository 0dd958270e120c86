"""Two verifiers that share nothing but the pages say the same of everything.

Every signature that the second one verifies is remembered, so that a change elsewhere costs no
arithmetic again.
"""

import ast
import base64
import functools
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.indexer.evidence.readme import VERIFIER_SHA256
from sealtape.schemas import notes, tree
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.verify.bundle import verify_bundle
from sealtape.schemas.verify.findings import EXIT_CODES
from tests.factories.bundles import story
from tests.vectors.bundle_parts import packed
from tests.vectors.generate_bundle import policy, recovered, whole
from tests.verifier.corpus import BUNDLES, NEUTRAL, UNCHECKED, exchanged, flips, mutants
from tests.verifier.insiders import INSIDERS, WRONG
from tests.verifier.judging import FILE, loaded, said, zip_of
from tests.verifier.single_checks import POLICIES, REFUSED_NOTES, SINGLE, UNABLE
from tests.verifier.stories import STORIES

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/bundle.json").read_text(encoding="utf-8"))
NOTES = json.loads((ROOT / "tests/vectors/notes.json").read_text(encoding="utf-8"))
MOST_LINES = 1_049  # docs/bundle.md says why
GRAVEST = ("tampered", "incomplete", "deleted")


second = loaded(compile(FILE.read_text(encoding="utf-8"), str(FILE), "exec"))
verify_ed25519 = second.verify_ed25519
second.verify_ed25519 = functools.lru_cache(maxsize=4096)(verify_ed25519)


def both(data, rules):
    """(verdict of the first, of the second); the report of each."""
    one = verify_bundle(data, parse_evidence_policy(rules.encode()))
    two = second.report(second.Verifier(data, second.Policy(rules.encode())))
    return (one.verdict, two["verdict"]), (one, two)


def without_timestamps(report):
    """The first one's verdict without the step that the second does not go through."""
    found = {item.verdict for item in report.findings if item.step != "timestamps"}
    found |= {"deleted"} if report.deleted else set()
    return next((verdict for verdict in GRAVEST if verdict in found), "verified")


# -- the file --------------------------------------------------------------------------------------


def test_it_needs_the_standard_library_alone_and_nobody_imports_it():
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names
    for room in ("schemas", "capture", "ingest", "indexer"):
        for path in (ROOT / room).rglob("*.py"):
            assert not re.search(r"import.*sealtape_verify", path.read_text(encoding="utf-8")), path


def test_it_stays_short_enough_to_be_read():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_bundles_name_it_by_its_hash():
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == VERIFIER_SHA256


# -- vectors ---------------------------------------------------------------------------------------

REQUIRES_MORE = {  # the second verifier refuses to judge by the policy: exit code 64
    "with an ML-DSA-44 line": "ml_dsa_from",
    "an ML-DSA-44 line is missing": "ml_dsa_from",
    "keys are required and missing": "decrypt",
    "the policy is of another log": "",
}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vectors(case):
    data, rules = base64.b64decode(case["bundle"]), case["policy"]
    if case["name"] in REQUIRES_MORE:
        with pytest.raises(ValueError):
            second.Policy(rules.encode())
        return
    verdicts, (_, report) = both(data, rules)
    assert verdicts == (case["verdict"],) * 2
    failed = [step for step, state in report["steps"].items() if state == "FAIL"]
    assert failed[:1] == [case["step"]] * bool(case["step"])


@pytest.mark.parametrize("name", VECTORS["refused_policies"])
def test_policies_that_both_refuse(name):
    text = VECTORS["refused_policies"][name].encode()
    with pytest.raises(SettingsError):
        parse_evidence_policy(text)
    with pytest.raises(ValueError):
        second.Policy(text)


@pytest.mark.parametrize("name", POLICIES)
def test_more_policies_that_both_refuse(name):
    with pytest.raises(SettingsError):
        parse_evidence_policy(POLICIES[name].encode())
    with pytest.raises(ValueError):
        second.Policy(POLICIES[name].encode())


@pytest.mark.parametrize("name", UNABLE)
def test_policies_that_need_what_it_cannot_check(name):
    parse_evidence_policy(UNABLE[name].encode())
    with pytest.raises(ValueError):
        second.Policy(UNABLE[name].encode())


@pytest.mark.parametrize("word", ["timestamp", "ml-dsa", "decrypt"])
def test_what_it_cannot_check_it_does_not_judge(word):
    with pytest.raises(ValueError, match="not check"):
        second.Policy(policy(require=f'["{word}"]').encode())


def test_a_quorum_that_needs_what_it_cannot_check():
    key = max(BUNDLES["ml-dsa"][1].split(), key=len)  # an ML-DSA-44 key is the longest word
    rules = policy().replace(
        "quorum office", f"witness pq {key}\ngroup all3 all office pq\nquorum all3"
    )
    parse_evidence_policy(rules.encode())
    with pytest.raises(ValueError, match="quorum"):
        second.Policy(rules.encode())


# -- bundles that are signed as they are -----------------------------------------------------------


# Where the first reads a record more strictly than it is said here, and so an earlier step fails.
EARLIER = {
    "a seal with another lost", "a seal with another last_ts_ns", "a segment with another tenant",
    "gone, and its times ran back",
}  # fmt: skip
# What MUST be reported and is no failure, by the step that says it.
NOTED = {
    "a clock before its beacon": ["times"],
    "a frame with a late time": ["times"],
    "a hold by nobody": ["lifecycle"],
    "a revocation by nobody": ["keys"],
    "a clock": [],
}


ALL = STORIES | SINGLE | INSIDERS


@pytest.mark.parametrize("what", ALL)
def test_stories(what):
    files, rules = ALL[what]
    (one, two), (first, report) = both(packed(files), rules)
    assert one == two, (first.findings, report["findings"])
    failed = [step for step in second.STEPS if str(first.state(step)) == "FAIL"]
    assert said(report)[1] == failed[:1] or what in EARLIER
    assert one == "tampered" or spans_of(report) == spans_of(first)


def spans_of(report):
    """Node-attested, withheld and absent ranges of either report."""
    names = {"attested": "node_attested", "withheld": "withheld", "absent": "absent"}
    if isinstance(report, dict):
        return [report[name] for name in names.values()]
    return [[[s.epoch, s.lo, s.hi] for s in report.spans if s.what == what] for what in names]


@pytest.mark.parametrize("what", WRONG)
def test_what_an_insider_makes(what):
    files, rules = INSIDERS[what]
    assert both(packed(files), rules)[0] == (WRONG[what],) * 2


@pytest.mark.parametrize("what", NOTED)
def test_what_is_no_failure_and_reported(what):
    files, rules = (STORIES | SINGLE)[what]
    report = both(packed(files), rules)[1][1]
    noted = [found["step"] for found in report["findings"] if found["verdict"] == "note"]
    assert noted == NOTED[what]


ABSENT = {"ml-dsa", "consistency", "timestamps", "lifecycle", "payloads"}


@pytest.mark.parametrize("name", BUNDLES)
def test_the_same_steps_fail(name):
    _, (first, report) = both(packed(BUNDLES[name][0]), BUNDLES[name][1])
    for step, state in report["steps"].items():
        assert (step, state == "FAIL") == (step, str(first.state(step)) == "FAIL")
    assert (report["steps"]["ml-dsa"] == "NOT CHECKED") == (name == "ml-dsa")
    assert (report["steps"]["timestamps"] == "NOT CHECKED") == (name == "stamped")


def test_what_a_bundle_has_nothing_for_is_said():
    steps = both(packed(whole()), policy())[1][1]["steps"]
    assert {step for step, state in steps.items() if state == "NOT PROVIDED"} == ABSENT
    assert {step for step, state in steps.items() if state == "PASS"} == {*steps} - ABSENT
    given = BUNDLES["redacted"]
    assert both(packed(given[0]), given[1])[1][1]["steps"]["payloads"] == "PASS"
    given = BUNDLES["recovered"]
    steps = both(packed(given[0]), given[1])[1][1]["steps"]
    assert {steps[step] for step in ("consistency", "times", "epochs", "signatures")} == {"PASS"}
    given = BUNDLES["unmonitored"]
    assert both(packed(given[0]), given[1])[1][1]["steps"]["monitor"] == "NOT PROVIDED"
    given = BUNDLES["deleted"]
    steps = both(packed(given[0]), given[1])[1][1]["steps"]
    assert {steps[step] for step in ("certificate", "signatures")} == {"NOT PROVIDED"}
    assert steps["lifecycle"] == "PASS"


def test_stories_have_every_verdict():
    some = ("a hold", "a hold of another", "no seal", "erased")
    verdicts = [both(packed(STORIES[what][0]), STORIES[what][1])[0][1] for what in some]
    assert verdicts == ["verified", "tampered", "incomplete", "deleted"]


# -- the corpus of mutations -----------------------------------------------------------------------


def wrong(name, cases):
    """Mutants of which the verifiers say different things, or that pass and are not neutral."""
    files, rules = BUNDLES[name]
    before = both(packed(files), rules)[0]
    assert len(set(before)) == 1
    found = []
    for what, touched, mutant in cases:
        (_, two), (first, _) = both(packed(mutant), rules)
        one = without_timestamps(first)
        unseen = all(any(re.fullmatch(p, file) for p in UNCHECKED) for file in touched)
        if one != two and not (unseen and two == before[1]):
            found.append(f"{what}: {one}, the second says {two}")
        neutral = all(any(re.fullmatch(p, file) for p in NEUTRAL) for file in touched)
        if before[0] in ("verified", "deleted") and two in ("verified", "deleted"):
            found += [] if neutral and two == before[0] else [f"{what}: {two}"]
        elif two == "verified":
            found.append(f"{what}: {two}")
    return found


@pytest.mark.parametrize("name", BUNDLES)
def test_both_say_the_same_of_every_mutant(name):
    cases = [*mutants(name, "sample", 4), *exchanged(name)]
    assert wrong(name, random.Random(name).sample(cases, min(70, len(cases)))) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", BUNDLES)
def test_both_say_the_same_of_every_mutant_soak(name):
    assert wrong(name, [*mutants(name, "soak", 3000), *exchanged(name)]) == []


def test_every_byte_of_the_zip_file_counts():
    rules = policy()
    data = packed(whole())
    assert both(data, rules)[0] == ("verified", "verified")
    luck = random.Random("zip")
    cases = [
        *flips(data, 60, luck),
        ("cut", data[:-1]),
        ("more", data + b"\0"),
        ("front", b"\0" + data),
    ]
    for what, other in cases:
        assert both(other, rules)[0] == ("tampered", "tampered"), what


def test_a_file_in_another_order_and_twice():
    rules, files = policy(), whole()
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())
    ).encode()
    files = sorted({**files, "SHA256SUMS": sums}.items())
    assert both(zip_of(second, files), rules)[0] == ("verified", "verified")
    for other in ([files[1], files[0], *files[2:]], [files[0], *files], files[::-1]):
        assert both(zip_of(second, other), rules)[0] == ("tampered", "tampered")


def test_findings_name_the_frame():
    files = whole()
    frames = bytearray(files["frames/0.bin"])
    frames[-1] ^= 1
    report = both(packed({**files, "frames/0.bin": bytes(frames)}), policy())[1][1]
    (found,) = report["findings"]
    assert (found["verdict"], found["step"], found["object"]) == (
        "tampered",
        "frames",
        "frames/0.bin",
    )
    assert (found["epoch"], found["frames"]) == (0, [4, 5])
    assert found["session"] == report["session"]


def test_times_and_ranges_are_those_of_the_first():
    for files, rules in (BUNDLES["recovered"], BUNDLES["redacted"], BUNDLES["deleted"]):
        _, (one, two) = both(packed(files), rules)
        spans = {"attested": "node_attested", "withheld": "withheld", "absent": "absent"}
        for what, name in spans.items():
            assert two[name] == [[s.epoch, s.lo, s.hi] for s in one.spans if s.what == what]
        for mine, other in zip(two["fragments"], one.bounds, strict=True):
            assert mine["frames"] == [other.lo, other.hi]
            stated = [mine["not_before"], mine["not_after"]]
            known = [other.not_before_ns, other.not_after_ns]
            assert stated == [second.utc(None if ns is None else ns // 10**9) for ns in known]


# -- Ed25519 ---------------------------------------------------------------------------------------


def accepted(public, message, signature):
    """(by the library behind its strict checks, by the second verifier's own arithmetic)."""
    try:
        notes.Verifier("name", public).verify(message, signature)
        first = True
    except FormatError:
        first = False
    try:
        verify_ed25519(public, message, signature)
    except ValueError:
        return first, False
    return first, True


@pytest.mark.parametrize("case", NOTES["refused_signatures"], ids=lambda case: case["name"])
def test_signatures_that_both_refuse(case):
    parts = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    assert accepted(*parts) == (False, False)


@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=80),
    bit=st.integers(0, 511),
)
def test_signatures_of_random_keys(seed, message, bit):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert accepted(public, message, signature) == (True, True)
    other = bytearray(signature)
    other[bit // 8] ^= 1 << bit % 8
    assert accepted(public, message, bytes(other)) == (False, False)
    assert accepted(public, message + b"\0", signature) == (False, False)
    torn = bytes([public[0] ^ 1]) + public[1:]
    assert accepted(torn, message, signature) == (False, False)


def test_every_encoding_of_a_small_or_second_point():
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"m")
    field = second.P
    for y in {*second.SMALL_ORDER, field, field + 1, field + 18, 2**255 - 1}:
        for sign in (0, 1 << 255):
            point = (y | sign).to_bytes(32, "little")
            assert accepted(point, b"m", signature) == (False, False)
            assert accepted(public, b"m", point + signature[32:]) == (False, False)
            assert accepted(point, b"m", point + bytes(32)) == (False, False)
    s = int.from_bytes(signature[32:], "little")
    for more in (second.L, 2 * second.L, second.L - s, 2**255 - s):
        other = signature[:32] + ((s + more) % 2**256).to_bytes(32, "little")
        assert accepted(public, b"m", other) == (False, False)


def test_half_of_all_y_are_of_no_point():
    refused = 0
    for y in range(2, 202):
        try:
            x, *_ = second.point(y.to_bytes(32, "little"))
        except ValueError:
            refused += 1
            continue
        square = (y * y - 1) * pow(second.D * y * y + 1, -1, second.P) % second.P
        assert x * x % second.P == square
    assert 60 < refused < 140


# -- trees -----------------------------------------------------------------------------------------


@given(size=st.integers(1, 40), data=st.data())
def test_proofs_as_the_first_makes_them(size, data):
    leaves = [tree.leaf_hash(b"%d" % number) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    two, top = second.Tree(), tree.root(leaves)
    path = tree.inclusion_proof(leaves, index)
    assert two.included(leaves[index], index, size, path) == top
    for other in (path[:-1], [*path, top]) if path else ([top],):
        with pytest.raises(ValueError):
            two.included(leaves[index], index, size, other)
    with pytest.raises(ValueError):
        two.included(leaves[index], size, size, path)
    nodes = tree.CompactRange.over(index, leaves[index:]).nodes
    before = two.extended([], 0, index, tree.CompactRange.over(0, leaves[:index]).nodes)
    assert two.root(two.extended(before, index, size, nodes)) == top
    for other in (nodes[:-1], [*nodes, top]):
        with pytest.raises(ValueError):
            two.extended(before, index, size, other)
    old = index + 1
    proof = tree.consistency_proof(leaves, old)
    assert two.consistent(old, size, [*proof], tree.root(leaves[:old])) == (
        tree.root(leaves[:old]),
        top,
    )


# -- notes and checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize("case", NOTES["refused_notes"], ids=lambda case: case["name"])
def test_notes_that_are_refused(case):
    read = second.Notation()
    with pytest.raises(ValueError):
        read.open_note(read.parse_note(case["note"]), [read.parse_key(NOTES["vkey"])])


@pytest.mark.parametrize("case", NOTES["refused_checkpoints"], ids=lambda case: case["name"])
def test_checkpoints_that_are_refused(case):
    with pytest.raises(ValueError):
        second.Notation().parse_checkpoint(case["text"])


@pytest.mark.parametrize("what", REFUSED_NOTES)
def test_notes_that_end_otherwise(what):
    read, note = second.Notation(), REFUSED_NOTES[what](NOTES["note"])
    with pytest.raises(FormatError):
        notes.parse_note(note.encode())
    with pytest.raises(ValueError):
        read.open_note(read.parse_note(note), [read.parse_key(NOTES["vkey"])])


def test_notes_that_are_taken():
    read = second.Notation()
    for text in (NOTES["note"], NOTES["two_signatures"]):
        opened = read.open_note(read.parse_note(text), [read.parse_key(NOTES["vkey"])])
        assert len(opened) == 1
    assert read.parse_checkpoint(NOTES["text"])[1] == 2


# -- the command -----------------------------------------------------------------------------------


def ran(tmp_path, data, rules, *more):
    bundle, rules_file = tmp_path / "bundle.zip", tmp_path / "policy.toml"
    bundle.write_bytes(data)
    rules_file.write_text(rules, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", FILE, bundle, "--policy", rules_file, *more],
        capture_output=True, check=False, env={"LC_ALL": "C"}, cwd=tmp_path,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("what", ["verified", "tampered", "incomplete", "deleted"])
def test_exit_codes(tmp_path, what):
    made = {"verified": "whole", "incomplete": "unsealed", "deleted": "deleted", "tampered": "held"}
    files, rules = BUNDLES[made[what]]
    done = ran(tmp_path, packed(files), rules)
    assert done.returncode == EXIT_CODES[what]
    assert f"verdict       {what}".encode() in done.stdout
    told = json.loads(ran(tmp_path, packed(files), rules, "--json").stdout)
    assert told["verdict"] == what
    assert told["policy_sha256"] == hashlib.sha256(rules.encode()).hexdigest()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_gets_is_no_other_verdict(tmp_path, unbuffered):
    ran(tmp_path, packed(whole()), policy())
    reading, closed = os.pipe()
    os.close(reading)
    for place in (closed, os.open("/dev/full", os.O_WRONLY)):
        done = subprocess.run(
            [sys.executable, FILE, tmp_path / "bundle.zip", "--policy", tmp_path / "policy.toml"],
            stdout=place, stderr=subprocess.PIPE, check=False, env={"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
        os.close(place)
        assert done.returncode == 0
        assert b"Traceback" not in done.stderr
        assert b"ignored" not in done.stderr


def test_usage(tmp_path):
    data = packed(whole())
    assert ran(tmp_path, data, policy(require='["decrypt"]')).returncode == 64
    assert ran(tmp_path, data, "v = 1").returncode == 64
    assert ran(tmp_path, data, policy(), "--policy").returncode == 64
    assert ran(tmp_path, b"", policy()).returncode == EXIT_CODES["tampered"]
    missing = subprocess.run(
        [sys.executable, "-I", FILE, tmp_path / "none.zip", "--policy", tmp_path / "policy.toml"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert missing.returncode == 64
    assert b"no verdict" in missing.stderr


def test_what_evidence_says_reaches_no_terminal_raw(tmp_path):
    files = {**whole(), "entries/\x1b[31m.json": b"{}"}
    done = ran(tmp_path, packed(files), policy())
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert b"\\x1b" in done.stdout


@pytest.mark.parametrize("place", ["entries/0.json", "fragments/0.jsonl", "bundle.json"])
def test_deep_and_odd_json_is_a_verdict(place):
    for text in (
        b"[" * 60_000,
        b'{"a":' * 9_000,
        b"1",
        b"null",
        b'{"v":1e999}',
        b'{"v":' + b"9" * 5000,
    ):
        files = {**story(), place: text + b"\n" * place.endswith("jsonl")}
        assert both(packed(files), policy())[0] == ("tampered", "tampered")


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_verdict(data):
    assert both(data, policy())[0] == ("tampered", "tampered")
    assert both(b"PK\3\4" + data, policy())[0] == ("tampered", "tampered")


def test_an_empty_bundle_of_a_recovered_session_is_judged_epoch_by_epoch():
    files = recovered()
    frames = bytearray(files["frames/1.bin"])
    frames[-1] ^= 1
    report = both(packed({**files, "frames/1.bin": bytes(frames)}), policy())[1][1]
    assert {found["epoch"] for found in report["findings"]} == {1}
    assert report["steps"]["certificate"] == "PASS"
