"""The monitor's rules on entries, segments and heartbeats, broken (see `breaches`)."""

from dataclasses import replace

from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import (
    BusPlace,
    Listed,
    LogIncident,
    LogStart,
    parse_entry,
)
from sealtape.schemas.tree import levels
from tests.factories.breaking import (
    DAY,
    OTHER,
    append,
    breaks,
    first,
    opening,
    opens,
    plain_cuts,
    stated,
    stranger,
    used,
)
from tests.factories.histories import (
    LOG,
    NS,
    Beat,
    Begin,
    Cut,
    Raw,
    Say,
    Seal,
    Witness,
    plain,
)

# -- entries and shards ----------------------------------------------------------------------------


@breaks("entry")
def unknown_type(history):
    return append(history, Raw(b'{"type":"poem","v":1}'))


@breaks("entry")
def other_spelling(history):
    step = history.of(Seal)[0]
    return append(history, Raw(plain(step.entry)[:-1] + b" }"))


@breaks("start")
def other_log(history):
    step = history.of(Begin)[0]
    step.change["log"] = "other.example/log"
    return [step]


@breaks("start")
def begins_twice(history):
    at_ns = history.steps[-1].at_ns
    return append(history, Raw(plain(LogStart(LOG, 1, at_ns))))


@breaks("start")
def forgets_the_last_entry(history):
    step = first(history.of(Begin)[1:])
    if step is None:
        return None
    before = next(event for event in history.write() if event.step is step)
    late = LogIncident(step.at_ns, "malformed", BusPlace("frames", 0, 1))
    history.before(step, Say(late))
    step.change["before"] = parse_entry(before.entry).before
    return [step]


@breaks("start")
def checkpoint_of_another_key(history):
    step = first(history.of(Begin)[1:])
    if step is None:
        return None
    number = history.of(Begin).index(step)
    name = history.log_keys[number].name
    key = stranger()
    history.log_keys[number] = type(key)(name, key._private)
    return [step]


@breaks("clock")
def goes_back(history):
    step = history.of(Seal)[-1]
    step.change["at_ns"] = history.of(Begin)[0].at_ns - 3 * 3_600 * NS
    return [step]


@breaks("clock")
def from_the_future(history):
    at_ns = history.steps[-1].at_ns
    late = LogIncident(at_ns + 2 * 3_600 * NS, "malformed", BusPlace("frames", 0, 1))
    return append(history, Say(late))


# -- segments --------------------------------------------------------------------------------------


@breaks("chain")
def number_left_out(history):
    cut = plain_cuts(history)[-1]
    event = next(event for event in history.write() if event.step is cut)
    cut.change["n"] = _record(event.entry).n + 1
    return [cut] if _record(event.entry).n else None


@breaks("chain")
def other_record_before(history):
    for cut in reversed(plain_cuts(history)):
        event = next(event for event in history.write() if event.step is cut)
        if _record(event.entry).n:
            cut.change["prev"] = OTHER
            return [cut]
    return None


@breaks("chain")
def begins_in_the_middle(history):
    entry = opens(history, of="journal")[0].entry
    cut = first(c for c in history.of(Cut) if (c.tenant, c.retention) == _class_of(entry))
    if cut is None:
        return None
    item = replace(
        cut.fragments[0],
        session=b"\x01" * 16,
        epoch=0,
        lo=0,
        hi=1,
        nodes=(OTHER,),
        rows=(0, 1),
        gaps=(),
        checkpoint=None,
    )
    change = {"n": 3, "prev": OTHER}
    new = replace(cut, shard="frames/99", fragments=[item], replaces=[], change=change)
    append(history, opening(history, entry, 1), new)
    return [new]


def _class_of(entry):
    return entry.tenant, entry.retention


def _record(entry):
    return SegmentRecord.from_json(entry)


