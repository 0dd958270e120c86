"""`sealtape signer`: the log's keys in a process of their own."""

import asyncio
import signal
import subprocess
import sys
import tempfile

import pytest

from sealtape.ingest.tlog.signer_file import FileSigner
from sealtape.ingest.tlog.signer_socket import SocketSigner
from sealtape.schemas.errors import StoreBusy
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, kinds, read_log


@pytest.fixture
def short():
    """A folder whose name fits a socket's address."""
    with tempfile.TemporaryDirectory(prefix="st") as folder:
        yield folder


async def answered(signer):
    """What it says first, once it is up."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await signer.signed("sealtape.test/log/1")
            except StoreBusy:
                await asyncio.sleep(0.05)


async def test_a_log_signed_by_another_process(tmp_path, short, monkeypatch):
    site = make_site(tmp_path / "lab")
    (tmp_path / "apart").mkdir()
    for name in ("log.key", "log.mldsa.key"):
        (site.folder / "keys" / name).rename(tmp_path / "apart" / name)
    path = f"{short}/s.sock"
    text = site.config.read_text().replace("[log] ", f'[log]\nsigner = "unix:{path}"\n#')
    site.config.write_text(text)
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "sealtape", "-c", site.config, "signer"),
            *("--key", tmp_path / "apart/log.key", "--socket", path),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        signer = SocketSigner(tmp_path / path)
        assert await answered(signer) == 0
        await seal(site, [site.session(commands=1)])
        await grow_log(site)
        entries, checkpoint = await read_log(site)
        assert "session-seal" in kinds(entries)
        assert await signer.signed(checkpoint.origin) == checkpoint.size
        apart = await FileSigner.open(tmp_path / "apart/log.key")
        assert await apart.signed(checkpoint.origin) == checkpoint.size
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_socket_needs_its_folder(run, recorded, tmp_path):
    key = recorded.site.folder / "keys/log.key"
    answer = run(
        "-c", recorded.site.config, "signer", "--key", key, "--socket", tmp_path / "no/s.sock"
    )
    assert (answer.code, "no folder" in answer.err) == (64, True)
