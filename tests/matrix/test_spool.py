"""Every operator on every file of a dead worker's spool: told and kept, or neutral by name.

A worker adopts the harmed folder and ships it. Whatever was done, what reaches the bus is what was
spooled, or a recovery epoch that verifies; all that stands before the harm is among it.
"""

import asyncio
import logging
import os
import random
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from sealtape.capture.epoch import Terms
from sealtape.capture.spool.files import SUFFIX, StoredFile
from sealtape.capture.spool.folder import RECOVERY
from sealtape.capture.spool.records import FRAMES, FileKey, parse_frames
from sealtape.capture.spool.settled import encode_settled
from sealtape.schemas import messages
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.facts import COMMAND
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import CheckpointMessage
from sealtape.schemas.notes import Verifier
from sealtape.schemas.slices import CLIENT_IN
from tests.capture.stage import CLASS, SPOOL_KEY, Stage, Tape, open_on, until
from tests.capture.test_recovery import MEMORY, NoBus
from tests.conformance.bus import read_all
from tests.matrix.operators import mutants

BINARY = ("flip", "zero", "cut", "append", "chunks")
SEED = bytes(range(32))
PACE = {"frame_bytes": 1500, "checkpoint_frames": 4, "frame_ms": 600_000, "checkpoint_s": 600.0}
SETTLED = "spooled-receipt.settled"

# What may be done to a folder without a word of it, and why; each is said by `unseen`.
NEUTRAL = {
    "lock": "it is empty: the kernel's lock counts, not what the file holds",
    "settled-gone": "no list is what a worker leaves to which no receipt came",
    "as-if-killed-earlier": "the lane's last file ends where an earlier crash would have ended it",
    "held-again": "slices at the end of a file that is not the last; the next one's snapshots hold"
    " them or the frames they went into",
    "zeros": "zeros behind the last record: what a host leaves that lost power",
    "first-gone": "a lane's oldest file goes when the bus has it; frames that the bus lacks show"
    " there, against the size and root that the recovery epoch continues",
    "recovery-gone": "without it nothing of it left the process, and it is made anew",
    "counter-replayed": "a whole counter of another boot; numbers that are in nobody's OPEN are"
    " missed, and the lower bound that OPENs give stays",
}


@pytest.fixture(scope="module")
def left():
    """What a killed worker left: `files` by name, and of another boot; `recovered` adds the end."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        root = Path(name)
        stage = Stage(root / "one", seed=SEED, **PACE)
        boot, files = asyncio.run(killed(stage))
        recovery = asyncio.run(half_adopted(stage, boot))
        other = Stage(root / "two", seed=SEED, **PACE)
        _, strange = asyncio.run(killed(other))
        yield SimpleNamespace(
            stage=stage,
            boot=boot,
            files=files,
            strange=strange,
            recovered=files | {RECOVERY: recovery},
            records={name: records_of(root, files[name]) for name in spools(files)},
            elsewhere={
                message
                for name in spools(strange)
                for _, _, items in records_of(root, strange[name])
                for message in items
            },
        )


async def killed(stage):
    """Play a while on both lanes, and die; return the boot and the files."""
    worker = await stage.worker(NoBus(), file_bytes=6000)
    for level in ("spooled", "durable"):
        talks = [(await open_on(worker, Terms(retention=CLASS, level=level)))[0] for _ in "ab"]
        for turn in range(6):
            for recorder in talks:
                recorder.data(CLIENT_IN, b"%d" % turn + os.urandom(700))
                recorder.fact(COMMAND, CLIENT_IN, 0, 9)
            await recorder.outlet.settled()
        await worker.close_session(talks[0], "client")
        talks[1].data(CLIENT_IN, b"in no frame")
        await talks[1].outlet.settled()
    folder = worker._spool.folder
    await stage.crash(worker)
    (folder / SETTLED).write_bytes(encode_settled([1 << 40]))
    return folder.name, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def half_adopted(stage, boot):
    """The recovery file of a worker that died in turn."""
    half = await stage.worker(NoBus())
    await stage.crash(half)
    for orphan in half._orphans:
        orphan.release()
    return (stage.root / "spool" / boot / RECOVERY).read_bytes()


def spools(files):
    return [name for name in files if name.endswith(SUFFIX)]


def records_of(root, data):
    """(start, end, messages) of a file's records, to know what stands before a harm."""
    path = root / "record"
    path.write_bytes(data)
    with StoredFile(path, SPOOL_KEY) as file:
        return [
            (one.start, one.start + one.length, messages_of(one) if one.kind == FRAMES else [])
            for one in file.records()
        ]