@breaks("replaces")
def replaced_twice(history):
    merged = first(cut for cut in history.of(Cut) if cut.replaces)
    if merged is None:
        return None
    later = replace(merged, at_ns=history.steps[-1].at_ns, replaces=list(merged.replaces))
    return append(history, later)


@breaks("replaces")
def replaces_nothing(history):
    merged = first(cut for cut in history.of(Cut) if cut.replaces)
    if merged is None:
        return None
    event = next(event for event in history.write() if event.step is merged)
    merged.change["replaces"] = (*_record(event.entry).replaces, OTHER)
    return [merged]


@breaks("replaces")
def replaces_another_class(history):
    merged = first(cut for cut in reversed(history.of(Cut)) if cut.replaces)
    if merged is None:
        return None
    at = history.steps.index(merged)
    other = first(
        cut
        for cut in history.steps[:at]
        if isinstance(cut, Cut) and cut.shard != merged.shard and id(cut) not in used(history)
    )
    if other is None:
        return None
    merged.replaces.append(other)
    return [merged]


@breaks("replaces")
def a_frame_less(history):
    for merged in history.of(Cut):
        last = merged.fragments[-1]
        live = {(s.entry.session, s.entry.epoch) for s in history.of(Seal)}
        at = history.steps.index(merged)
        sealed = {
            (s.entry.session, s.entry.epoch) for s in history.steps[:at] if isinstance(s, Seal)
        }
        names = {(item.session, item.epoch) for item in merged.fragments}
        if merged.replaces and names <= sealed & live and last.hi - last.lo > 1:
            if id(merged) in used(history):
                continue
            merged.fragments = [*merged.fragments[:-1], _shorter(last)]
            return [merged]
    return None


def _shorter(item):
    count = len(levels(item.lo, item.hi - 1))
    return replace(
        item,
        hi=item.hi - 1,
        rows=(item.rows[0], item.rows[1] - 1),
        nodes=(OTHER,) * count,
        checkpoint=None,
    )


@breaks("manifest")
def manifest_gone(history):
    cut = first(plain_cuts(history))
    if cut is None:
        return None
    cut.hide = True
    return [cut]


@breaks("class")
def other_terms(history):
    for cut in plain_cuts(history):
        cut.change["retention"] = replace(
            cut.retention, delete_after_s=cut.retention.delete_after_s + 1
        )
        sessions = {item.session for item in cut.fragments}
        if sessions & stated(history):  # frames after a seal are nobody's any more
            cut.change.clear()
            continue
        return [cut]
    return None


# -- heartbeats ------------------------------------------------------------------------------------


@breaks("heartbeat")
def one_open_less(history):
    step = history.of(Beat)[-1]
    step.change["open"] = 1_000
    return [step]


@breaks("heartbeat")
def elsewhere(history):
    step = history.of(Beat)[0]
    step.change["index"] = 0
    return [step]


@breaks("heartbeat")
def key_left_out(history):
    step = history.of(Beat)[-1]
    step.change["keys"] = Listed(1, OTHER)
    return [step]


@breaks("heartbeat")
def other_chains(history):
    step = history.of(Beat)[-1]
    event = next(event for event in history.write() if event.step is step)
    step.change["shards"] = Listed(parse_entry(event.entry).shards.count, OTHER)
    return [step]


@breaks("heartbeat")
def other_nodes(history):
    step = history.of(Beat)[-1]
    step.change["nodes"] = Listed(77, OTHER)
    return [step]


@breaks("period")
def promised_within_a_day(history):
    step = history.of(Beat)[0]
    step.every_s = DAY
    return [step]


@breaks("silent")
def heartbeat_left_out(history):
    at_ns = history.steps[-1].at_ns
    late = Beat(at_ns + 1_000 * NS)
    history.steps += [late, Witness(late.at_ns)]
    return [late]


@breaks("silent")
def no_heartbeat_yet(history):
    last = history.of(Beat)[-1]
    history.steps.append(Witness(history.steps[-1].at_ns + 1_000 * NS))
    return [last]
