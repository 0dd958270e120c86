import asyncio
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.ingest.tlog import signer_file as module
from sealtape.ingest.tlog.signer import open_signer
from sealtape.ingest.tlog.signer_file import FileSigner, key_paths, read_key, shard_of
from sealtape.schemas import notes, tree
from sealtape.schemas.cosignatures import ML_DSA_44, cosigned_at
from sealtape.schemas.errors import (
    FormatError,
    Missing,
    SettingsError,
    SignatureError,
    StoreCorrupt,
)
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.keyfiles import format_key

LOG = "sealtape.test/log"
LEAVES = [tree.leaf_hash(b"%d" % number) for number in range(40)]
OTHER = [tree.leaf_hash(b"other %d" % number) for number in range(40)]


def text(size, leaves=LEAVES, origin=f"{LOG}/1"):
    return Checkpoint(origin, size, tree.root(leaves[:size])).text()


def proof(old, new, leaves=LEAVES):
    return tree.consistency_proof(leaves[:new], old)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "log.key"
    make(path, 1)
    return path


def make(path, number):
    first, second = key_paths(path, number)
    origin = f"{LOG}/{number}"
    first.write_text(format_key(origin, notes.ALGORITHM, bytes(31) + bytes([number])))
    second.write_text(format_key(origin, ML_DSA_44, bytes(31) + bytes([number])))


def verifiers(path, number=1):
    return [read_key(each).verifier for each in key_paths(path, number)]


async def test_the_same_again_is_synced_too(path, monkeypatch):
    """Who wrote it down first may have been killed before that was on the disk."""
    await FileSigner(path).sign(0, [], text(5))
    synced = []
    monkeypatch.setattr(module, "sync_directory", synced.append)
    await FileSigner(path).sign(5, [], text(5))
    assert synced == [path.parent]


async def test_both_keys_sign(path):
    signer = FileSigner(path, clock_ns=lambda: 7_900_000_000)
    assert await signer.signed(f"{LOG}/1") == 0
    note = await signer.sign(0, [], text(5))
    opened = notes.open_note(note, verifiers(path))
    assert opened.text == text(5)
    assert len(opened.verified) == 2
    assert cosigned_at(opened.verified[1]) == 7
    assert await signer.signed(f"{LOG}/1") == 5


async def test_without_a_second_key_one_signs(path):
    key_paths(path, 1)[1].unlink()
    note = await FileSigner(path).sign(0, [], text(5))
    assert len(notes.parse_note(note).unverified) == 1


async def test_it_signs_what_goes_on(path):
    signer = FileSigner(path)
    sizes = [0, 1, 1, 7, 8, 40]
    for old, new in pairwise(sizes):
        await signer.sign(old, proof(old, new) if old else [], text(new))
    again = await FileSigner.open(path)
    assert await again.signed(f"{LOG}/1") == 40


@pytest.mark.parametrize(
    ("old", "proof_of", "checkpoint"),
    [
        (20, (10, 20, LEAVES), text(20)),
        (0, (0, 20, LEAVES), text(20)),
        (10, (10, 20, LEAVES), text(20, OTHER)),
        (10, (10, 20, OTHER), text(20, OTHER)),
        (10, (10, 20, OTHER), text(20)),
        (10, None, text(20)),
        (10, None, text(10, OTHER)),
        (10, None, text(5)),
        (5, (5, 8, LEAVES), text(8)),
    ],
)
async def test_it_signs_no_fork(path, old, proof_of, checkpoint):
    signer = FileSigner(path)
    await signer.sign(0, [], text(10))
    before = path.with_suffix(".signed").read_bytes()
    given_proof = [] if proof_of is None else proof(proof_of[0], proof_of[1], proof_of[2])
    with pytest.raises(SignatureError, match="refuses"):
        await signer.sign(old, given_proof, checkpoint)
    assert path.with_suffix(".signed").read_bytes() == before
    await signer.sign(10, proof(10, 20), text(20))