def messages_of(stored):
    return [message for cut in parse_frames(stored.body)[2] for message in cut.messages]


# -- adopting --------------------------------------------------------------------------------------


class Said(logging.Handler):
    """What is logged while a folder is adopted."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.records = []

    def emit(self, record):
        self.records.append(record)


async def adopted(left, files):
    """Let a fresh worker adopt these files; return what it said, kept and shipped."""
    said = Said()
    log = logging.getLogger("sealtape.capture")
    log.addHandler(said)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        world = Stage(name, seed=SEED)
        folder = world.root / "spool" / left.boot
        folder.mkdir(parents=True)
        for place, data in files.items():
            (folder / place).write_bytes(data)
        bus = world.bus()
        try:
            worker = await world.worker(bus)
            refused = f"{folder} cannot be adopted"
            await until(lambda: not folder.exists() or refused in text_of(said))
            assert await worker.stop()
            shipped = [(record.key, record.value) for record in await read_all(bus)]
        finally:
            log.removeHandler(said)
            await bus.close()
        kept = folder if folder.exists() else folder.with_name(folder.name + ".damaged")
        whole = kept.exists() and all(
            (kept / place).read_bytes() == data for place, data in files.items()
        )
        return SimpleNamespace(
            world=world, shipped=shipped, text=text_of(said), kept=whole, refused=folder.exists(),
            critical=any(r.levelno > logging.ERROR or r.exc_info for r in said.records),
        )  # fmt: skip


def text_of(said):
    return "\n".join(record.getMessage() for record in said.records)


# -- judging ---------------------------------------------------------------------------------------


def authentic(left, run, truth):
    """Check that what came is what was spooled, in order, or verifies; return the former."""
    order = {value: at for at, (_, value) in enumerate(truth)}
    ours = [value for _, value in run.shipped if value in order]
    rest = [pair for pair in run.shipped if pair[1] not in order.keys() | left.elsewhere]
    strangers = {messages.decode(value).session for value in left.elsewhere}
    assert not strangers & {key for key, _ in rest}, "another boot's session was ended again"
    trust = [left.stage.signer._private.public_key().public_bytes_raw()]
    continued = {}
    for key, value in rest:
        message = messages.decode(value)
        if isinstance(message, Frame) and message.kind == Kind.OPEN and message.epoch:
            opening, _ = parse_open(message.payload, [Verifier("node-1", trust[0])])
            continued[key] = opening.continues.size
    tape = Tape(left.stage)
    for key, value in truth:
        if stands_before(messages.decode(value), continued.get(key)):
            tape.take(key, value)
    for key, value in rest:
        tape.take(key, value)
    return ours, tape.finish()


def stands_before(message, size):
    """Whether a message is of the frames that a recovery epoch says it continues."""
    if size is None or message.epoch:
        return True
    if isinstance(message, Frame):
        return message.seq < size
    return not isinstance(message, CheckpointMessage) or message.size <= size


def truth_of(left):
    """All that was spooled, in order."""
    found = [m for name in left.records for _, _, items in left.records[name] for m in items]
    return [(messages.decode(message).session, message) for message in found]


def expected(left, files):
    """What has to come: of files that are as they were all, else what is before the harm."""
    found = []
    for name, records in left.records.items():
        data, was = files.get(name, b""), left.files[name]
        whole = harmed_at(was, data) if data != was else len(was)
        found += [m for _, end, items in records if end <= whole for m in items]
    return found


def harmed_at(was, data):
    """The first byte that is another."""
    pairs = zip(was, data, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
    return min(len(was), len(data)) if same is None else same


async def judged(left, files, harmed):
    """What is wrong with the way harmed files were adopted; None when it was told as it should."""
    run = await adopted(left, files)
    if run.critical:
        return "a part of the worker died"
    ours, told = authentic(left, run, truth_of(left))
    if run.refused:
        named = run.kept and not ours and harmed in run.text
        return None if named else "refused without its name"
    lost = set(expected(left, files)) - set(ours)
    if lost:
        return f"{len(lost)} messages before the harm did not come"
    if not is_replay(left, files, harmed) and in_disorder(left, ours):
        return "in disorder"
    if not run.text:
        return unseen(left, files, harmed) or "not told"
    return located(left, files, harmed, run) or stated(files, told)


def is_replay(left, files, harmed):
    """Whether another whole file stands there: files are shipped in the order of their names."""
    data = files.get(harmed)
    others = [*left.strange.values(), *(left.files[name] for name in left.files if name != harmed)]
    return data is not None and data in others


def in_disorder(left, ours):
    """Whether a lane's messages came in another order, but for those that came once more."""
    firsts = list(dict.fromkeys(ours))
    order = {value: at for at, (_, value) in enumerate(truth_of(left))}
    return firsts != sorted(firsts, key=order.get)


