"""What leaves as events with a cut."""

from tests.factories.sessions import build_session
from tests.ingest.test_sealer import Bench


def test_the_terms_of_sessions_are_told_once_and_again_after_a_failed_publication():
    bench = Bench().send(*build_session(commands=0).messages).later(2)
    lost = bench.sealer.cut(bench.now)
    (cut,) = [bench.cut()]
    assert cut.events == lost.events
    assert kinds(cut).count("policy-applied") == 1
    bench.send(*build_session(seed=2, commands=0).messages).later(2)
    assert "policy-applied" not in kinds(bench.cut())


def test_a_key_that_is_kept_is_told_with_the_next_publication():
    built = build_session(commands=0)
    bench = Bench().send(*built.messages)
    for item in bench.keys:
        bench.sealer.key_kept(item, bench.now)
    assert not bench.sealer.due(bench.now), "it is no reason to publish"
    bench.later(2)
    assert kinds(bench.cut()).count("key-wrapped") == len(bench.keys) == 3
    assert bench.cut() is None


def kinds(cut):
    return [event.kind for event in cut.events]
