"""Bundles made by somebody who holds keys: all hashes and signatures hold, something is wrong.

INSIDERS are asked of both verifiers like all others; WRONG says, besides, what each has to be.
"""

import json

from tests.factories.bundles import ANN, BOB, PLAIN, story
from tests.vectors.bundle_parts import Epoch, line, root, segment_entry, sha
from tests.vectors.generate_bundle import DATA, SHORT, begun, built, files
from tests.verifier.stories import epoch_of, intent, resigned

__all__ = ["INSIDERS", "WRONG"]

NULL_ROOT = "00" * 32


def erased(log):
    """The session is erased, with the objects of its segments."""
    segments = [entry for entry in log.entries if b'"type":"segment"' in entry]
    intent(log, ANN, BOB, objects=sorted(sha(entry).hex() for entry in segments))


def two_epochs(*, closed="", sealed=(True, True), continues=None, class_=None, after=()):
    """Epoch 1 continues epoch 0; an epoch that is not sealed has no frames in the bundle."""
    log, parts, prev = begun(), {}, bytes(32)
    options = {} if class_ is None else {"class_": dict(class_)}
    first = Epoch(0, start_s=1_795_392_004, **options).begin().add(3, DATA)
    first = first.close(closed) if closed else first
    follows = {"epoch": 0, "size": str(len(first.frames)), "root": root(first.leaves()).hex()}
    second = Epoch(1, continues=follows, start_s=1_795_392_005, **options).begin().close("aborted")
    for number, (epoch, end) in enumerate(((first, closed), (second, "aborted"))):
        changes = {"continues": continues[0]} if number and continues else {}
        epoch.open_entry(log, **changes)
        if sealed[number]:
            count = len(epoch.frames)
            record = epoch.fragment(0, count, signed=count)
            entry, prev, path = segment_entry(log, number, prev, record, count, epoch.class_)
            epoch.seal_entry(log, [record], end, count)
            parts[number] = (epoch, [(record, entry, path)], [(0, count)])
    for step in after:
        step(log)
    log.heartbeat()
    top = log.checkpoint(900)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    return files(log, wanted, parts, bounds=[size for size in log.notes if size != top])


def epochs():
    yield "a closed epoch goes on", "incomplete", two_epochs(closed="client")
    for what, continues in (
        ("nothing", None),
        ("itself", {"epoch": 1, "size": "3", "root": NULL_ROOT}),
    ):
        given = two_epochs(sealed=(False, False), continues=[continues])
        yield f"an epoch that is not sealed continues {what}", "tampered", given
    strange = {"epoch": 7, "size": "1", "root": NULL_ROOT}
    given = story(after=[erased], spans=[], opened={"continues": strange})
    yield "gone, and the first epoch continued another", "tampered", given

    def expired(log):
        log.checkpoint(40)
        intent(log, "reaper", basis="expired")

    given = two_epochs(sealed=(True, False), class_=SHORT, after=[expired])
    yield "expired, and the last epoch is not sealed", "incomplete", given


def with_times(first, last):
    """Frames 2 and 3 are gone; their record says that they had these times."""
    epoch = built()
    plain = epoch.fragment

    def fragment(lo, hi, /, **options):
        data = plain(lo, hi, **options)
        changed = {"first_ts_ns": str(first), "last_ts_ns": str(last)}
        value = json.loads(data) | (changed if lo == 2 else {})
        return line(value).encode()

    epoch.fragment = fragment
    return story(epoch=epoch, cuts=(2, 4), after=[erased], spans=[(0, 2), (4, 5)])


def frames():
    begin = 1_795_392_000_000_000_000
    yield "gone, when the others were", "deleted", with_times(begin + 2_000_000, begin + 3_000_000)
    yield "gone, before the frames before", "tampered", with_times(1, begin + 3_000_000)
    yield "gone, after the frames behind", "tampered", with_times(begin + 2_000_000, begin + 10**9)
    epoch = built()
    header, payload = epoch.frames[2]
    epoch.frames[2] = header[:44] + b"\0\0" + header[46:], payload
    yield "a frame of kind 0 that is public", "incomplete", story(epoch=epoch)
    for what, number in (("OPEN", 0), ("CLOSE", 4)):
        epoch = resigned(number, b"of the future")
        header, payload = epoch.frames[number]
        epoch.frames[number] = header[:46] + b"\0\1" + header[48:], payload
        yield f"another {what} with a flag", "incomplete", story(epoch=epoch)
        if number:
            yield "not closed, and a CLOSE with a flag", "tampered", story(epoch=epoch, closed="")
        else:
            other = {"opening_sha256": "0a" * 32}
            given = story(epoch=epoch, opened=other, seal=other)
            yield "an OPEN with a flag that neither entry has", "tampered", given
    for suite in (0, 3):
        given = story(epoch=epoch_of((3, DATA), opened={"suite": suite, "salt": ""}))
        yield f"an OPEN of suite {suite}", "tampered", given


WRONG = {}
INSIDERS = {}
for part in (epochs, frames):
    for what, verdict, given in part():
        assert what not in INSIDERS, what
        INSIDERS[what] = (given, PLAIN)
        WRONG[what] = verdict
