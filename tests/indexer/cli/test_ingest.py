"""`sealtape ingest`: a room of its own."""

import asyncio
import signal
import subprocess
import sys
import time

from sealtape.capture.bus import open_bus
from tests.factories.deployments import audit, make_site


def without_witnesses(site):
    """A lab's witnesses are in the process of `sealtape dev`; here nobody would answer."""
    path = site.folder / "log.policy"
    kept = [line for line in path.read_text().splitlines() if line.startswith("log ")]
    path.write_text("\n".join([*kept, "quorum none"]) + "\n")


def test_it_seals_what_comes_and_drains(tmp_path):
    site = make_site(tmp_path / "site")
    without_witnesses(site)
    built = [site.session(), site.session()]

    async def append():
        bus = open_bus(site.settings.stores.bus, site.folder)
        for each in built:
            await bus.append(bus.partition_of(each.session), each.encoded())
        await bus.close()

    asyncio.run(append())
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sealtape", "-c", site.config, "ingest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while not (site.folder / "vault/seg").exists():
        assert time.monotonic() < until
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    report = asyncio.run(audit(site))
    assert report.verdict == "verified"
    assert report.sessions == 2


def test_without_a_trust_file(run, tmp_path):
    run("init", "lab", "--dev")
    (tmp_path / "lab/trust.toml").unlink()
    answer = run("-c", "lab", "ingest", "--json")
    assert answer.code == 64
    assert answer.error["code"] == "settings"
