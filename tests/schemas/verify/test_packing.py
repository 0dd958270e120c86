"""Rows of one size, as few strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import canonical
from sealtape.schemas.errors import FormatError
from sealtape.schemas.verify.packing import packed, unpacked


def through(rows, size):
    data = canonical.encode({"rows": packed(rows)})
    return list(unpacked(canonical.fields(data, "state"), "rows", size))


@given(
    st.integers(1, 80).flatmap(
        lambda size: st.tuples(st.just(size), st.lists(st.binary(min_size=size, max_size=size)))
    )
)
def test_rows_come_back(case):
    size, rows = case
    assert through(rows, size) == rows


def test_many_rows_are_few_strings():
    rows = [number.to_bytes(4, "big") for number in range(1_200)]
    assert len(packed(rows)) == 3
    assert through(rows, 4) == rows


@pytest.mark.parametrize(("text", "word"), [("0g", "hex"), ("0", "hex"), ("000102", "2 bytes")])
def test_what_is_refused(text, word):
    data = canonical.encode({"rows": [text]})
    with pytest.raises(FormatError, match=word):
        list(unpacked(canonical.fields(data, "state"), "rows", 2))
