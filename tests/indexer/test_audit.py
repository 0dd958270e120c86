"""What verification finds and where, and that it finds nothing where nothing is wrong."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.parquet import row_of
from sealtape.ingest.sealer import Limits
from sealtape.schemas import messages
from sealtape.schemas.bodies import make_open, parse_open
from sealtape.schemas.frames import Kind
from sealtape.schemas.notes import Checkpoint, session_origin
from sealtape.schemas.tree import CompactRange
from tests.factories.deployments import (
    Forger,
    audit,
    interleaved,
    make_site,
    put,
    random_site,
    reading,
    seal,
    sealing,
    settled,
    site_at,
    tree_state,
)
from tests.factories.sessions import LOG, node_signer
from tests.indexer.harm import edit, overwrite, sealed, site, tampered

__all__ = ["sealed", "site"]


# -- nothing is wrong -----------------------------------------------------------------------------


async def test_whole(sealed):
    site, first, second = sealed
    report = await audit(site)
    assert (report.verdict, report.exit_code) == ("verified", 0)
    assert report.findings == []
    assert report.sessions == 4
    frames = [frame for built in [*first, *second] for frame in built.frames]
    assert report.frames == len(frames)
    assert report.payload_bytes == sum(len(frame.payload) for frame in frames)
    (note,) = report.notes
    assert "attested by the node's key" in note


async def test_each_session_alone(sealed):
    site, first, second = sealed
    for built in [*first, *second]:
        report = await audit(site, built.session)
        epochs = [each for each in [*first, *second] if each.session == built.session]
        assert report.verdict == "verified"
        assert report.sessions == 1
        assert report.frames == sum(len(each.frames) for each in epochs)


async def no_false_alarm(folder, seed):
    site, sessions = random_site(folder, seed)
    pairs = interleaved(sessions, seed)
    cut = random.Random(seed).choice([0, len(pairs) // 2])
    patient = Limits(segment_ns=10**8, idle_ns=10**7)
    async with sealing(site, limits=patient) as (stores, _):
        await put(stores.bus, pairs[:cut])
        await asyncio.sleep(0.15 if cut else 0)
    await seal(site, pairs=pairs[cut:], limits=patient)
    ends = {built.session: built for built in sessions}
    live = {
        name
        for name, end in ends.items()
        if end.frames[-1].kind != Kind.CLOSE and end.opening.type == "session"
    }
    for key in (None, site.auditor):
        report = await audit(site, key=key)
        assert [f.to_json() for f in report.findings if f.verdict != "incomplete"] == [], seed
        assert {bytes.fromhex(f.session) for f in report.findings} == live, seed
        assert report.verdict == ("incomplete" if live else "verified")
        assert report.sessions == len(ends)
    for name in ends:
        report = await audit(site, name)
        assert report.verdict == ("incomplete" if name in live else "verified"), seed


@pytest.mark.parametrize("seed", range(12))
async def test_no_false_alarm(tmp_path, seed):
    await no_false_alarm(tmp_path / "site", seed)


@pytest.mark.soak
async def test_no_false_alarm_ever(tmp_path):
    for seed in range(1000, 2000):
        await no_false_alarm(tmp_path / str(seed), seed)
        shutil.rmtree(tmp_path / str(seed))


async def test_no_false_alarm_while_ingest_runs(tmp_path):
    site = make_site(tmp_path / "site", partitions=2)
    sessions = many(site)
    pairs = interleaved(sessions, 7)
    quick = Limits(segment_ns=20_000_000, idle_ns=5_000_000)
    looks = []
    async with sealing(site, limits=quick) as (stores, running):

        async def produce():
            for at in range(0, len(pairs), 3):
                await put(stores.bus, pairs[at : at + 3])
                await asyncio.sleep(0.01)
            await settled(running)

        producing = asyncio.create_task(produce())
        while not producing.done():
            report = await audit(site)
            wrong = [f.to_json() for f in report.findings if f.verdict != "incomplete"]
            assert wrong == []
            looks.append(report.frames)
            for built in sessions[:2]:
                report = await audit(site, built.session)
                assert report.verdict in ("incomplete", "verified")
        await producing
    assert len(set(looks)) > 3, "it did not grow while it was looked at"
    assert (await audit(site)).verdict == "verified"


def many(site):
    sessions = []
    for number in range(12):
        options = {"commands": 6, "checkpoint_every": 4}
        sessions += site.recovered(**options) if number % 4 == 3 else [site.session(**options)]
    return sessions


# -- bytes of the objects -------------------------------------------------------------------------


async def flips(site, path, places, seed):
    """Flip one bit at each place; return what was found, by place."""
    data = path.read_bytes()
    luck = random.Random(seed)
    found = {}
    now_ns = time.time_ns()  # a minute later the journal would have fallen silent
    async with reading(site) as stores:
        for place in places:
            changed = bytearray(data)
            changed[place] ^= 1 << luck.randrange(8)
            overwrite(path, changed)
            found[place] = await audit(site, stores=stores, now_ns=now_ns)
        overwrite(path, data)
        assert (await audit(site, stores=stores, now_ns=now_ns)).verdict == "verified"
    return found


def regions(data):
    """A sample of places: every stretch of 64 bytes, and all of what a reader starts from."""
    luck = random.Random(20)
    footer = int.from_bytes(data[-8:-4], "little")
    every = {luck.randrange(at, min(at + 64, len(data))) for at in range(0, len(data), 64)}
    start = set(range(12)) | set(range(len(data) - 12, len(data)))
    dense = set(range(len(data) - 8 - footer, len(data) - 8, 16))
    return sorted(every | start | dense)


async def test_a_flipped_bit_in_a_segment(site):
    path = site.objects()[0]
    name = str(path.relative_to(site.folder / "vault"))
    places = regions(path.read_bytes())
    assert len(places) > 250
    for place, report in (await flips(site, path, places, 1)).items():
        assert report.verdict == "tampered", place
        assert {f.object for f in report.findings} == {name}, place


@pytest.mark.soak
async def test_every_byte_of_a_segment(site):
    path = site.objects()[0]
    places = range(len(path.read_bytes()))
    for place, report in (await flips(site, path, places, 2)).items():
        assert report.verdict == "tampered", place


async def test_a_flipped_bit_in_a_payload_names_the_frame_and_nothing_else(site, sealed):
    path = site.objects()[0]
    data = path.read_bytes()
    for built in sealed[1]:
        for frame in built.frames[1::2]:
            at = data.index(frame.payload) + len(frame.payload) // 2
            report = (await flips(site, path, [at], 3))[at]
            damage = [f for f in report.findings if f.layer != "object"]
            assert [(f.layer, f.session, f.epoch, f.seq) for f in damage] == [
                ("frame", built.session.hex(), built.epoch, frame.seq)
            ]
            report = await audit(site, built.session)
            assert report.verdict == "verified"


@pytest.mark.parametrize("column", ["payload_sha256", "leaf"])
async def test_a_flipped_bit_in_a_hash_names_the_frame(site, sealed, column):
    path = site.objects()[0]
    data = path.read_bytes()
    built = sealed[1][0]
    for number in (0, 2, len(built.frames) - 1):
        row = row_of(built.frames[number])
        at = data.index(getattr(row, column))
        report = (await flips(site, path, [at], 4))[at]
        tampered(report, layer="frame", session=built.session.hex(), seq=number)


async def test_a_changed_manifest(site):
    path = site.objects(".manifest.jsonl")[0]
    places = range(0, path.stat().st_size, 11)
    for place, report in (await flips(site, path, places, 5)).items():
        assert report.verdict == "tampered", place
        assert {f.layer for f in report.findings} <= {"manifest", "ledger"}, place


@pytest.mark.soak
async def test_every_byte_of_a_manifest(site):
    path = site.objects(".manifest.jsonl")[0]
    for place, report in (await flips(site, path, range(path.stat().st_size), 6)).items():
        assert report.verdict == "tampered", place


@pytest.mark.parametrize("suffix", [".parquet", ".manifest.jsonl"])
@pytest.mark.parametrize("change", ["empty", "short", "half", "longer", "twice", "zeros"])
async def test_an_object_of_another_length(site, suffix, change):
    path = site.objects(suffix)[0]
    data = path.read_bytes()
    changed = {
        "empty": b"",
        "short": data[:-1],
        "half": data[: len(data) // 2],
        "longer": data + b"\n",
        "twice": data + data,
        "zeros": bytes(len(data)),
    }[change]
    overwrite(path, changed)
    key = str(path.relative_to(site.folder / "vault")).replace(suffix, ".parquet")
    tampered(await audit(site), object=key)


async def test_lines_of_a_manifest(site):
    path = site.objects(".manifest.jsonl")[0]
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    other = site.objects(".manifest.jsonl")[1].read_bytes().splitlines(keepends=True)
    edits = [
        lines[:-1],
        lines[1:],
        [*lines, lines[-1]],
        [lines[0], *reversed(lines[1:])],
        [other[0], *lines[1:]],
        [lines[0], *other[1:]],
        [line.replace(b"\n", b"\r\n") for line in lines],
    ]
    for changed in edits:
        overwrite(path, b"".join(changed))
        tampered(await audit(site), layer="manifest")


async def test_a_dropped_object(site, sealed):
    path = site.objects()[0]
    path.unlink()
    report = await audit(site)
    for built in sealed[1]:
        tampered(report, layer="frame", session=built.session.hex(), epoch=built.epoch, seq=0)
    tampered(report, layer="object", object=str(path.relative_to(site.folder / "vault")))
    assert (await audit(site, sealed[2][0].session)).verdict == "verified"
    tampered(await audit(site, sealed[1][0].session), layer="frame")


async def test_a_dropped_manifest(site, sealed):
    path = site.objects(".manifest.jsonl")[0]
    path.unlink()
    report = await audit(site)
    (finding,) = tampered(report, layer="object")
    assert finding.object == str(path.relative_to(site.folder / "vault"))
    assert report.sessions == 4, "the ledger's fragments stand in for the manifest"


async def test_swapped_objects(site):
    one, two = site.objects()
    first, second = one.read_bytes(), two.read_bytes()
    overwrite(one, second)
    overwrite(two, first)
    report = await audit(site)
    for path in (one, two):
        tampered(report, object=str(path.relative_to(site.folder / "vault")))


@pytest.mark.parametrize("with_manifest", [False, True])
async def test_an_older_valid_object_in_the_place_of_a_newer(site, sealed, with_manifest):
    one, two = site.objects()
    overwrite(two, one.read_bytes())
    if with_manifest:
        older, newer = site.objects(".manifest.jsonl")
        overwrite(newer, older.read_bytes())
    key = str(two.relative_to(site.folder / "vault"))
    tampered(await audit(site), object=key)
    tampered(await audit(site, sealed[2][0].session), object=key)
    assert (await audit(site, sealed[1][0].session)).verdict == "verified"


@pytest.mark.parametrize("name", ["copy", "orphan.parquet", "note.txt"])
async def test_an_object_that_nobody_sealed(site, name):
    path = site.objects()[0]
    if name == "copy":
        stem = path.name.replace(path.name[:4], "ffff", 1)
        shutil.copy(path, path.with_name(stem))
        shutil.copy(
            path.with_name(path.stem + ".manifest.jsonl"),
            path.with_name(stem.replace(".parquet", ".manifest.jsonl")),
        )
    else:
        path.with_name(name).write_bytes(b"x")
    found = tampered(await audit(site))
    assert len(found) == (2 if name == "copy" else 1)


# -- rows of an object, with all hashes in it made right ------------------------------------------


def rows_changed(forger, built, change):
    at, row = forger.find(built, 3)
    rows = forger.stretches[at]
    frame = rows[row].frame()
    if change == "dropped":
        del rows[row]
    elif change == "twice":
        rows.insert(row, rows[row])
    elif change == "swapped":
        rows[row], rows[row + 1] = rows[row + 1], rows[row]
    elif change == "renumbered":
        forger.put(built, 3, replace(frame, seq=4))
    elif change == "payload":
        forger.put(built, 3, replace(frame, payload=b"x" * len(frame.payload)))
    elif change == "time":
        forger.put(built, 3, replace(frame, ts_ns=frame.ts_ns + 1))
    elif change == "kind":
        forger.put(built, 3, replace(frame, kind=Kind.STATE))
    elif change == "foreign":
        forger.put(built, 3, forger.stretches[-1][3].frame())
    elif change == "foreign renamed":
        other = forger.stretches[-1][3].frame()
        forger.put(built, 3, replace(other, session=built.session))


CHANGES = [
    "dropped",
    "twice",
    "swapped",
    "renumbered",
    "payload",
    "time",
    "kind",
    "foreign",
    "foreign renamed",
]


def forged(site, first, change):
    edit(
        site,
        "DELETE FROM head WHERE session IN (SELECT session FROM fragment WHERE segment_id=2)",
        "DELETE FROM session WHERE session IN (SELECT session FROM fragment WHERE segment_id=2)",
        "DELETE FROM fragment WHERE segment_id=2",
        "DELETE FROM segment WHERE id=2",
        "UPDATE shard SET n=1",
    )
    for suffix in (".parquet", ".manifest.jsonl"):
        site.objects(suffix)[1].unlink()
    forger = Forger(site)
    owners = [fragment.session for fragment in forger.fragments]
    built = next(b for b in first if b.session == owners[0] and b.epoch == 0)
    rows_changed(forger, built, change)
    return forger, built


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_rows_in_an_object(site, sealed, change):
    forger, built = forged(site, sealed[1], change)
    forger.write_object()
    report = await audit(site)
    found = tampered(report, session=built.session.hex())
    assert {f.layer for f in found} & {"frame", "tree"}
    seqs = {f.seq for f in found if f.session == built.session.hex() and f.seq is not None}
    assert seqs & ({0, 3, 4} if change not in ("dropped", "twice") else {0, 3, 4, 7, 8, 9, 10})


@pytest.mark.parametrize("change", CHANGES)
async def test_changed_rows_with_every_unsigned_hash_made_right(site, sealed, change):
    """Who may write every store still has no key of the session's signatures."""
    forger, built = forged(site, sealed[1], change)
    forger.write_all()
    for report in (await audit(site), await audit(site, built.session)):
        found = tampered(report, session=built.session.hex())
        layers = {f.layer for f in found if f.session == built.session.hex()}
        assert layers & {"checkpoint", "tree", "frame", "session"}


