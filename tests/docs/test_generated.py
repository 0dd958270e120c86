"""Every command, option, setting and error is documented, and as the code has it."""

import pytest

from tests.docs import generated


@pytest.mark.parametrize("page", generated.PAGES)
def test_pages_made_from_the_code_are_current(page):
    made = generated.PAGES[page]()
    assert (generated.DOCS / page).read_text() == made, "run: python -m tests.docs.generated"


def test_every_command_explains_itself():
    for name, parser in generated.commands().items():
        assert len(parser.description) > 80, name
        for action in parser._actions:
            assert action.help, f"{name}: {action.dest}"
