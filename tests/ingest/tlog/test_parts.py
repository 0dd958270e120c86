from dataclasses import fields

from sealtape.ingest.tlog.opening import pace_of
from sealtape.ingest.tlog.parts import LogParts, Pace, nobody
from sealtape.ingest.tlog.timestamping import Timestamping
from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.schemas.settings import LogSettings


def test_the_usual_pace_is_that_of_the_settings():
    assert pace_of(LogSettings()) == Pace()


def test_without_introductions_administrators_submit_their_own():
    assert list(nobody(1)) == []


def test_witnesses_and_authorities_are_left_out_unless_named():
    usual = {field.name: field.default for field in fields(LogParts)}
    assert usual["cosigners"] is usual["stamping"] is None
    for kind in (Witnesses, Timestamping):
        assert hasattr(kind, "snapshot")
