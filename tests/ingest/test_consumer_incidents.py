"""What is found wrong is logged, under the session's name, and a flood of it is cut."""

import json
import logging

from sealtape.capture.logs import JsonFormat
from sealtape.ingest.consumer import LOGGED, _tell
from sealtape.ingest.ledger.rows import Incident


def incident(number):
    return Incident("frames", 3, number, "gap", "Frames never came.", bytes(15) + b"\1", 0, 7, 1)


def test_an_incident_is_logged_with_its_session(caplog):
    with caplog.at_level(logging.WARNING):
        _tell([incident(5)])
    (record,) = caplog.records
    line = json.loads(JsonFormat({"room": "ingest"}).format(record))
    assert line["event"] == "incident: Frames never came."
    assert line["session"] == "00" * 15 + "01"
    told = {key: line[key] for key in ("reason", "epoch", "seq", "partition", "offset")}
    assert told == {"reason": "gap", "epoch": 0, "seq": 7, "partition": 3, "offset": 5}


def test_a_flood_is_cut(caplog):
    with caplog.at_level(logging.WARNING):
        _tell([incident(number) for number in range(LOGGED + 5)])
    assert len(caplog.records) == LOGGED + 1
    assert "5 more incidents" in caplog.text
