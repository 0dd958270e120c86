"""After a crash: the recovery epochs of sessions that a dead worker did not close.

The keys of the broken epoch died with the process, so nothing can be added to it. A new epoch of
the same session continues it: its OPEN, signed by the node, states size and root of the frames that
were finished; then come the slices and facts that were spooled and in no frame, and CLOSE
`aborted`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sealtape.capture.epoch import Epoch, NodeIdentity, Subject, Terms, begin, close
from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    Cut,
    SessionState,
    encode_frames,
)
from sealtape.schemas.bodies import Attested, Close, Continues, Gap, Ident, RetentionClass
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import COMMAND, decode_facts, encode_facts
from sealtape.schemas.frames import Kind
from sealtape.schemas.keys import Packer
from sealtape.schemas.slices import Hole, Slice, advance, decode_data, encode_data
from sealtape.schemas.tree import CompactRange


def encode_about(subject: Subject) -> bytes:
    """Return what the spool keeps (encrypted) about a session for its recovery."""
    terms = subject.terms
    members = {
        "type": subject.type,
        "session": subject.session.hex(),
        "number": subject.number,
        "boot": subject.boot.hex(),
        "worker": subject.worker,
        "ident": subject.ident.to_json().decode(),
        "tenant": terms.tenant,
        "class": [
            terms.retention.name,
            terms.retention.retain_for_s,
            terms.retention.delete_after_s,
        ],
        "encryption": terms.encryption,
        "level": terms.level,
        "on_failure": terms.on_failure,
        "on_seal": terms.on_seal,
        "policy": terms.policy_sha256.hex(),
    }
    return json.dumps(members, separators=(",", ":")).encode()


def parse_about(about: bytes) -> Subject:
    """Read what `encode_about` wrote."""
    try:
        return _subject(json.loads(about))
    except (ValueError, KeyError, TypeError) as exc:
        raise FormatError("The spool's description of a session is not understood.") from exc


def _subject(found: dict[str, Any]) -> Subject:
    name, retain_for_s, delete_after_s = found["class"]
    terms = Terms(
        retention=RetentionClass(name, retain_for_s, delete_after_s),
        tenant=found["tenant"],
        encryption=found["encryption"],
        level=found["level"],
        on_failure=found["on_failure"],
        on_seal=found.get("on_seal", "none"),  # an older spool does not say
        policy_sha256=bytes.fromhex(found["policy"]),
    )
    return Subject(
        type=found["type"],
        session=bytes.fromhex(found["session"]),
        number=found["number"],
        boot=bytes.fromhex(found["boot"]),
        worker=found["worker"],
        ident=Ident.from_json(found["ident"].encode()),
        terms=terms,
    )


def recover(
    state: SessionState,
    identity: NodeIdentity,
    *,
    now_ns: int,
    damaged: bool,
    packer: Packer,
    random: Callable[[int], bytes],
) -> list[bytes]:
    """Return the messages of a session's recovery epoch.

    Its frames have the time of what they hold, which is before now; OPEN's anchor and CLOSE tell
    when the recovery happened. A GAP of unknown length is stated where more may be missing: the
    spool is `damaged`, or the session was allowed to go on unrecorded and nothing could tell.
    """
    subject = parse_about(state.about)
    pieces = state.pieces
    held = pieces.slice_count or pieces.fact_count
    now_ns = max(now_ns, state.last_ns, pieces.base_ns)  # the clock may have been set back
    ts_ns = pieces.base_ns if held else now_ns
    root = CompactRange(0, state.size, state.nodes).root()
    epoch, found = begin(
        identity,
        subject,
        epoch=state.epoch + 1,
        ts_ns=ts_ns,
        anchor_ns=now_ns,
        continues=Continues(state.epoch, state.size, root),
        packer=packer,
        random=random,
    )
    totals, commands, errors = _seal_pieces(epoch, state, ts_ns, found)
    if damaged or subject.terms.on_failure == "continue":
        holes = tuple(Hole(leg, total, -1) for leg, total in enumerate(totals))
        gap = Gap("damaged" if damaged else "spool", holes)
        found.append(epoch.seal(Kind.GAP, now_ns, gap.to_json()))
    attested = None
    if state.signed < state.size:
        attested = Attested(state.epoch, state.signed, state.size)
    ending = Close("aborted", totals, commands, errors, attested=attested)
    return found + close(epoch, now_ns, ending)


def _seal_pieces(
    epoch: Epoch, state: SessionState, ts_ns: int, found: list[bytes]
) -> tuple[tuple[int, int, int, int], int, int]:
    """Seal what was in no frame; return the totals of the legs, of commands and of errors."""
    pieces = state.pieces
    totals, commands, errors = state.offsets, state.commands, state.errors
    if pieces.slice_count:
        body = encode_data([pieces.slices], pieces.slice_count)
        totals = _after(totals, decode_data(body, ts_ns))
        found.append(epoch.seal(Kind.DATA, ts_ns, body))
    if pieces.fact_count:
        body = encode_facts(totals, [pieces.facts] + [b""] * (pieces.fact_count - 1))
        facts = decode_facts(body, ts_ns).facts
        commands += sum(fact.kind == COMMAND for fact in facts)
        errors += sum(bool(fact.code) for fact in facts)
        found.append(epoch.seal(Kind.FACTS, ts_ns, body))
    return totals, commands, errors


def _after(totals: tuple[int, int, int, int], slices: Sequence[Slice]) -> tuple[int, int, int, int]:
    """Return the legs' totals after slices that are in no frame; `totals` are those of the cut."""
    ends = list(totals)
    for item in slices:
        advance(ends, item.leg, len(item.data), item.replaces)
    return ends[0], ends[1], ends[2], ends[3]


def as_record(number: int, state: SessionState, messages: list[bytes]) -> list[bytes]:
    """Return the body of the FRAMES record that keeps a recovery epoch."""
    cut = Cut(
        number,
        CLEARS | CLOSES,
        state.offsets,
        state.facts,
        state.commands,
        state.errors,
        messages,
    )
    return encode_frames(0, 0, [cut])
