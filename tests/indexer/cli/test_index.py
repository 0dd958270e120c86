"""`sealtape index`: a room of its own, and the index made anew."""

import signal
import subprocess
import sys
import time

import pytest

from sealtape.schemas.frames import Kind
from tests.factories.sessions import reader
from tests.indexer.harm import overwrite, sealed, site

__all__ = ["sealed", "site"]


def test_rebuilt_from_what_is_recorded(run, copied, recorded):
    before = run("-c", copied.config, "sessions", "--json").out
    for path in copied.folder.glob("index.db*"):
        path.unlink()
    assert run("-c", copied.config, "sessions").code == 74
    answer = run("-c", copied.config, "index", "rebuild", "--json")
    assert answer.code == 0
    assert answer.json["commands"] == 6
    frames = [frame for b in (recorded.closed, recorded.live, recorded.grace) for frame in b.frames]
    assert answer.json["frames"] >= len(frames)
    assert run("-c", copied.config, "sessions", "--json").out == before
    assert run("-c", copied.config, "index", "rebuild").out.startswith("indexed 6 commands")


def key(path, site):
    return path.relative_to(site.folder / "vault").as_posix()


def test_a_segment_that_is_gone_is_named(run, site):
    gone = site.objects()[1]
    gone.unlink()
    answer = run("-c", site.config, "index", "rebuild", "--json")
    assert answer.code == 74
    assert answer.error["code"] == "missing"
    assert f"1 segment could not be indexed: {key(gone, site)}" in answer.error["message"]
    assert [each["segment"] for each in answer.json["failed"]] == [key(gone, site)]
    assert answer.json["commands"] > 0
    answer = run("-c", site.config, "index", "rebuild")
    assert answer.code == 74
    done, failed = answer.out.splitlines()
    assert done.startswith("indexed ")
    assert failed.startswith(f"not indexed: {key(gone, site)}: ")


@pytest.mark.parametrize("harm", ["cut", "a frame"])
def test_a_segment_that_is_damaged_is_named(run, sealed, site, harm):
    first, second = site.objects()
    data = bytearray(first.read_bytes())
    if harm == "cut":
        del data[-20:]
    else:
        facts = next(frame for frame in sealed[1][0].frames if frame.kind == Kind.FACTS)
        data[data.index(facts.payload) + len(facts.payload) // 2] ^= 1
    overwrite(first, data)
    second.unlink()
    answer = run("-c", site.config, "index", "rebuild", "--json")
    assert answer.code == 65
    assert "2 segments could not be indexed" in answer.error["message"]
    found = {each["segment"]: each["code"] for each in answer.json["failed"]}
    assert found.keys() == {key(first, site), key(second, site)}
    assert found[key(second, site)] == "missing"


def test_whoever_has_no_key_for_the_facts_indexes_what_there_is(run, site):
    """That is a choice (`keys.indexers`), and no damage."""
    (site.folder / "keys/indexer.key").write_text(reader("indexer", seed=9).text())
    answer = run("-c", site.config, "index", "rebuild", "--json")
    assert answer.code == 0
    assert answer.json["failed"] == []


def test_it_runs_until_a_signal(copied):
    for path in copied.folder.glob("index.db*"):
        path.unlink()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sealtape", "-c", copied.config, "index"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while not (copied.folder / "index.db").exists():
        assert time.monotonic() < until
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_without_its_key(run, copied):
    (copied.folder / "keys/indexer.key").unlink()
    for words in (["index"], ["index", "rebuild"]):
        answer = run("-c", copied.config, *words, "--json")
        assert answer.code == 77
        assert answer.error["code"] == "key-unavailable"


def test_it_says_how_far_it_has_come(run, copied, terminal):
    assert run("-c", copied.config, "index", "rebuild").code == 0
    steps = [int(part.split()[2]) for part in terminal.getvalue().split("\x1b[K") if part.strip()]
    assert steps == sorted(steps)
    assert steps[-1] > 0
    assert terminal.getvalue().endswith("\r\x1b[K")
