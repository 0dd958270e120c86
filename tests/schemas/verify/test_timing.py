"""Between which times the frames of a bundle were made."""

import pytest

from sealtape.schemas.verify.steps import State
from tests.factories.bundles import LOOSE, found, judged, story
from tests.vectors.bundle_parts import ORIGIN, START_S, Epoch
from tests.vectors.generate_bundle import DATA, recovered

NS = 10**9


def times(given, rules=LOOSE):
    report = judged(given, rules)
    return report, [why for _, why in found(report, "times")]


def begun_at(seconds, beacon=None):
    """An epoch whose node's clock is so far behind (or ahead of) the log's beginning."""
    epoch = Epoch(0, start_s=START_S + seconds, beacon=beacon)
    return epoch.begin().add(3, DATA).close("client")


def test_bounds_of_each_fragment():
    report, _ = times(recovered())
    assert report.state("times") == State.PASS
    assert [
        (bounds.epoch, bounds.lo, bounds.hi, bounds.not_before_ns, bounds.not_after_ns)
        for bounds in report.bounds
    ] == [
        (0, 0, 2, (START_S + 3) * NS, (START_S + 30) * NS),
        (0, 2, 4, (START_S + 3) * NS, (START_S + 60) * NS),
        (1, 0, 4, None, (START_S + 60) * NS),
    ]


def test_without_witnesses_nothing_is_bounded():
    report, _ = times(story(), LOOSE.replace("quorum office", "quorum none"))
    assert (report.verdict, report.state("times")) == ("verified", State.NOT_PROVIDED)


def test_without_fragments_nothing_is_bounded():
    files = {
        name: data
        for name, data in story(seal=False).items()
        if not name.startswith(("fragments/", "frames/"))
    }
    report, _ = times(files)
    assert (report.bounds, report.state("times")) == ([], State.NOT_PROVIDED)


@pytest.mark.parametrize(("seconds", "told"), [(90, False), (101, True), (-9000, False)])
def test_a_clock_that_is_ahead(seconds, told):
    """The log is witnessed at 40 s; a minute is forgiven."""
    report, reasons = times(story(epoch=begun_at(seconds)))
    assert (report.verdict, reasons) == ("verified", [])
    assert [("clock was wrong" in note) for note in report.notes] == [True] * told


def beaconed(seconds, *, size=None, root=None, origin=ORIGIN, keep=True):
    """A session whose OPEN names the checkpoint of before, which was witnessed at 20 s."""
    known = {}

    def before(log):
        known["size"] = log.checkpoint(20)
        known["root"] = log.notes[known["size"]][0].split("\n")[2]

    story(before=[before])
    import base64

    beacon = {
        "origin": origin,
        "size": str(size or known["size"]),
        "root": root or base64.b64decode(known["root"]).hex(),
    }
    files = story(before=[before], epoch=begun_at(seconds, beacon))
    if not keep:
        files = {name: data for name, data in files.items() if "checkpoints/5" not in name}
    return files


def test_not_before_the_checkpoint_that_open_names():
    report, reasons = times(beaconed(21))
    assert (report.verdict, reasons, report.notes) == ("verified", [], [])
    assert report.bounds[0].not_before_ns == (START_S + 20) * NS


def test_a_clock_that_is_behind():
    report, reasons = times(beaconed(-41))
    assert (report.verdict, reasons) == ("verified", [])
    assert "before it can have begun" in report.notes[0]


def test_a_beacon_of_another_tree():
    report, reasons = times(beaconed(21, root="00" * 32))
    assert report.verdict == "tampered"
    assert reasons == ["OPEN of epoch 0 names another root at 5 entries"]


@pytest.mark.parametrize(
    "options", [{"keep": False}, {"size": 4}, {"origin": "sealtape.example/log/2"}]
)
def test_a_beacon_that_the_bundle_does_not_have(options):
    report, reasons = times(beaconed(21, **options))
    assert (report.verdict, reasons) == ("verified", [])
    assert report.bounds[0].not_before_ns is None


def test_a_beacon_that_nobody_witnessed():
    report, _ = times(beaconed(21), LOOSE.replace("quorum office", "quorum none"))
    assert report.bounds[0].not_before_ns is None
