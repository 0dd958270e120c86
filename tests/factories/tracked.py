"""Sessions with the facts that the real codec tells of their bytes.

messages = tracked_session(site, [("c", query("select 1")), ("s", ...)])
await seal(site, pairs=encoded(messages))
"""

from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas import facts, messages, slices
from sealtape.schemas.bodies import Close, Gap, Ident
from sealtape.schemas.frames import Kind
from tests.factories import sessions
from tests.factories.sessions import STANDARD

__all__ = ["encoded", "tracked_session"]

CLASSIFIER = Classifier()
LEGS = {"c": slices.CLIENT_IN, "d": slices.CLIENT_IN, "s": slices.TARGET_IN}


def encoded(found):
    """(key, value) pairs for a bus."""
    return [(message.session, messages.encode(message)) for message in found]


def tracked_session(
    site,
    script,
    *,
    full_text=False,
    parameters=False,
    encrypt=True,
    close="client",
    protocol="postgres",
    falsify=None,
    gap_after=None,
    every=1,
):
    """The messages of one session. `script` is [("c" or "s", bytes), ...].

    "d" is what a client said after the gateway had ended the session: nobody is told of it.

    A DATA frame a chunk, a FACTS frame after every `every` chunks. `falsify` is given the encoded
    facts of each FACTS frame and returns others; a GAP stands after chunk `gap_after`.
    """
    site.seeds[0] += 1
    seed = f"tracked {site.seeds[0]}"
    build = sessions._Builder(
        session=sessions._bytes(seed, 16),
        epoch=0,
        seed=seed,
        encrypt=encrypt,
        start_ns=sessions.START_NS,
        checkpoint_every=256,
    )
    if encrypt:
        for reader, label in ((site.auditor, "data"), (site.auditor, "facts")):
            build.wrap(reader, label, "main", STANDARD.name)
    ident = Ident(user="ada", target="shop", protocol=protocol, node="dev-1")
    build.begin(ident, site.node, tenant="main", retention=STANDARD, number=1, continues=None)
    _record(build, script, full_text, parameters, falsify or (lambda told: told), gap_after, every)
    if close is not None:
        build.frame(Kind.CLOSE, Close(reason=close, totals=build.totals()).to_json())
    build.sign()
    return build.messages


def _record(build, script, full_text, parameters, falsify, gap_after, every):
    told = []
    count = 0
    base = 0

    def emit(kind, leg, offset, length, ref, text, statement, tail, *, error=False):
        nonlocal count
        n, count = count, count + 1
        head = facts.encode_head(n, kind, 0, leg, offset, length, ref)
        told.append(facts.encode_fact(head, text, statement, tail))
        return n

    data_key = None if build.keys is None else build.keys.data
    tracker = Tracker(
        emit=emit,
        classifier=CLASSIFIER,
        salt=facts.text_salt(data_key, build.session, 0),
        full_text=full_text,
        parameters=parameters,
    )
    for index, (side, data) in enumerate(script):
        leg = LEGS[side]
        base = build.start_ns + build.sealer.next_seq * sessions.STEP_NS
        offset = build.sent[side == "s"]
        build.sent[side == "s"] += len(data)
        pieces = [slices.encode_slice(leg, 0, offset, data)]
        if side == "d":
            pieces.append(slices.encode_slice(slices.TARGET_OUT, 0, offset, b"", len(data)))
        build.frame(Kind.DATA, slices.encode_data(pieces, len(pieces)))
        if side != "d":
            (tracker.client if side == "c" else tracker.server)(data, base)
        if told and (index % every == every - 1 or index == len(script) - 1):
            build.frame(Kind.FACTS, facts.encode_facts(build.totals(), falsify(told)))
            told.clear()
        if index == gap_after:
            build.frame(Kind.GAP, Gap(reason="spool", legs=()).to_json())
