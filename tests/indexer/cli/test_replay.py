"""`sealtape replay`: the command; what it shows is tested in test_rendering.py."""

import json
import subprocess
import sys

import pytest

from sealtape.schemas.frames import Kind
from sealtape.schemas.keys import Packer, open_payload
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, decode_data, leg_stream


def leg(built, which):
    """The bytes of one leg, out of the frames themselves."""
    slices = []
    for frame in built.frames:
        if frame.kind == Kind.DATA:
            body = open_payload(frame, built.label_keys.data, Packer())
            slices += decode_data(body, frame.ts_ns)
    return b"".join(leg_stream(slices, which))


def process(site, *words):
    return subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", "-c", site.config, "replay", *words],
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("side", "which"), [("client", CLIENT_IN), ("server", CLIENT_OUT)])
def test_raw_bytes(recorded, side, which):
    done = process(recorded.site, recorded.closed.session.hex(), "--raw", side)
    assert done.returncode == 0
    assert done.stdout == leg(recorded.closed, which)
    assert done.stdout


def test_json_lines(at, recorded):
    name = recorded.closed.session.hex()
    answer = at("replay", name, "--json")
    assert answer.code == 0
    assert answer.out == at("replay", name, "--format", "jsonl").out
    assert len(answer.lines) >= 3
    assert "select 1 from orders" in answer.out
    for line in answer.lines:
        assert "rows" in line or "note" in json.dumps(line)


@pytest.mark.parametrize("words", [[], ["--format", "table"], ["--format", "text"]])
def test_for_people(at, recorded, words):
    answer = at("replay", recorded.closed.session.hex(), *words)
    assert answer.code == 0
    assert "select 2 from orders" in answer.out


def test_from_a_hit_on(at, recorded):
    name = recorded.closed.session.hex()
    hits = at("search", f"session:{name}", "--json").lines
    last = max(hit["seq"] for hit in hits)
    for place in (str(last), f"0:{last}"):
        answer = at("replay", name, "--at", place, "--json")
        assert answer.code == 0
        assert "select 2 from orders" in answer.out
        assert "select 0 from orders" not in answer.out


def test_a_live_session(at, recorded):
    answer = at("replay", recorded.live.session.hex(), "--json")
    assert answer.code == 0
    assert "select 0 from orders" in answer.out


@pytest.mark.parametrize(
    "words", [["--at", "x"], ["--at", "1:2:y"], ["--raw", "client", "--at", "2"], ["--rows", "0"]]
)
def test_what_makes_no_sense(at, recorded, words):
    assert at("replay", recorded.closed.session.hex(), *words).code == 64


@pytest.mark.parametrize("words", [["--raw", "both"], ["--format", "xml"]])
def test_choices(at, recorded, words):
    assert at("replay", recorded.closed.session.hex(), *words).code == 64


def test_no_such_session(at):
    answer = at("replay", "f" * 32, "--json")
    assert answer.code == 66


def test_the_key_is_needed(run, copied, recorded, tmp_path):
    name = recorded.closed.session.hex()
    (copied.folder / "keys/auditor.key").rename(tmp_path / "away.key")
    answer = run("-c", copied.config, "replay", name, "--json")
    assert answer.code == 77
    assert run("-c", copied.config, "replay", name, "--key", tmp_path / "away.key").code == 0
    indexer = copied.folder / "keys/indexer.key"
    assert run("-c", copied.config, "replay", name, "--key", indexer).code == 77


@pytest.mark.parametrize("shown", [True, False])
def test_how_far_raw_bytes_have_come(at, recorded, terminal, monkeypatch, shown):
    """Told beside them, unless they go to the terminal themselves."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: not shown)
    assert at("replay", recorded.closed.session.hex(), "--raw", "client").code == 0
    size = len(leg(recorded.closed, CLIENT_IN))
    assert (f"replayed {size} bytes" in terminal.getvalue()) == shown
