"""The published table of errors is the tree's."""

from sealtape.schemas.errors import ERRORS
from tests.docs import errors_page


def test_the_page_is_current():
    written = errors_page.PAGE.read_text(encoding="utf-8")
    assert written == errors_page.errors_page(), "run: python -m tests.docs.errors_page"


def test_every_error_is_on_the_page():
    page = errors_page.PAGE.read_text(encoding="utf-8")
    for error in ERRORS:
        assert f"`{error.code}` | {error.exit_code} |" in page
