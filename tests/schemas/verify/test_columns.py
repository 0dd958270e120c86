"""Rows column by column are the same rows."""

import pytest

from tests.factories.sessions import build_session
from tests.factories.stored import columns_of, rows_of

ROWS = rows_of(build_session(commands=3))


def test_rows_come_back():
    columns = columns_of(ROWS)
    assert len(columns) == len(ROWS)
    assert list(columns.rows()) == ROWS
    assert columns.row(3) == ROWS[3]
    assert isinstance(columns.row(3).payload, bytes)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (2, 5), (4, len(ROWS))])
def test_a_part(start, end):
    assert list(columns_of(ROWS).part(start, end).rows()) == ROWS[start:end]