async def test_a_forged_checkpoint(site, sealed):
    """Signed by the right name's other key: the root is that of the changed frames."""
    forger, built = forged(site, sealed[1], "payload")
    at, _ = forger.find(built, 3)
    name = session_origin(LOG, built.session, 0)
    size = forger.fragments[at].hi
    forger.write_all()
    root = forger._fragment(forger.fragments[at], forger.stretches[at], 0)
    tree = CompactRange(0, size, root.nodes)
    note = node_signer(name).sign(Checkpoint(name, size, tree.root()).text())
    given = replace(forger.fragments[at].checkpoint, note=note.decode())
    forger.fragments = [
        replace(f, checkpoint=given) if i == at else f for i, f in enumerate(forger.fragments)
    ]
    forger.write_all()
    (finding,) = tampered(await audit(site), layer="checkpoint")
    assert (finding.session, finding.seq) == (built.session.hex(), size - 1)


async def test_a_session_signed_anew_by_a_stranger(site, sealed):
    """A whole session with signatures that fit, under a node key that nobody trusts."""
    forger, built = forged(site, sealed[1], "none")
    stranger = node_signer("sealtape/dev-1")
    anew = site.session(seed=999, session=built.session, node=stranger, commands=3, row_bytes=60)
    at, _ = forger.find(built, 0)
    forger.stretches[at] = [row_of(frame) for frame in anew.frames]
    note = anew.messages[-1].note.decode()
    given = replace(forger.fragments[at].checkpoint, note=note, size=len(anew.frames))
    forger.fragments = [
        replace(f, checkpoint=given) if i == at else f for i, f in enumerate(forger.fragments)
    ]
    forger.write_all()
    (finding,) = tampered(await audit(site), layer="certificate", seq=0)
    assert finding.session == built.session.hex()
    assert (await audit(site, trust=[stranger.verifier], session=built.session)).verdict == (
        "verified"
    ), "the forgery is perfect but for the key"


