"""Histories (see `histories`) as a monitor reads them, and every rule of its broken in turn."""

from hashlib import sha256

from sealtape.schemas.verify.monitor import LogRules
from tests.factories.happenings import generate
from tests.factories.histories import LOG, Begin, Witness


def new_rules(history, limits=None):
    """A monitor that has read nothing yet, with the history's own policy."""
    return LogRules(
        log=LOG,
        admins=history.admins,
        threshold=history.threshold,
        limits=limits,
        logs=history.log_verifiers,
    )


def feed(rules, events, manifests):
    """Give a monitor events; `manifests` keeps what came, by hash. Returns what is wrong."""
    found = []
    for event in events:
        if isinstance(event.step, Witness):
            found += rules.witnessed(event.index, event.step.at_ns)
            continue
        if isinstance(event.step, Begin) and event.number > rules.number:
            rules.turn()
        if event.manifest:
            manifests[sha256(event.entry).digest()] = event.manifest
        wanted = rules.wanted(event.entry)
        given = {digest: manifests.get(digest) for digest in wanted}
        found += rules.take(event.index, event.entry, given)
    return found


def judge(history, limits=None):
    """A monitor that has read all of a history."""
    rules = new_rules(history, limits)
    feed(rules, history.write(), {})
    return rules


def check_breach(rule, breach, seeds=range(100)):
    """A breach of one rule is found where it is, and nothing else is found anywhere.

    The first history in which there is something to break is taken; they grow.
    """
    for seed in seeds:
        history = generate(seed, 12 + seed)
        steps = breach(history)
        if steps is None:
            continue
        events = history.write()
        rules = new_rules(history)
        feed(rules, events, {})
        wanted = {(rule, e.number, e.index) for e in events for step in steps if e.step is step}
        assert wanted
        found = {(item.rule, item.number, item.index) for item in rules.violations}
        assert found == wanted, [str(item) for item in rules.violations]
        return rules
    raise AssertionError("no history has what this breach needs")


def reread(rules, history, limits=None):
    """A monitor that goes on from another's kept state."""
    found = new_rules(history, limits)
    found.read(rules.to_json())
    return found
