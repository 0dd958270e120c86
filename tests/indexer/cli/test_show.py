"""`sealtape show`."""

import asyncio

from sealtape.indexer.cli import show
from tests.conformance.index import command, session
from tests.factories.logs import grow_log


def test_json(at, recorded):
    shown = at("show", recorded.closed.session.hex(), "--json").json
    assert shown["session"] == recorded.closed.session.hex()
    assert [s["text"] for s in shown["statements"]] == [f"select {n} from orders" for n in range(3)]
    seqs = [statement["seq"] for statement in shown["statements"]]
    assert seqs == sorted(seqs), "in order of time"


def test_for_people(at, recorded):
    answer = at("show", recorded.closed.session.hex())
    assert answer.code == 0
    assert "user          ada" in answer.out
    assert "select 2 from orders" in answer.out


def test_what_a_client_calls_itself_cannot_look_like_a_line_of_ours(capsys):
    show._print({"client": "psql\nstate         sealed", "state": "live"}, [])
    assert [line for line in capsys.readouterr().out.splitlines() if "state " in line] == [
        "client        psql⏎ state         sealed",
        "state         live",
    ]


def test_a_frame_is_named_as_replay_takes_it(capsys):
    owner = session(1)
    show._print({}, [command(owner, 0, seq=5), command(owner, 1, epoch=1, seq=5)])
    _, _, first, second = capsys.readouterr().out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("5", "1:5")


def test_the_first_digits_are_enough(at, recorded):
    name = recorded.closed.session.hex()
    assert at("show", name[:12], "--json").json["session"] == name


def test_limit(at, recorded):
    shown = at("show", recorded.closed.session.hex(), "--limit", "1", "--json").json
    assert len(shown["statements"]) == 1


def test_no_such_session(at):
    answer = at("show", "f" * 32, "--json")
    assert answer.code == 66
    assert answer.error["code"] == "not-found"


def test_digits_of_several(at, recorded):
    names = [b.session.hex() for b in (recorded.closed, recorded.live, recorded.grace)]
    firsts = [name[0] for name in names]
    shared = next((first for first in firsts if firsts.count(first) > 1), None)
    if shared is None:
        answer = at("show", "", "--json")
        assert answer.code == 64
    else:
        answer = at("show", shared, "--json")
        assert answer.code == 64
        assert answer.error["code"] == "ambiguous"


def test_what_it_is_worth_is_said(at, recorded):
    answer = at("show", recorded.closed.session.hex())
    assert "log           none" in answer.out
    assert answer.err.startswith("not verified: this is the search index")


def test_compared_with_the_record(run, copied, recorded):
    asyncio.run(grow_log(copied))
    answer = run("-c", copied.config, "show", recorded.closed.session.hex(), "--verify")
    assert (answer.code, answer.err) == (0, "verified: 4 of 4\n")
    live = recorded.live.session.hex()
    shown = run("-c", copied.config, "show", live, "--verify", "--json")
    assert (shown.code, shown.json["verified"]) == (0, False)
    assert "incomplete" in shown.json["verify_reason"]


async def test_where_its_seals_are(run, copied, recorded):
    await grow_log(copied)
    name = recorded.closed.session.hex()
    shown = (await asyncio.to_thread(run, "-c", copied.config, "show", name, "--json")).json
    assert shown["log"] == "witnessed"
    assert {line["log"] for line in shown["statements"]} == {"witnessed"}
    (entry,) = shown["log_entries"]
    people = await asyncio.to_thread(run, "-c", copied.config, "show", name)
    assert f"log_entry     {entry['index']} of shard 1, epoch 0" in people.out
    assert "log           witnessed" in people.out