async def test_an_open_changed_and_signed_by_a_stranger(site, sealed):
    forger, built = forged(site, sealed[1], "none")
    opening, _ = parse_open(built.frames[0].payload, None)
    payload = make_open(replace(opening, number=77), node_signer("sealtape/dev-1"))
    forger.put(built, 0, replace(built.frames[0], payload=payload))
    forger.write_all()
    tampered(await audit(site), layer="certificate", session=built.session.hex(), seq=0)


# -- whom the verifier trusts ---------------------------------------------------------------------


@pytest.mark.parametrize("trust", [[], [node_signer("sealtape/dev-1").verifier]])
async def test_nodes_that_are_not_trusted(sealed, trust):
    report = await audit(sealed[0], trust=trust)
    for built in [*sealed[1], *sealed[2]]:
        tampered(report, layer="certificate", session=built.session.hex(), seq=0)


async def test_without_a_trust_file_it_says_so(sealed):
    report = await audit(sealed[0], trust=None)
    assert report.verdict == "verified"
    assert any(note.startswith("trust: self") for note in report.notes)


# -- what the recording itself states -------------------------------------------------------------


async def test_an_empty_deployment_is_not_verified(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, [])
    report = await audit(site)
    assert (report.verdict, report.exit_code) == ("incomplete", 2)
    report = await audit(site, bytes(16))
    assert report.verdict == "incomplete"
    assert [f.reason for f in report.findings] == ["no frame of it is sealed yet"]


