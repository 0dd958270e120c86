"""A check of the second verifier that is missing is noticed by the corpus."""

import pytest

from tests.house.second_mutants import EQUIVALENT, checks, drawn, survives
from tests.house.verifier_mutants import Mutant

SAMPLE = 6


def test_equivalent_ones_are_there():
    assert len(checks()) > 400
    assert set(EQUIVALENT) <= {mutant.source for mutant in checks()}


def test_what_is_no_check_is_not_noticed():
    """A module whose docstring stands in for a check: it answers everything as before."""
    first = checks()[0]
    assert survives(Mutant(first.module, 1, 1, "its docstring"))


@pytest.mark.parametrize("mutant", list(drawn(SAMPLE, 5)), ids=str)
def test_some_are_noticed(mutant):
    assert not survives(mutant)


@pytest.mark.soak
@pytest.mark.parametrize("mutant", list(drawn(0, 0)), ids=str)
def test_all_are_noticed(mutant):
    assert not survives(mutant)
