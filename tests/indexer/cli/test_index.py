"""`sealtape index`: a room of its own, and the index made anew."""

import signal
import subprocess
import sys
import time


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
