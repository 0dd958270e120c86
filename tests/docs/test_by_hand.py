"""docs/by-hand.md, command by command, on a deployment whose log was witnessed and stamped."""

import asyncio
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from sealtape.ingest.tlog.opening import read_policy
from tests.docs.errors_page import PAGE
from tests.factories import openssl
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, read_log
from tests.factories.openssl import OpensslAuthority
from tests.ingest.tlog.test_timestamping import serving
from tests.servers import cache

TEXT = (PAGE.parent / "by-hand.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## (.*?)$|^```(sh|sql)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(title, language):
    """The fenced blocks of a section."""
    found, here = [], ""
    for heading, kind, body in BLOCKS:
        here = heading or here
        if here == title and kind == language:
            found.append(body)
    assert found, title
    return found


OBJECTS = "The objects are those of their records"
FRAMES = "The frames are what was hashed"
SIGNED = "The log and its witness have signed"
STAMPED = "The time-stamp is of the checkpoint"
WHOLE = "Nothing in the log was changed"


class Copy:
    """A copy of a vault with a shell in it."""

    def __init__(self, folder, settings, path):
        self.folder, self.settings, self.path = folder, settings, path

    def sh(self, script):
        """Exit status and output of commands, with the page's variables."""
        environment = {"PATH": f"{self.path}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=self.folder, check=False,
            env=environment | self.settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout

    def sql(self, monkeypatch):
        """What each query of the page gives; its glob starts in the folder."""
        monkeypatch.chdir(self.folder)
        (script,) = blocks(FRAMES, "sql")
        with duckdb.connect() as database:
            statements = database.extract_statements(script)
            return [database.execute(one).fetchall() for one in statements][1:]

    def one(self, pattern):
        return next(iter(sorted(self.folder.glob(pattern))))

    def harm(self, pattern, change):
        path = self.one(pattern)
        before = path.read_bytes()
        after = change(before)
        assert after != before
        path.write_bytes(after)


def key(policy, origin):
    """The Ed25519 key of a log."""
    (found,) = [
        one.verifier.vkey
        for one in policy.logs
        if one.verifier.name == origin and len(one.verifier.public) == 32
    ]
    return found


async def record(folder, authority):
    """A deployment with six sessions, sealed by threes of objects, and its log."""
    site = make_site(folder)
    async with serving(authority.reply) as (url, _):
        timestamps = f'\ntimestamps = ["office={url}"]'
        text, count = re.subn(
            r"^\[log\].*", rf"\g<0>{timestamps}", site.config.read_text(), flags=re.MULTILINE
        )
        assert count == 1
        site.config.write_text(text)
        for commands in (3, 5, 4):
            await seal(site, [site.session(commands=commands), site.session(commands=2)])
            await grow_log(site)
    _, checkpoint = await read_log(site)
    return site, checkpoint.origin


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The vault's folder, and the page's variables."""
    openssl.need()
    folder = tmp_path_factory.mktemp("by-hand")
    authority = OpensslAuthority(folder / "tsa", clock_precision_digits="3")
    with ThreadPoolExecutor(1) as thread:
        site, origin = thread.submit(asyncio.run, record(folder / "lab", authority)).result()
    (site.folder / "vault/roots.pem").write_bytes(authority.root)
    policy = read_policy(site.settings)
    witness = next(one for one in policy.witnesses if len(one.verifier.public) == 32)
    return site.folder / "vault", {
        "LOG_KEY": key(policy, origin),
        "WITNESS_KEY": witness.verifier.vkey,
        "ROOTS": "roots.pem",
        "LOG": "log/v1/1",
    }


@pytest.fixture
def vault(recorded, tmp_path):
    """A copy of a vault with sessions, a log, cosignatures and time-stamps."""
    folder, settings = recorded
    shutil.copytree(folder, tmp_path / "copy")
    return Copy(tmp_path / "copy", settings, cache.RECIPES["tessera"].folder)


def test_the_page_names_what_the_test_gives():
    first = TEXT.partition("```sh\n")[2].partition("```")[0]
    assert re.findall(r"^([A-Z_]+)=", first, re.MULTILINE) == [
        "LOG_KEY", "WITNESS_KEY", "ROOTS", "LOG",
    ]  # fmt: skip


def test_objects_and_chain(vault):
    sums, chain = blocks(OBJECTS, "sh")
    status, said = vault.sh(sums)
    assert (status, said.count(": OK\n")) == (0, 3), said
    status, said = vault.sh(chain)
    assert status == 0
    (last,) = said.splitlines()
    assert '"n":"2"' in last
    vault.harm("seg/**/*.parquet", lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:])
    status, said = vault.sh(sums)
    assert (status, said.count("FAILED\n")) == (1, 1), said
    vault.one("seg/**/*.manifest.jsonl").unlink()
    vault.harm("seg/**/*.manifest.jsonl", lambda data: data.replace(b'"n":"1"', b'"n":"7"', 1))
    assert len(vault.sh(chain)[1].splitlines()) == 2


def test_frames(vault, monkeypatch):
    payloads, leaves, holes, sessions = vault.sql(monkeypatch)
    assert (payloads, leaves, holes) == ([], [], [])
    assert len(sessions) == 6
    assert {(first, last) for _, _, _, first, last, _ in sessions} == {(1, 8)}


def rewritten(vault, monkeypatch, change):
    """The page's queries after the first object was written anew, as DuckDB would have it."""
    path = vault.one("seg/**/*.parquet")
    with duckdb.connect() as database:
        source = f"read_parquet('{path}', hive_partitioning = false)"
        database.execute(f"COPY (SELECT {change} FROM {source}) TO '{path}.new' (FORMAT parquet)")
    path.with_name(f"{path.name}.new").rename(path)
    return vault.sql(monkeypatch)[:3]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("* REPLACE (CASE WHEN seq = 2 THEN payload || 'x'::BLOB ELSE payload END AS payload)", 0),
        ("* REPLACE (CASE WHEN seq = 2 THEN kind + 1 ELSE kind END AS kind)", 1),
        ("* REPLACE (CASE WHEN seq = 2 THEN ts_ns - 1 ELSE ts_ns END AS ts_ns)", 1),
        ("* REPLACE (CASE WHEN seq = 2 THEN 9999 ELSE seq END AS seq)", 2),
    ],
)
def test_frames_that_were_changed(vault, monkeypatch, change, found):
    rows = rewritten(vault, monkeypatch, change)
    assert len(rows[found]) >= 2  # both sessions of the object
    if found == 0:
        assert {seq for _, _, seq in rows[0]} == {2}


