import re
from pathlib import Path

from sealtape.schemas.ocsf.names import CLASSES, EVENT_CODES, class_word

PAGE = Path(__file__).resolve().parents[3] / "docs/spec/events.md"


def test_they_are_those_of_the_page():
    table = PAGE.read_text().partition("## Which events there are")[2].partition("\n\n| effect")[0]
    rows = re.findall(r"^\| (.*?) \| (\d+) (.*?) \|", table, re.MULTILINE)
    codes = [code for cell, _, _ in rows for code in re.findall(r"`(.*?)`", cell)]
    assert sorted(codes) == sorted(EVENT_CODES)
    assert {(int(uid), name) for _, uid, name in rows} == {(c.uid, c.name) for c in CLASSES}


def test_a_class_as_one_word():
    assert class_word("Datastore Activity") == "datastore_activity"
