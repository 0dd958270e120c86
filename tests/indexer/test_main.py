import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealtape.indexer.__main__ import build_parser, main
from sealtape.indexer.index import Page
from sealtape.indexer.query import Query
from tests.factories.sessions import build_session, reader

SETTINGS = """
[deployment]
mode = "dev"
node = "node-1"
log = "sealtape.test/log"
[stores]
bus = "dir:bus?partitions=2"
[identity]
issuer = "https://issuer.test"
audience = "sealtape"
jwks = "file:keys/jwks.json"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sealtape.toml").write_text(SETTINGS)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/indexer.key").write_text(reader("indexer").text())
    return tmp_path


@pytest.fixture
def config(folder):
    return str(folder / "sealtape.toml")


async def test_it_indexes_until_it_is_told_to_stop(folder, config, deployment):
    assert deployment.folder == folder
    built = build_session(seed=50)
    await deployment.send(built)
    command = [sys.executable, "-m", "sealtape.indexer", "-c", config]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 20
        while not (await deployment.index.search_commands(Query(), Page())).documents:
            assert process.returncode is None
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert b"Traceback" not in said
    assert (await deployment.index.session(built.session.hex())).state == "closed"


@pytest.mark.parametrize(
    ("missing", "code", "said"),
    [
        ("sealtape.toml", 64, "sealtape.toml cannot be read"),
        ("keys/indexer.key", 77, "indexer.key cannot be read"),
    ],
)
def test_what_is_missing_is_named(folder, config, capsys, missing, code, said):
    (folder / missing).unlink()
    assert main(["-c", config]) == code
    assert said in capsys.readouterr().err


def test_a_key_file_that_is_none(folder, config, capsys):
    (folder / "keys/indexer.key").write_text("rubbish\n")
    assert main(["-c", config]) == 65
    assert capsys.readouterr().err.startswith("error: ")


def test_help_says_what_it_reads():
    text = build_parser().format_help()
    assert "indexer_private" in text
    assert str(Path("sealtape.toml")) in text
