"""docs/errors.md, made from the tree of errors.

`python -m tests.docs.errors_page` writes it; a test compares.
"""

from pathlib import Path

from sealtape.schemas.errors import ERRORS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"

HEAD = """\
# Errors

Every failure is one of these. The message says what happened, to what, and what to do. Programs
can rely on the *code* (with `--json` an error is `{"error": {"code", "message", "exit_code"}}` on
standard error) and on the *exit code* of the command line. An indented error is a kind of the one
above it: whoever handles the outer one handles the inner ones.

Malformed bytes are always a `format` error or one of its kinds, whichever program wrote them.
Messages, hints and logged values never hold secrets or recorded content.

| error | code | exit | what it means |
|---|---|---|---|
"""


def errors_page():
    return HEAD + "".join(row(error) for error in ERRORS)


def row(error):
    depth = len(error.__mro__) - len(ERRORS[0].__mro__)
    indent = "&nbsp;&nbsp;&nbsp;" * depth
    meaning = " ".join(error.__doc__.split("\n\n")[0].split())
    return f"| {indent}{error.__name__} | `{error.code}` | {error.exit_code} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(errors_page(), encoding="utf-8")
