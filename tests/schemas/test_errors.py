"""The error tree: texts, codes, and what the special ones carry."""

import inspect
import pickle

import pytest

from sealtape.schemas import errors


def test_text_is_message_then_hint_and_context_is_kept():
    error = errors.SealtapeError("it broke", hint="Mend it.", session="ab", seq=3)
    assert str(error) == "it broke Mend it."
    assert (error.message, error.hint) == ("it broke", "Mend it.")
    assert error.context == {"session": "ab", "seq": 3}


def test_text_without_hint_is_the_message():
    assert str(errors.FormatError("it broke")) == "it broke"


def test_store_busy_says_how_long_to_wait():
    error = errors.StoreBusy("bus is full", retry_after_s=1.5, hint="Wait.", topic="t")
    assert error.retry_after_s == 1.5
    assert str(error) == "bus is full Wait."
    assert error.context == {"topic": "t"}


def test_refused_carries_reason_and_protocol_code():
    error = errors.Refused("no", reason="bad-token", protocol_code="28P01", target="shop")
    assert (error.reason, error.protocol_code) == ("bad-token", "28P01")
    assert error.context == {"target": "shop"}


def test_the_list_is_complete_and_codes_are_unique():
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.SealtapeError)
    }
    assert set(errors.ERRORS) == defined
    assert len(errors.ERRORS) == len(defined)
    codes = [error.code for error in errors.ERRORS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", errors.ERRORS)
def test_each_error_is_in_the_tree_of_the_docstring_with_its_exit_code(error):
    line = next(line for line in errors.__doc__.splitlines() if error.__name__ in line.split())
    assert str(error.exit_code) in line.split()
    # A parent stands above its children, less indented.
    lines = errors.__doc__.splitlines()
    parent = error.__bases__[0].__name__
    if parent != "Exception":
        above = lines[: lines.index(line)]
        indent = line.index(error.__name__)
        nearest = next(
            item for item in reversed(above) if indent > len(item) - len(item.lstrip("|+- "))
        )
        assert parent in nearest.split()


@pytest.mark.parametrize("error", errors.ERRORS)
def test_each_error_says_what_it_means(error):
    assert error.__doc__
    assert error.code == error.code.lower()
    assert 64 <= error.exit_code <= 78


def test_malformed_bytes_are_one_family():
    for error in (errors.DigestError, errors.SignatureError, errors.KeyCommitmentError):
        assert issubclass(error, errors.FormatError)
        assert error.exit_code == 65


@pytest.mark.parametrize(
    "error",
    [
        errors.SealtapeError("what", hint="do", key="k"),
        errors.StoreBusy("what", retry_after_s=2.5),
        errors.Refused("what", reason="r", protocol_code="28000"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_to_another_process(error):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert (str(twin), vars(twin)) == (str(error), vars(error))