def located(left, files, harmed, run):
    """A finding names the file and the byte, which is not behind the harm; the folder is kept."""
    if not run.kept:
        return "told, and not kept"
    was, data = left.recovered[harmed], files.get(harmed, b"")
    where = "missing, here or before" if RECOVERY in files else harmed
    if harmed not in run.text and where not in run.text and (data or "are missing" not in run.text):
        return f"told without the file: {run.text}"
    bytes_named = re.findall(rf"{re.escape(harmed)}: .*byte (\d+)", run.text)
    if data and harmed in left.records and bytes_named and not is_replay(left, files, harmed):
        start = int(bytes_named[0])
        if start > harmed_at(was, data):
            return f"byte {start} is behind the harm"
    return None


def stated(files, told):
    """Each recovery epoch that was made now states a gap."""
    if RECOVERY in files:
        return None
    epochs = [one for one in told.values() if 1 in one.closes]
    return None if all(Kind.GAP in one.kinds for one in epochs) else "no GAP"


def unseen(left, files, harmed):
    """By which entry of the table nothing needs to be said; None for none."""
    was, data = left.recovered[harmed], files.get(harmed)
    present = data or b""
    if harmed == "lock":
        return "neutral: lock"
    if harmed == SETTLED and data is None:
        return "neutral: settled-gone"
    if harmed == RECOVERY and data is None:
        return "neutral: recovery-gone"
    if harmed == "counter" and data == left.strange["counter"]:
        return "neutral: counter-replayed"
    if harmed.endswith(SUFFIX) and present.startswith(was) and not any(present[len(was) :]):
        return "neutral: zeros"
    if harmed not in left.records:
        return None
    lane = [name for name in left.records if name.rpartition("-")[0] == harmed.rpartition("-")[0]]
    if harmed == lane[-1] and was.startswith(present):
        return "neutral: as-if-killed-earlier"
    if data is not None and was.startswith(data) and not lost_of(left, harmed, len(data)):
        return "neutral: held-again"
    return "neutral: first-gone" if data is None and harmed == lane[0] else None


def lost_of(left, name, end):
    """The messages in the records of a file that is cut."""
    return [message for _, stop, items in left.records[name] if stop > end for message in items]


async def all_judged(left, base, cases):
    """(what went wrong, the entries of NEUTRAL that were met)."""
    wrong, met = [], set()
    for what, harmed, change in cases:
        files = {**base, **change}
        files = {name: data for name, data in files.items() if data is not None}
        verdict = await judged(left, files, harmed)
        if verdict is not None and verdict.startswith("neutral: "):
            met.add(verdict.removeprefix("neutral: "))
        elif verdict is not None:
            wrong.append(f"{harmed} {what}: {verdict}")
    assert met <= set(NEUTRAL)
    return wrong, met


