import pytest

from sealtape.indexer.index.base import Update
from sealtape.indexer.index.opensearch.query import after, all_of, any_of, commands, sessions
from sealtape.indexer.query import Query, parse
from sealtape.schemas.documents import CommandDocument
from tests.conformance.index import MANY, command, session


def query(text) -> Query:
    return parse(text, now_ns=10**12)


def test_nothing_asked_is_everything():
    assert commands(Query()) == {"match_all": {}}
    assert all_of([]) == {"match_all": {}}


def test_a_word_is_a_term_and_words_are_a_phrase():
    assert commands(query("Drop")) == {"term": {"find.words": {"value": "drop"}}}
    assert commands(query("dro*")) == {"prefix": {"find.words": {"value": "dro"}}}
    assert commands(query("order_items")) == {
        "match_phrase": {"find.words": {"query": "order items"}}
    }
    found = commands(query('"drop ta"*'))["match_phrase_prefix"]["find.words"]
    assert found == {"query": "drop ta", "max_expansions": (1 << 31) - 1}


def test_families_of_addresses_are_apart():
    assert commands(query("source:10.0.0.0/8")) == {"term": {"source.ip": {"value": "10.0.0.0/8"}}}
    assert commands(query("source:2001:db8::/32"))["bool"]["must_not"]


def test_what_a_session_is_asked_and_what_its_commands():
    plan = sessions(query("drop -table:orders user:anna since:1h"))
    assert "find.user" in str(plan.session)
    assert "find.ended_ns" in str(plan.session)
    assert "find.words" in str(plan.some)
    assert "sealtape.time_ns" in str(plan.some)
    assert plan.none == {"term": {"find.tables": {"value": "orders"}}}
    plan = sessions(query("user:anna"))
    assert (plan.some, plan.none) == (None, None)
    assert sessions(query("error:false")).none == sessions(query("-error:true")).none


def test_commands_are_asked_about_effects_only_beside_other_things():
    write = {"term": {"find.effects": {"value": "write"}}}
    without = sessions(query("protocol:postgres -effect:write"))
    assert (without.some, without.none) == (None, None)
    assert {"bool": {"must_not": [write]}} in without.session["bool"]["filter"]
    plan = sessions(query("protocol:postgres effect:write"))
    assert (plan.some, plan.none) == (None, None)
    assert write in plan.session["bool"]["filter"]
    for text in ("effect:write drop", "effect:write since:1h", "effect:write effect:read"):
        plan = sessions(query(text))
        assert write in plan.session["bool"]["filter"]
        assert "find.effect'" in str(plan.some)
    plan = sessions(query("effect:wr*,read"))
    assert {"prefix": {"find.effects": {"value": "wr"}}} in plan.session["bool"]["filter"][0][
        "bool"
    ]["should"]
    plan = sessions(query("-effect:write -table:orders"))
    assert plan.none == {"term": {"find.tables": {"value": "orders"}}}


@pytest.mark.parametrize(("text", "hidden"), [("", 1), ("protocol:x", 0), ("session:a", 0)])
def test_journals_are_asked_for(text, hidden):
    assert ("journal" in str(sessions(query(text)).session)) == hidden


def test_what_comes_behind():
    condition = after(("a", "b"), (1, "x"), oldest_first=True)
    assert condition == any_of(
        [
            {"range": {"a": {"gt": 1}}},
            all_of([{"term": {"a": 1}}, {"range": {"b": {"gt": "x"}}}]),
        ]
    )
    assert "lt" in str(after(("a",), (1,), oldest_first=False))


async def test_a_prefix_at_the_end_of_a_phrase_stands_for_all_words(index):
    owner = session(1)
    many = tuple(command(owner, n, text=f"alpha w{n:04d}") for n in range(1500))
    await index.put(Update((owner,), many))
    hits = await index.search_commands(query('"alpha w"*'), MANY)
    assert len(hits.documents) == 1500
    assert all(isinstance(hit, CommandDocument) for hit in hits.documents)


async def test_the_longest_words_are_whole(index):
    owner = session(1)
    # A letter beyond the first plane is two units of UTF-16, which OpenSearch counts in.
    word = "\U00020000" * 128
    one = command(owner, 0, text=f"{word}x next")
    await index.put(Update((owner,), (one,)))
    for text in (word, f"{word}y", f'"{word} next"', f"{word[:100]}*"):
        hits = await index.search_commands(query(text), MANY)
        assert hits.documents == (one,), text
    assert (await index.search_commands(query(word[:100]), MANY)).documents == ()
