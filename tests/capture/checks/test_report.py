import json

from sealtape.capture.checks import Report
from sealtape.capture.checkup import Check

OK = Check("bus", "ok", "It answers.", "never shown")
WARNING = Check("spool: room", "warning", "Little room.", "Make some.")
ERROR = Check("target x", "error", "It is\x1b[2J down.\n", "Start it.")


def test_a_table_says_what_to_do():
    lines = list(Report([OK, WARNING, ERROR]).lines())
    assert lines == [
        "ok    bus          It answers.",
        "WARN  spool: room  Little room.",
        "                   -> Make some.",
        "FAIL  target x     It is\\x1b[2J down.\\x0a",
        "                   -> Start it.",
        "3 checks, 1 errors, 1 warnings",
    ]
    assert list(Report([]).lines()) == ["0 checks, 0 errors, 0 warnings"]


def test_exit_codes():
    for checks, code, strict in (([OK], 0, 0), ([OK, WARNING], 0, 1), ([ERROR, OK], 1, 1)):
        assert Report(checks).exit_code(strict=False) == code
        assert Report(checks).exit_code(strict=True) == strict


def test_programs_get_an_object():
    told = Report([WARNING, ERROR]).to_json()
    assert json.loads(json.dumps(told)) == told
    assert (told["ok"], told["errors"], told["warnings"]) == (False, 1, 1)
    assert told["checks"][0] == {
        "name": "spool: room", "level": "warning", "message": "Little room.", "hint": "Make some.",
    }  # fmt: skip
