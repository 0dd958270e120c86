"""The witness, the monitor and the verification of the composition at work, as processes.

They have the keys, policies and commands that their services have. Stores and ports are others: the
stores are embedded ones, and nothing leaves the machine.
"""

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from sealtape.capture.metrics.asking import metrics_at, readiness_at
from sealtape.ingest.node import open_stores
from sealtape.ingest.tlog.opening import log_parts
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.schemas.trust import parse_node_key
from sealtape.schemas.wraps import PrivateKey
from tests.deploy.composed import SERVICES, prepare
from tests.factories.deployments import Site, seal, tree_state
from tests.factories.logs import kinds, read_log

LOG = "sealtape.compose/log"
SITE = """\
[deployment]
mode = "dev"
node = "ingest-1"
log = "{log}"

[stores]
bus = "dir:bus?partitions=1"

[log]
signer = "file:keys/log.key"
checkpoint_s = 0.1
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("composed"))


@pytest.fixture
def site(out, tmp_path, monkeypatch):
    """Embedded stores with the composition's keys."""
    monkeypatch.setattr("tests.factories.sessions.LOG", LOG)
    folder = tmp_path / "site"
    (folder / "keys").mkdir(parents=True)
    for file in ("log.key", "log.mldsa.key"):
        (folder / "keys" / file).write_bytes((out / "signer/keys" / file).read_bytes())
    for file in ("trust.toml", "log.policy"):
        (folder / file).write_bytes((out / "ingest" / file).read_bytes())
    (folder / "sealtape.toml").write_text(SITE.format(log=LOG))
    return Site(
        folder=folder,
        node=parse_node_key((out / "capture/keys/node.key").read_text()),
        auditor=PrivateKey.from_text((out / "auditor/keys/auditor.key").read_text()),
        indexer=PrivateKey.from_text((out / "indexer/keys/indexer.key").read_text()),
    )


def command(out, site, name):
    """A service's command, with its mounts where they are here and ports that are free."""
    state = site.folder.parent / name
    state.mkdir(exist_ok=True)
    places = {
        "/etc/sealtape": str(out / name),
        "/var/lib/sealtape": str(state),
        "/mnt/s3/objects/sealtape/vault": str(site.folder / "vault"),
    }
    words = []
    for word in SERVICES[name]["command"]:
        placed = word
        for there, here in places.items():
            placed = placed.replace(there, here)
        words.append("127.0.0.1:0" if word.startswith("0.0.0.0:") else placed)
    return [sys.executable, "-P", "-m", "sealtape", *words]


@contextmanager
def running(out, site, name):
    """The service as a process; what it says when it is ready."""
    process = subprocess.Popen(
        [*command(out, site, name), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        ready = process.stdout.readline()
        assert ready, process.stderr.read()
        yield json.loads(ready)
    finally:
        process.kill()
        process.communicate(timeout=30)


def sealtape(*words):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def witnessed(site, within_s=30.0):
    """Run the log's worker as ingest does until all that is there is witnessed."""
    stores = await open_stores(site.settings)
    try:
        async with log_parts(site.settings, stores.ledger, stores.vault) as parts:
            worker = LogWorker(parts, owner="ingest-1", ttl_s=5.0)
            task = asyncio.create_task(worker.run())
            until = time.monotonic() + within_s
            while not _done(now := worker.snapshot()):
                assert time.monotonic() < until, now
                await asyncio.sleep(0.02)
            worker.leave()
            await task
            return now
    finally:
        await stores.close()


def _done(now):
    return now.size > 10 and now.witnessed == now.size


async def test_both_cosign_what_the_composition_records(out, site):
    introduce = [out / "auditor/keys.statement", "--if-new"]
    config = ["-c", site.config]
    for _ in range(2):  # with each `up`
        assert sealtape(*config, "statement", "submit", *introduce)[0] == 0
    await seal(site, [site.session(start_ns=time.time_ns()) for _ in range(2)])
    with ExitStack() as stack:
        told = {n: stack.enter_context(running(out, site, n)) for n in ("witness", "monitor")}
        text = (site.folder / "log.policy").read_text()
        for name, ready in told.items():
            port = SERVICES[name]["command"]
            port = port[port.index("--listen") + 1].rpartition(":")[2]
            text = text.replace(f"http://{name}:{port}", ready["url"])
        (site.folder / "log.policy").write_text(text)
        await witnessed(site)
        before = tree_state(site.folder / "vault")
        for ready in told.values():
            assert (await readiness_at(ready["metrics"]))["ready"]
            metrics = await metrics_at(ready["metrics"])
            assert metrics["sealtape_witness_cosigned_total"] > 0
        assert metrics["sealtape_monitor_objections"] == 0
    assert tree_state(site.folder / "vault") == before
    entries, _ = await read_log(site)
    assert kinds(entries)[0] == "log"
    assert kinds(entries).count("session-seal") == 2
    assert kinds(entries)[1] == "key", "keys are introduced before anything is recorded"
    check_verification(out, site)


def check_verification(out, site):
    """The settings of `verify`, but for the stores' addresses: these two stores are enough."""
    own = site.folder.parent / "verify"
    own.mkdir()
    text = (out / "verify/sealtape.toml").read_text()
    for name in ("trust.toml", "policy.toml"):
        (own / name).write_bytes((out / "verify" / name).read_bytes())
    stores = text.partition("[stores]")[2].partition("[verify]")[0]
    text = text.replace(
        stores,
        f'\nvault = "file:{site.folder}/vault"\nledger = "sqlite:{site.folder}/ledger.db"\n\n',
    )
    text = text.replace("/var/lib/sealtape", str(own))
    text = text.replace('metrics = "0.0.0.0:9464"', "")
    (own / "sealtape.toml").write_text(text)
    words = SERVICES["verify"]["command"]
    code, told, err = sealtape("-c", own / "sealtape.toml", *words, "--once", "--json")
    assert code == 0, (told, err)
    assert json.loads(told)["verdict"] == "verified"
