"""What people and programs are shown."""

import io
import json

import pytest

from sealtape.indexer.cli import output
from sealtape.schemas.verify.findings import Finding


def test_one_json_value_is_one_line(capsys):
    output.json_line({"text": "a\nb\u2028é", "n": 2**70})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "a\nb\u2028é", "n": 2**70}


def test_json_cannot_steer_the_terminal(capsys):
    value = {"text": "\x9b2J \x7f \u202e \x1b[m \U000e0001 é 漢", "\x85": ["\udcff"]}
    output.json_line(value)
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert "é 漢" in out
    assert json.loads(out) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\tb\nc", "a\tb\nc"),
        ("bell\x07 \x9b \u202e", "bell\\x07 \\x9b \\u202e"),
    ],
)
def test_a_recording_cannot_steer_the_terminal(text, shown):
    assert output.printable(text) == shown


def test_a_line_stays_one():
    assert output.line("a\n\nVERIFIED: all\x1b[2J\tb") == "a⏎ ⏎ VERIFIED: all\\x1b[2J\tb"


def test_a_finding_is_two_lines(capsys):
    output.finding(Finding("tampered", "object", "x\nVERIFIED: 9 sessions", None, None, "a\nb"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("x⏎ VERIFIED: 9 sessions")
    assert second.endswith("a⏎ b")


def test_a_table(capsys):
    output.table(["a", "bb"], [["one", "x\ny"], ["\x1b", "z"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a     bb", "one   x⏎ y", "\\x1b  z"]


def test_an_empty_table(capsys):
    output.table(["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_table_fits_its_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    output.table(["a", "b"], [["x", "y" * 100]])
    assert [len(line) for line in terminal.getvalue().splitlines()] == [4, 20]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "of no stated accuracy"),
        (10**9, "accurate to 1 s"),
        (2_999_007_000, "accurate to 2.999007 s"),
        ((2**32 - 1) * 10**9, "accurate to 4294967295 s"),
    ],
)
def test_accuracies(ns, text):
    assert output.accuracy(ns) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_790_000_000_123_456_789, "2026-09-21T14:13:20.123456Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times(ns, text):
    assert output.iso(ns) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes(count, text):
    assert output.size(count) == text


def test_progress_is_shown_now_and_then_and_removed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    terminal = Terminal()
    progress = output.Progress("verified frames", 10, stream=terminal)
    progress.at(1)
    progress.at(2)
    now[0] += 1
    progress.at(3, "object")
    shown = terminal.getvalue()
    assert "verified frames 1/10" in shown
    assert "2/10" not in shown
    assert "3/10 object" in shown
    progress.done()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_without_an_end(monkeypatch):
    terminal = Terminal()
    output.Progress("frames", stream=terminal).at(7)
    assert "frames 7 " in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress_is_silent_where_nobody_looks(stream):
    progress = output.Progress("frames", stream=stream, quiet=isinstance(stream, Terminal))
    progress.at(1)
    progress.done()
    assert stream.getvalue() == ""