# -- bytes -----------------------------------------------------------------------------------------


def changed(files, names, seed):
    for name in names:
        for what, other in mutants(files[name], f"{seed} {name}", BINARY):
            yield f"{what} seed {seed}", name, {name: other}


def in_records(left, seed):
    """At each record: cut before and in it, a bit of its header and body, dropped and doubled."""
    for name, records in left.records.items():
        luck, data = random.Random(f"{seed} {name}"), left.files[name]
        for at, (start, end, _) in enumerate(records):
            for cut in (start, luck.randrange(start + 1, end)):
                yield f"cut {cut}", name, {name: data[:cut]}
            for place in (luck.randrange(start, start + 21), luck.randrange(start + 21, end)):
                flipped = data[place] ^ 1 << luck.randrange(8)
                other = data[:place] + bytes([flipped]) + data[place + 1 :]
                yield f"flip {place}", name, {name: other}
            yield f"drop record {at}", name, {name: data[:start] + data[end:]}
            yield f"double record {at}", name, {name: data[:end] + data[start:]}
            if at:
                before, _, _ = records[at - 1]
                swapped = data[:before] + data[start:end] + data[before:start] + data[end:]
                yield f"swap record {at}", name, {name: swapped}


def sampled(cases, count, seed):
    cases = list(cases)
    return cases if count is None else random.Random(seed).sample(cases, min(count, len(cases)))


async def test_before_any_change_all_is_well(left):
    for files in (left.files, left.recovered):
        run = await adopted(left, files)
        ours, told = authentic(left, run, truth_of(left))
        assert run.text == ""
        assert ours == [value for _, value in truth_of(left)]
        assert sorted(one.closes[1].reason for one in told.values() if 1 in one.closes) == (
            ["aborted"] * 3
        )


async def test_every_file_changed(left):
    cases = sampled(changed(left.files, left.files, 0), 70, 0)
    wrong, met = await all_judged(left, left.files, cases)
    assert wrong == []
    assert met <= {"as-if-killed-earlier", "held-again", "zeros"}


async def test_every_record_changed(left):
    cases = sampled(in_records(left, 0), 70, 0)
    wrong, met = await all_judged(left, left.files, cases)
    assert wrong == []
    assert met <= {"as-if-killed-earlier", "held-again"}


async def test_a_changed_recovery(left):
    cases = [("gone", RECOVERY, {RECOVERY: None}), ("emptied", RECOVERY, {RECOVERY: b""})]
    cases += changed(left.recovered, [RECOVERY], 0)
    met = {"recovery-gone", "zeros"}
    assert await all_judged(left, left.recovered, cases) == ([], met)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 40))
async def test_every_change_soak(left, seed):
    cases = sampled(in_records(left, seed), 120, seed)
    assert (await all_judged(left, left.files, cases))[0] == []
    cases = sampled(changed(left.recovered, left.recovered, seed), 120, seed)
    assert (await all_judged(left, left.recovered, cases))[0] == []


# -- whole files -----------------------------------------------------------------------------------


def exchanged(left):
    """(what, file, change): gone, emptied, of another boot, of another number or lane."""
    for name in left.files:
        yield "gone", name, {name: None}
        yield "emptied", name, {name: b""}
        if left.strange.get(name) not in (None, left.files[name]):
            yield "of another boot", name, {name: left.strange[name]}
        if name not in left.records:
            continue
        head = FileKey(bytes(32), bytes(32)).header()
        yield "under another key", name, {name: head + left.files[name][len(head) :]}
        for other in sampled((one for one in left.records if one != name), 3, name):
            yield f"a copy of {other}", name, {name: left.files[other]}


async def test_files_gone_emptied_and_replayed(left):
    wrong, met = await all_judged(left, left.files, sampled(exchanged(left), 40, 0))
    assert wrong == []
    assert met <= set(NEUTRAL) - {"zeros", "recovery-gone"}