async def test_a_live_session_is_incomplete(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(close=None)
    await seal(site, [built, site.session()])
    for state in ("live", "incomplete"):  # that its node fell silent changes nothing
        edit(site, f"UPDATE session SET state='{state}' WHERE state='live'")
        report = await audit(site)
        assert report.verdict == "incomplete"
        assert [f.session for f in report.findings] == [built.session.hex()]


async def test_a_journal_is_open_while_its_node_runs(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, [site.session(), site.journal()])
    assert (await audit(site)).verdict == "verified"
    later = time.time_ns() + 120 * 10**9
    report = await audit(site, now_ns=later)
    assert report.verdict == "incomplete"
    assert "fell silent" in report.findings[0].reason


async def test_frames_that_never_came(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(commands=4, checkpoint_every=4)
    lost = {built.frames[5], built.frames[6]}
    pairs = [(m.session, messages.encode(m)) for m in built.messages if m not in lost]
    await seal(site, pairs=pairs, limits=Limits(segment_ns=3 * 10**8, hold_ns=10**8))
    report = await audit(site)
    assert report.verdict == "incomplete", [f.to_json() for f in report.findings]
    assert {f.session for f in report.findings} == {built.session.hex()}
    assert 5 in {f.seq for f in report.findings}


# -- it reads only --------------------------------------------------------------------------------


async def test_nothing_is_written(sealed):
    site = sealed[0]
    before = tree_state(site.folder)
    await audit(site, key=site.auditor)
    await audit(site, sealed[1][0].session)
    assert tree_state(site.folder) == before


KILLED = """
import asyncio, os, pathlib, sys
from sealtape.schemas.tree import CompactRange
from tests.factories.deployments import make_site, put, sealing, settled
async def main():
    site = make_site(pathlib.Path(sys.argv[1]))
    async with sealing(site) as (stores, running):
        await put(stores.bus, site.session().encoded())
        await settled(running)
        os._exit(0)
asyncio.run(main())
"""


def killed(folder):
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=root, check=True)
    assert (folder / "ledger.db-wal").stat().st_size
    return site_at(folder)


async def test_nothing_is_written_where_ingest_was_killed(tmp_path):
    site = killed(tmp_path / "site")
    before = tree_state(site.folder)
    report = await audit(site, key=site.auditor)
    assert report.verdict == "verified"
    assert tree_state(site.folder) == before


async def test_a_copy_without_the_shared_memory_of_a_killed_ingest(tmp_path):
    site = killed(tmp_path / "site")
    for path in site.folder.glob("*-shm"):
        path.unlink()
    before = tree_state(site.folder)
    assert (await audit(site)).verdict == "verified"
    assert tree_state(site.folder) == before


async def test_a_folder_that_cannot_be_written(sealed, tmp_path, as_nobody):
    site = sealed[0].moved(as_nobody(sealed[0].folder))
    report = await audit(site)
    assert report.verdict == "verified"


@pytest.fixture
def as_nobody():
    """Copies a deployment to where this process may read it and write nothing."""
    with tempfile.TemporaryDirectory() as public:
        there = Path(public, "site")

        def copied(folder):
            shutil.copytree(folder, there)
            for path in [*there.rglob("*"), there]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            if os.geteuid() == 0:
                Path(public).chmod(0o755)
                os.seteuid(65534)  # root may write anything
            return there

        try:
            yield copied
        finally:
            os.seteuid(os.getuid())
            for path in [there, *there.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)


# -- keys -----------------------------------------------------------------------------------------


async def test_destroyed_keys_leave_the_evidence_whole(site, sealed):
    gone = sealed[1][0]
    keyring = await open_keyring("sqlite:keyring.db", site.folder)
    wraps = [
        wrap.sealed
        for label in ("data", "facts")
        for wrap in await keyring.get(gone.session, None, label)
    ]
    assert len(wraps) == 3
    files = list(site.folder.glob("keyring.db*"))
    assert all(any(wrap in file.read_bytes() for file in files) for wrap in wraps)
    await keyring.destroy(gone.session)
    await keyring.close()
    for file in site.folder.rglob("*"):
        if file.is_file() and "bus" not in file.parts:
            body = file.read_bytes()
            assert not any(wrap in body or wrap[-16:] in body for wrap in wraps), file
    assert (await audit(site)).verdict == "verified"
    report = await audit(site, key=site.auditor)
    assert report.verdict == "verified"
    assert any(gone.session.hex() in n and "keys were destroyed" in n for n in report.notes)
