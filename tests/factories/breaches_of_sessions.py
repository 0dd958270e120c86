"""The monitor's rules on sessions and their numbers, broken (see `breaches`)."""

from dataclasses import replace

from sealtape.schemas.bodies import Continues, RetentionClass
from sealtape.schemas.tlog.records import (
    Listed,
    LogIncident,
    SessionOpen,
    parse_entry,
)
from tests.factories.breaking import (
    DAY,
    OTHER,
    append,
    breaks,
    continued,
    ends,
    first,
    named,
    opening,
    opens,
    plain_cuts,
    seals,
    stated,
)
from tests.factories.histories import (
    Cut,
    Say,
    Seal,
)

# -- sessions --------------------------------------------------------------------------------------


@breaks("open-once")
def opened_twice(history):
    step = opens(history)[0]
    copy = Say(replace(step.entry, opening_sha256=OTHER))
    history.after(step, copy)
    return [copy]


@breaks("continues")
def begins_with_epoch_one(history):
    entry = opens(history)[0].entry
    step = opening(history, entry, 3, epoch=1, number=1, continues=Continues(0, 5, OTHER))
    append(history, step)
    history.wait(4_000)
    return [step]


@breaks("epochs")
def continues_nothing(history):
    step = first(opens(history, epoch=1))
    if step is None:
        return None
    step.change["continues"] = None
    return [step]


@breaks("epochs")
def epoch_zero_continues(history):
    entry = opens(history)[0].entry
    return append(history, opening(history, entry, 4, number=1, continues=Continues(0, 5, OTHER)))


@breaks("identity")
def other_number(history):
    step = first(step for step in opens(history) if step.entry.epoch and step.entry.number > 1)
    if step is None:
        return None
    step.change["number"] = step.entry.number - 1
    return [step]


@breaks("identity")
def becomes_a_journal(history):
    step = first(step for step in opens(history) if step.entry.epoch)
    if step is None:
        return None
    step.change["of"] = "journal"
    return [step]


def _last_of_a_worker(history):
    """The opening of a session with the highest number of its worker, never taken up again."""
    before = continued(history)
    highest = {}
    for step in opens(history, epoch=0):
        entry = step.entry
        worker = (entry.node, entry.boot, entry.worker)
        if entry.number > highest.get(worker, step).entry.number or worker not in highest:
            highest[worker] = step
    numbers = {(s.entry.node, s.entry.boot, s.entry.worker, s.entry.number) for s in opens(history)}
    for worker, step in highest.items():
        entry = step.entry
        alone = (entry.session, 0) not in before and entry.session not in stated(history)
        if alone and (*worker, entry.number - 1) in numbers:
            return step
    return None


@breaks("numbers")
def number_taken(history):
    step = _last_of_a_worker(history)
    if step is None:
        return None
    taken = step.entry.number - 1
    step.change["number"] = taken
    others = [
        other
        for other in opens(history, epoch=0)
        if other is not step
        and other.entry.number == taken
        and (other.entry.boot, other.entry.worker) == (step.entry.boot, step.entry.worker)
    ]
    return [max((step, *others), key=history.steps.index)]


@breaks("numbers")
def session_zero(history):
    step = _last_of_a_worker(history)
    if step is None:
        return None
    step.change["number"] = 0
    return [step]


@breaks("numbers")
def second_journal(history):
    entry = opens(history, of="journal")[0].entry
    return append(history, opening(history, entry, 5, node=entry.node))


@breaks("missing")
def vanishes_unsaid(history):
    step = first(step for step in history.of(LogIncident) if step.entry.reason == "session_missing")
    if step is None:
        return None
    at = history.steps.index(step)
    passed = next(
        other
        for other in reversed(history.steps[:at])
        if isinstance(other, Say) and isinstance(other.entry, SessionOpen)
    )
    history.steps.remove(step)
    history.wait(4_000)
    return [passed]


def _disagreeing(history):
    """A recovery that goes on elsewhere, with its incident."""
    for step in history.of(LogIncident):
        entry = step.entry
        strays = [s for s in history.of(LogIncident) if s.entry.session == entry.session]
        if entry.reason == "continuation" and len(strays) == 1:
            return step
    return None


@breaks("continues")
def goes_on_elsewhere(history):
    step = _disagreeing(history)
    if step is None:
        return None
    session, epoch = step.entry.session, step.entry.epoch
    opened = first(s for s in opens(history, of=None, epoch=epoch) if s.entry.session == session)
    sealed = first(seals(history, lambda s: (s.session, s.epoch) == (session, epoch - 1)))
    history.steps.remove(step)
    history.wait(4_000)
    return [max((opened, sealed), key=history.steps.index)]


@breaks("continues")
def other_root(history):
    for opened in opens(history, of=None):
        entry = opened.entry
        sealed = first(
            seals(history, lambda s, e=entry: (s.session, s.epoch) == (e.session, e.epoch - 1))
        )
        if entry.epoch and entry.session not in stated(history) and not sealed.entry.lost:
            opened.change["continues"] = replace(entry.continues, root=OTHER)
            history.wait(4_000)
            return [max((opened, sealed), key=history.steps.index)]
    return None


@breaks("continues")
def goes_on_after_close(history):
    step = first(s for s in ends(history) if s.entry.closed and s.entry.root)
    if step is None:
        return None
    seal = step.entry
    opened = first(
        s
        for s in opens(history, of=None)
        if (s.entry.session, s.entry.epoch) == (seal.session, seal.epoch)
    )
    if seal.session in stated(history) | named(history):
        return None
    after = Say(
        replace(
            opened.entry,
            epoch=seal.epoch + 1,
            continues=Continues(seal.epoch, seal.frames, seal.root),
            at_ns=history.steps[-1].at_ns,
        )
    )
    append(history, after)
    history.wait(4_000)
    return [after]