@settings(max_examples=30)
@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.booleans()), max_size=12)
)
def test_whatever_is_asked_all_that_is_signed_is_one_history(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("signer") / "log.key"
    make(path, 1)

    async def ask():
        signer, signed = FileSigner(path), []
        for old, new, other in steps:
            leaves = OTHER if other else LEAVES
            given = proof(old, new, leaves) if 0 < old <= new else []
            try:
                await signer.sign(old, given, text(new, leaves))
            except SignatureError:
                continue
            signed.append((new, tree.root(leaves[:new])))
        return signed

    signed = asyncio.run(ask())
    assert [size for size, _ in signed] == sorted(size for size, _ in signed)
    history = LEAVES if not signed or signed[0][1] == tree.root(LEAVES[: signed[0][0]]) else OTHER
    assert signed == [(size, tree.root(history[:size])) for size, _ in signed]


async def test_shards_have_keys_and_histories_of_their_own(path):
    make(path, 2)
    signer = FileSigner(path)
    await signer.sign(0, [], text(10))
    note = await signer.sign(0, [], text(3, OTHER, f"{LOG}/2"))
    notes.open_note(note, verifiers(path, 2))
    assert (await signer.signed(f"{LOG}/1"), await signer.signed(f"{LOG}/2")) == (10, 3)
    assert await signer.signed(f"{LOG}/3") is None
    with pytest.raises(Missing, match="no key"):
        await signer.sign(0, [], text(3, OTHER, f"{LOG}/3"))


async def test_signers_of_one_folder_take_turns(path):
    """Another process has signed meanwhile: it is seen."""
    first, second = FileSigner(path), FileSigner(path)
    await first.sign(0, [], text(10))
    await second.sign(10, proof(10, 20), text(20))
    with pytest.raises(SignatureError):
        await first.sign(10, proof(10, 15), text(15))
    results = await asyncio.gather(
        *(each.sign(20, proof(20, 30), text(30)) for each in (first, second)),
        return_exceptions=True,
    )
    assert sum(isinstance(found, bytes) for found in results) == 1


async def test_a_damaged_state_is_not_a_new_beginning(path):
    await FileSigner(path).sign(0, [], text(10))
    state = path.with_suffix(".signed")
    whole = state.read_bytes()
    for broken in (b"x", whole[:-1], whole[:-9] + b"\n", whole + whole, b"{}\n"):
        state.write_bytes(broken)
        with pytest.raises(StoreCorrupt, match="damaged"):
            await FileSigner(path).signed(f"{LOG}/1")
        with pytest.raises(StoreCorrupt, match="damaged"):
            await FileSigner(path).sign(0, [], text(5, OTHER))


def test_killed_while_it_signs_it_knows_what_it_signed(path):
    """What another process saw signed is in the state, however the signer died."""
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from sealtape.ingest.tlog.signer_file import FileSigner\n"
        "from tests.ingest.tlog.test_signer_file import LEAVES, proof, text\n"
        "async def go():\n"
        "    signer = FileSigner(Path(sys.argv[1]))\n"
        "    for size in range(1, 40):\n"
        "        note = await signer.sign(size - 1, proof(size - 1, size) if size > 1 else [],"
        " text(size))\n"
        "        os.write(1, b'%d\\n' % size)\n"
        "asyncio.run(go())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    for _ in range(5):
        seen = int(process.stdout.readline())
    process.kill()
    process.communicate()
    assert asyncio.run(FileSigner(path).signed(f"{LOG}/1")) >= seen


async def test_keys_of_another_name_do_not_sign(path):
    make(path, 2)
    key_paths(path, 1)[0].write_bytes(key_paths(path, 2)[0].read_bytes())
    with pytest.raises(SettingsError, match="not the one of"):
        await FileSigner(path).sign(0, [], text(3))


async def test_a_key_that_cannot_be_read_says_so(path):
    path.write_text("nonsense")
    with pytest.raises(SettingsError, match="cannot be read"):
        await FileSigner.open(path)
    path.unlink()
    with pytest.raises(SettingsError, match="sealtape log init"):
        await FileSigner.open(path)


async def test_what_is_no_checkpoint_is_not_signed(path):
    with pytest.raises(FormatError):
        await FileSigner(path).sign(0, [], "anything\n")
    with pytest.raises(FormatError, match="origin"):
        await FileSigner(path).sign(0, [], text(3, origin="elsewhere"))


@pytest.mark.parametrize("origin", ["log", "log/", "log/0", "log/01", "/1", "log/x", ""])
def test_origins_have_a_number(origin):
    with pytest.raises(FormatError):
        shard_of(origin)


def test_where_keys_lie(tmp_path):
    path = tmp_path / "log.key"
    assert [each.name for each in key_paths(path, 1)] == ["log.key", "log.mldsa.key"]
    assert [each.name for each in key_paths(path, 12)] == ["log-12.key", "log-12.mldsa.key"]


async def test_a_signer_by_its_url(path):
    signer = await open_signer("file:log.key", path.parent)
    assert await signer.signed(f"{LOG}/1") == 0
    await signer.close()
    for url in ("log.key", "file:", "kms:x", "unix:"):
        with pytest.raises(SettingsError, match=r"log\.signer"):
            await open_signer(url, path.parent)
