import asyncio
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from sealtape.ingest.tlog.signer import open_signer
from sealtape.ingest.tlog.signer_file import FileSigner
from sealtape.ingest.tlog.signer_socket import MAX_LINE, SignerServer, SocketSigner
from sealtape.schemas import notes
from sealtape.schemas.errors import (
    Missing,
    SettingsError,
    SignatureError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
)
from tests.ingest.tlog.test_signer_file import LOG, OTHER, make, proof, text, verifiers


@pytest.fixture
async def place():
    """A folder with a key, and the address of a socket; its name must be short."""
    with tempfile.TemporaryDirectory(prefix="st") as folder:
        make(Path(folder) / "log.key", 1)
        yield Path(folder)


@pytest.fixture
async def asked(place):
    server = SignerServer(await FileSigner.open(place / "log.key"), place / "s.sock")
    await server.start()
    yield await open_signer("unix:s.sock", place)
    await server.stop()


async def test_it_signs_as_the_one_in_the_process(asked, place):
    assert await asked.signed(f"{LOG}/1") == 0
    note = await asked.sign(0, [], text(5))
    assert len(notes.open_note(note, verifiers(place / "log.key")).verified) == 2
    await asked.sign(5, proof(5, 9), text(9))
    assert await asked.signed(f"{LOG}/1") == 9
    assert await asked.signed(f"{LOG}/2") is None
    await asked.close()


async def test_refusals_come_over(asked, place):
    await asked.sign(0, [], text(5))
    with pytest.raises(SignatureError, match="refuses"):
        await asked.sign(5, [], text(9, OTHER))
    with pytest.raises(Missing, match="no key"):
        await asked.sign(0, [], text(3, OTHER, f"{LOG}/2"))
    (place / "log.signed").write_bytes(b"x")
    with pytest.raises(StoreCorrupt, match="damaged"):
        await asked.signed(f"{LOG}/1")
    with pytest.raises(StoreError):
        await asked.sign(0, [], "no checkpoint\n")


async def test_the_socket_is_its_owners(asked, place):
    assert stat.S_IMODE((place / "s.sock").stat().st_mode) == 0o600


async def test_nobody_there(place):
    with pytest.raises(StoreBusy, match="does not answer"):
        await SocketSigner(place / "s.sock").signed(f"{LOG}/1")


async def test_a_dead_socket_is_replaced_and_a_live_one_is_not(asked, place):
    second = SignerServer(await FileSigner.open(place / "log.key"), place / "s.sock")
    with pytest.raises(SettingsError, match="Another signer"):
        await second.start()
    assert await asked.signed(f"{LOG}/1") == 0


async def test_after_a_crash_it_listens_again(place):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(place / "s.sock"))
    dead.close()
    server = SignerServer(await FileSigner.open(place / "log.key"), place / "s.sock")
    await server.start()
    assert await SocketSigner(place / "s.sock").signed(f"{LOG}/1") == 0
    await server.stop()
    await server.stop()
    assert not (place / "s.sock").exists()


async def test_a_folder_that_is_not_there(place):
    server = SignerServer(await FileSigner.open(place / "log.key"), place / "no/s.sock")
    with pytest.raises(StoreError):
        await server.start()


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"no json\n", b'{"ask":"steal","v":1}\n', b'{"ask":"signed","v":1}\n'],
)
async def test_questions_that_make_no_sense(asked, place, line):
    reader, writer = await asyncio.open_unix_connection(str(place / "s.sock"))
    writer.write(line)
    assert b'"error"' in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert await asked.signed(f"{LOG}/1") == 0


async def test_endless_and_half_questions(asked, place):
    for data in (b"x" * (MAX_LINE + 2), b"half", b""):
        reader, writer = await asyncio.open_unix_connection(str(place / "s.sock"))
        writer.write(data)
        writer.write_eof()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert await asked.signed(f"{LOG}/1") == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"half",
        b"no json\n",
        b"{}\n",
        b'{"v":2}\n',
        b'{"size":"x","v":1}\n',
        b'{"error":"nothing we know","hint":"","message":"no","v":1}\n',
        b"x" * (MAX_LINE + 2),
    ],
)
async def test_answers_that_make_no_sense(place, answer):
    done = asyncio.Event()

    async def reply(reader, writer):
        with suppress(ConnectionError):
            await reader.readline()
            writer.write(answer)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        done.set()

    server = await asyncio.start_unix_server(reply, place / "s.sock")
    with pytest.raises(StoreError):
        await SocketSigner(place / "s.sock").signed(f"{LOG}/1")
    await done.wait()
    server.close()
    await server.wait_closed()


async def test_a_signer_that_hangs(place, monkeypatch):
    monkeypatch.setattr("sealtape.ingest.tlog.signer_socket.ANSWER_S", 0.1)

    async def hang(_, writer):
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_unix_server(hang, place / "s.sock")
    with pytest.raises(StoreBusy):
        await SocketSigner(place / "s.sock").signed(f"{LOG}/1")
    server.close()
    await asyncio.sleep(0.4)
