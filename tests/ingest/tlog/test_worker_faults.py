"""The log on the embedded stores when its process dies, or the disk fails, at any call that writes.

A process that appends, signs and has its checkpoint witnessed is traced once. Then it is run again
for each of its calls that change something on the disk: killed there, or told that the call failed.
Afterwards another goes on, and the log must be whole, by our own verification and by tessera's.
"""

import asyncio
import json
import random
import shutil
import socket
import sys
import threading
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.store import LogStore
from sealtape.ingest.vault import open_vault
from sealtape.schemas import notes, tree
from sealtape.schemas.evidence import parse_evidence_policy
from tests.factories.deployments import audit, make_site, seal
from tests.factories.log_child import REFUSED
from tests.factories.logs import grow_log, kinds, read_log
from tests.servers.strace import KILL, KILLED, Fault

ROOT = Path(__file__).parents[3]
FILLS = (
    "write", "pwrite64", "writev", "pwritev", "ftruncate", "rename", "renameat", "renameat2",
    "link", "linkat", "mkdir", "mkdirat",
)  # fmt: skip
CALLS = (*FILLS, "fsync", "fdatasync", "unlink", "unlinkat")
SEALED = ["session-open", "segment", "session-seal"]
SAMPLE = 10
SEED = 5


@pytest.fixture(scope="module", params=["begins", "goes on"])
def ready(request, tmp_path_factory):
    """A deployment with a session that is not in its log yet; `before` is what is in it."""
    site = make_site(tmp_path_factory.mktemp("ready") / "site")

    async def fill():
        before = []
        if request.param == "goes on":
            await seal(site, [site.session(number=1)])
            await grow_log(site)
            before, _ = await read_log(site)
        await seal(site, [site.session(number=2, commands=2)])
        return before

    return SimpleNamespace(site=site, before=asyncio.run(fill()))


@pytest.fixture
def append(strace):
    """Append in another process, with a fault or without; how it went, and what it told."""

    def run(site, fault=None):
        ours, theirs = socket.socketpair()
        told = []
        with ours, theirs:
            reader = threading.Thread(target=lambda: told.extend(ours.makefile("rb")))
            reader.start()
            try:
                traced = strace(
                    sys.executable, "-B", "-m", "tests.factories.log_child",
                    site.folder, str(theirs.fileno()),
                    calls=CALLS, fault=fault, cwd=ROOT, pass_fds=[theirs.fileno()],
                )  # fmt: skip
            finally:
                theirs.close()
                reader.join()
        return traced, [json.loads(line) for line in told if line.endswith(b"\n")]

    return run


@pytest.fixture
def fsck(tessera_fsck, tmp_path):
    """What tessera's fsck says of a deployment's log; nothing when it is whole."""

    def check(site):
        (vkey,) = [
            key.verifier.vkey
            for key in read_policy(site.settings).logs
            if len(key.verifier.public) == 32
        ]
        return tessera_fsck(f"{(site.folder / 'vault/log/v1/1').as_uri()}/", vkey, tmp_path)

    return check


def faults_of(traced):
    """Every fault that can be put into such a run."""
    for call, number in traced.points:
        yield Fault(call, number, KILL)
        yield Fault(call, number, "EIO")
        if call in FILLS:
            yield Fault(call, number, "ENOSPC")


def spread(faults, count):
    """So many of them, evenly over the run, each from its stretch by chance."""
    luck = random.Random(SEED)
    step = len(faults) / count
    return [faults[int((at + luck.random()) * step)] for at in range(count)]


def trouble(ready, append, fsck, folder, fault):
    """Put one fault into a run, let another finish, check all; whether it came to the fault."""
    shutil.copytree(ready.site.folder, folder)
    site = ready.site.moved(folder)
    traced, told = append(site, fault)
    assert traced.status in (KILLED if fault.what == KILL else ()) + (0, REFUSED), traced.output
    bound = stated(site, told)

    async def finish():
        await grow_log(site)
        await check(site, ready.before, told, bound + stated(site), fsck)

    asyncio.run(finish())
    shutil.rmtree(folder)
    return traced.injected


def stated(site, told=()):
    """Size and root of whatever was signed, shown or seen so far, by anybody."""
    notes_of = [line.get(kind, "").encode() for line in told for kind in ("note", "witnessed")]
    for place in ("witness", "monitor"):
        notes_of += [path.read_bytes() for path in (site.folder / place).glob("seen/*.checkpoint")]
        assert list((site.folder / place).rglob("refused/*/*")) == []
    found = []
    for note in filter(None, notes_of):
        checkpoint = notes.parse_checkpoint(notes.parse_note(note).text)
        found.append((checkpoint.size, checkpoint.root))
    signed = site.folder / "keys/log.signed"
    lines = json.loads(signed.read_bytes())["signed"] if signed.exists() else ()
    return found + [(int(line["size"]), bytes.fromhex(line["root"])) for line in lines]


async def check(site, before, told, bound, fsck):
    """All that must hold of a log after trouble."""
    entries, checkpoint = await read_log(site)
    assert entries[: len(before)] == before
    assert kinds(entries).count("log") == 1
    assert [kind for kind in kinds(entries[len(before) :]) if kind in SEALED] == SEALED
    policy = parse_evidence_policy((site.folder / "policy.toml").read_bytes())
    report = await audit(site, policy=policy)
    assert [finding.to_json() for finding in report.findings] == []
    assert report.verdict == "verified"
    assert fsck(site) == ""
    vault = await open_vault(site.settings.stores.vault, site.folder)
    data = await LogStore(vault, 1).entries(0, checkpoint.size)
    await vault.close()
    for line in told:
        if line["did"] == "log_append":
            now = [sha256(entry).hexdigest() for entry in data[line["first"] :]]
            assert now[: len(line["entries"])] == line["entries"]
    leaves = [tree.leaf_hash(entry) for entry in data]
    for size, root in bound:
        assert tree.root(leaves[:size]) == root


def test_what_is_traced_is_all_that_an_append_writes(ready, append, tmp_path):
    """The vault, the ledger, the signer and both witnesses come into it."""
    site = ready.site.moved(tmp_path / "site")
    shutil.copytree(ready.site.folder, site.folder)
    traced, told = append(site)
    assert (traced.status, traced.output) == (0, "")
    assert {"write", "pwrite64", "fsync", "fdatasync", "unlink", "rename"} <= {
        call for call, _ in traced.points
    }
    assert {"link", "linkat"} & {call for call, _ in traced.points}
    assert [line["did"] for line in told].count("sign") == 1
    assert {line["did"] for line in told} == {"log_append", "sign", "log_noted"}


@pytest.mark.timeout(900)
def test_a_sample_of_all_faults(ready, append, fsck, tmp_path):
    (tmp_path / "once").mkdir()
    shutil.copytree(ready.site.folder, tmp_path / "once/site")
    traced, _ = append(ready.site.moved(tmp_path / "once/site"))
    faults = spread(list(faults_of(traced)), SAMPLE)
    hit = [trouble(ready, append, fsck, tmp_path / str(fault), fault) for fault in faults]
    # No two runs write to the disk just as often: the last calls may not come.
    assert sum(hit) >= SAMPLE - 1


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_fault(ready, append, fsck, tmp_path):
    (tmp_path / "once").mkdir()
    shutil.copytree(ready.site.folder, tmp_path / "once/site")
    traced, _ = append(ready.site.moved(tmp_path / "once/site"))
    faults = list(faults_of(traced))
    hit = [trouble(ready, append, fsck, tmp_path / str(fault), fault) for fault in faults]
    assert sum(hit) > 0.9 * len(faults)