def test_signatures(vault):
    log, witness = blocks(SIGNED, "sh")
    status, said = vault.sh(log + witness)
    assert (status, said.count("Signature Verified Successfully")) == (0, 2), said
    assert "UTC" in said
    path = vault.folder / "log/v1/1/checkpoint"
    whole = path.read_bytes()
    first, size, rest = whole.split(b"\n", 2)
    path.write_bytes(b"\n".join([first, b"%d" % (int(size) + 1), rest]))
    assert vault.sh(log) == (1, "Signature Verification Failure\n")
    path.write_bytes(whole)
    assert vault.sh(log.replace("head -3", "head -2"))[0] == 1
    # Another time in the cosignature.
    late = witness.replace('"$seconds"; cat', '"$((seconds + 1))"; cat')
    assert "Verification Failure" in vault.sh(log + late)[1]


def test_time_stamps(vault):
    (script,) = blocks(STAMPED, "sh")
    status, said = vault.sh(script)
    assert status == 0, said
    assert said.count("Verification: OK") >= 1
    assert said.count("Time stamp: ") == said.count("Verification: OK")
    stamped = vault.one("log/v1/1/timestamps/*/*.tsr").parent.name
    vault.harm(f"log/v1/1/checkpoints/{stamped}", lambda data: data + b"\n")
    status, said = vault.sh(script)
    assert status != 0
    assert "imprint mismatch" in said


def test_the_whole_log(vault, tessera_fsck):
    fsck, segments = blocks(WHOLE, "sh")
    status, said = vault.sh(fsck)
    assert (status, "failed" in said) == (0, False), said
    assert "OK" in said
    assert vault.sh(segments) == (0, "")
    manifest = vault.one("seg/**/*.manifest.jsonl")
    vault.harm("seg/**/*.manifest.jsonl", lambda data: data.replace(b'"n":"0"', b'"n":"8"', 1))
    assert vault.sh(segments) == (0, f"not in the log: {manifest.relative_to(vault.folder)}\n")
    size = vault.one("log/v1/1/checkpoint").read_text().splitlines()[1]
    vault.harm(
        f"log/v1/1/tile/entries/000.p/{size}", lambda data: data.replace(b'"v":1', b'"v":2', 1)
    )
    assert "failed" in vault.sh(fsck)[1]
