import dataclasses

import pytest

from sealtape.capture.checkup import Check


def test_a_check_is_a_fact_that_does_not_change():
    check = Check("bus: reachable", "ok", "3 brokers answer")
    assert check.hint == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        check.level = "error"