@breaks("unopened")
def frames_before_opening(history):
    for step in opens(history, epoch=0):
        entry = step.entry
        cut = first(
            cut
            for cut in history.of(Cut)
            if entry.session in {item.session for item in cut.fragments}
        )
        if cut is None or entry.session in stated(history):
            continue
        history.steps.remove(step)
        history.after(cut, step)
        return [cut]
    return None


def _with_gap(history):
    """A cut with a fragment behind a gap, which nothing else has a copy of."""
    for cut in plain_cuts(history):
        for at, item in enumerate(cut.fragments):
            if item.gaps and item.session not in stated(history):
                return cut, at
    return None, 0


@breaks("cover")
def gap_unsaid(history):
    cut, at = _with_gap(history)
    if cut is None:
        return None
    cut.fragments[at] = replace(cut.fragments[at], gaps=())
    return [cut]


@breaks("cover")
def gap_too_short(history):
    cut, at = _with_gap(history)
    if cut is None:
        return None
    gap = cut.fragments[at].gaps[0]
    if gap.hi - gap.lo == 1:
        return None
    cut.fragments[at] = replace(cut.fragments[at], gaps=(replace(gap, lo=gap.lo + 1),))
    return [cut]


@breaks("cover")
def gap_elsewhere(history):
    cut, at = _with_gap(history)
    if cut is None:
        return None
    gap = cut.fragments[at].gaps[0]
    if gap.lo < 2:
        return None
    early = replace(gap, lo=0, hi=1)
    cut.fragments[at] = replace(cut.fragments[at], gaps=(early, gap))
    return [cut]


@breaks("seal-open")
def other_opening(history):
    step = history.of(Seal)[0]
    step.change["opening_sha256"] = OTHER
    return [step]


@breaks("seal-open")
def other_class(history):
    step = history.of(Seal)[0]
    step.change["retention"] = RetentionClass("shorter", 1, 2)
    return [step]


@breaks("seal-open")
def neveropening(history):
    at_ns = history.steps[-1].at_ns
    entry = replace(history.of(Seal)[0].entry, session=b"\x06" * 16, at_ns=at_ns)
    return append(history, Seal(entry, change={"fragments": Listed(1, OTHER)}))


@breaks("seal-once")
def sealed_twice(history):
    step = ends(history)[0]
    copy = Seal(step.entry)
    history.after(step, copy)
    return [copy]


@breaks("fragments")
def one_more(history):
    step = history.of(Seal)[0]
    step.change["fragments"] = Listed(99, OTHER)
    return [step]


@breaks("fragments")
def other_fragments(history):
    step = history.of(Seal)[0]
    event = next(event for event in history.write() if event.step is step)
    step.change["fragments"] = Listed(parse_entry(event.entry).fragments.count, OTHER)
    return [step]


def _whole(history):
    """A last seal with nothing lost, of a session that no incident names."""
    return first(
        step
        for step in ends(history)
        if not step.entry.lost
        and step.entry.attested < step.entry.frames + 1
        and step.entry.session not in stated(history)
    )


@breaks("frames")
def root_of_nothing(history):
    step = _whole(history)
    if step is None:
        return None
    step.change["root"] = OTHER
    return [step]


@breaks("frames")
def a_frame_more(history):
    step = _whole(history)
    if step is None:
        return None
    step.change["frames"] = step.entry.frames + 1
    return [step]


@breaks("frames")
def less_than_there_is(history):
    step = first(s for s in ends(history) if not s.entry.lost and s.entry.attested < s.entry.frames)
    if step is None or step.entry.session in stated(history):
        return None
    step.change["frames"] = step.entry.frames - 1
    return [step]


@breaks("frames")
def loss_hushed_up(history):
    step = first(s for s in ends(history) if s.entry.lost)
    if step is None:
        return None
    step.change |= {"lost": 0, "root": OTHER}
    return [step]


@breaks("attested")
def less_attested(history):
    step = first(s for s in history.of(Seal) if s.entry.attested > 1)
    step.change["attested"] = step.entry.attested - 1
    return [step]


@breaks("attested")
def other_checkpoint(history):
    step = first(s for s in history.of(Seal) if s.entry.attested)
    step.change["checkpoint_sha256"] = OTHER
    return [step]


@breaks("after-seal")
def stray_unsaid(history):
    for step in history.of(LogIncident):
        entry = step.entry
        same = [s for s in history.of(LogIncident) if s.entry.session == entry.session]
        if entry.reason != "after_seal" or len(same) != 1:
            continue
        sealed = first(
            seals(history, lambda s, e=entry: (s.session, s.epoch) == (e.session, e.epoch))
        )
        at = history.steps.index(sealed)
        cut = first(
            cut
            for cut in history.steps[at:]
            if isinstance(cut, Cut)
            and not cut.replaces
            and any((f.session, f.epoch) == (entry.session, entry.epoch) for f in cut.fragments)
        )
        history.steps.remove(step)
        history.wait(4_000)
        return [cut]
    return None


@breaks("unsealed")
def seal_left_out(history):
    steps = [s for s in ends(history) if s.entry.session not in named(history) | stated(history)]
    journals = {s.entry.session for s in opens(history, of="journal")}
    step = first(s for s in steps if s.entry.session not in journals)
    if step is None:
        return None
    history.steps.remove(step)
    sealed = {(s.entry.session, s.entry.epoch) for s in history.of(Seal)}
    history.wait(31 * DAY, 3_600)
    return [s for s in opens(history) if (s.entry.session, s.entry.epoch) not in sealed]
