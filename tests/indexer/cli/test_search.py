"""`sealtape search`."""

import asyncio

from sealtape.indexer.node import rebuild_index
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log

ADDED = ["seq", "time", "text", "effect", "rows", "duration_ms", "error"]


def test_json_lines(at, recorded):
    answer = at("search", "user:grace", "--json")
    assert answer.code == 0
    assert len(answer.lines) == 2
    for line in answer.lines:
        assert set(ADDED) <= set(line)
        assert line["session"] == recorded.grace.session.hex()
        assert line["user"] == "grace"
        assert line["effect"] == "read"
        assert line["rows"] == 1
        assert line["error"] is None
        assert line["duration_ms"] > 0
    seqs = [line["seq"] for line in answer.lines]
    kinds = {frame.seq: frame.kind for frame in recorded.grace.frames}
    assert {kinds[seq] for seq in seqs} == {4}, "a hit names a FACTS frame"


def test_words_of_the_statement(at, recorded):
    assert {x["session"] for x in at("search", "secrets", "--json").lines} == {
        recorded.grace.session.hex()
    }
    assert at("search", "nothing-like-that", "--json").out == ""


def test_a_query_in_several_words_is_one(at):
    one = at("search", "user:grace secrets", "--json").lines
    assert at("search", "user:grace", "secrets", "--json").lines == one
    assert one


def test_a_query_that_begins_with_not(at):
    everything = at("search", "effect:read", "--json").lines
    without = at("search", "--json", "--", "-user:grace").lines
    assert len(without) == len(everything) - 2


def test_newest_first_and_limited(at):
    times = [line["time"] for line in at("search", "effect:read", "--json").lines]
    assert times == sorted(times, reverse=True)
    assert len(at("search", "effect:read", "--limit", "2", "--json").lines) == 2


def test_live_sessions_too(at, recorded):
    (line,) = at("search", f"session:{recorded.live.session.hex()}", "--json").lines
    assert line["state"] == "live"


def test_for_people(at):
    answer = at("search", "secrets")
    assert "secrets" in answer.out
    assert answer.out.splitlines()[0].split()[:2] == ["session", "seq"]


def test_a_query_is_needed(at):
    assert at("search").code == 64


def test_a_hit_of_a_recovery_epoch_is_where_replay_goes(run, tmp_path):
    """What stands in the table can be copied to `replay --at` as it is."""
    site = make_site(tmp_path / "site")
    first = site.session(commands=0, close=None, final_checkpoint=False)
    second = site.session(
        commands=2, session=first.session, epoch=1, continues=first.continues, close="aborted"
    )  # fmt: skip

    async def fill():
        await seal(site, [first, second])
        await rebuild_index(site.settings)

    asyncio.run(fill())
    table = run("-c", site.config, "search", "effect:read").out.splitlines()
    places = [line.split()[1] for line in table[1:] if line.split()[1:]]
    hits = run("-c", site.config, "search", "effect:read", "--json").lines
    assert places == [f"1:{hit['seq']}" for hit in hits]
    for place in places:
        shown = run("-c", site.config, "replay", first.session.hex(), "--at", place, "--json")
        assert shown.code == 0, shown.err
        assert "select" in shown.out


def test_hits_compared_with_the_record(run, copied):
    asyncio.run(grow_log(copied))
    assert run("-c", copied.config, "search", "secrets").err.startswith("not verified")
    answer = run("-c", copied.config, "search", "secrets", "--verify", "--json")
    assert (answer.code, answer.err) == (0, "verified: 2 of 2\n")
    assert [line["verified"] for line in answer.lines] == [True, True]
    assert {line["log"] for line in answer.lines} == {"witnessed"}
