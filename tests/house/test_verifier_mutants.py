"""A check of a verifier that is missing is noticed by its tests."""

import pytest

from tests.house.verifier_mutants import (
    EQUIVALENT,
    MODULES,
    Mutant,
    drawn,
    mutants_of,
    own_tests,
    survives,
)

SAMPLE = 4


def test_every_module_has_checks_and_tests():
    assert all(own_tests(module) for module in MODULES)
    assert sum(len(mutants_of(module)) for module in MODULES) > 500


def test_equivalent_ones_are_there():
    known = {(item.module, item.source) for module in MODULES for item in mutants_of(module)}
    assert set(EQUIVALENT) <= known


def test_what_is_no_check_is_not_noticed():
    """A module without a name that only annotations use: the tests run, and pass."""
    assert survives(Mutant("schemas/verify/packing.py", 3, 1, "an import"))


@pytest.mark.parametrize("mutant", list(drawn(MODULES, SAMPLE, 5)), ids=str)
def test_some_are_noticed(mutant):
    assert not survives(mutant)


@pytest.mark.soak
@pytest.mark.parametrize("mutant", list(drawn(MODULES, 0, 0)), ids=str)
def test_all_are_noticed(mutant):
    assert not survives(mutant)
