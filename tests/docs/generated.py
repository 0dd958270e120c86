"""The parts of docs/ that are made from the code, so that they cannot lag behind it.

`python -m tests.docs.generated` writes them; a test compares.
"""

import argparse
from itertools import groupby
from pathlib import Path

from sealtape.indexer.cli.main import build_parser
from sealtape.schemas.settings import reference

DOCS = Path(__file__).resolve().parents[2] / "docs"

CONFIG_HEAD = """\
# Settings

One TOML file, `sealtape.toml`, describes a deployment. It is named by `-c FILE`, else by
`SEALTAPE_CONFIG`, else it is `./sealtape.toml`. Relative paths start at the folder the file is in,
so a stopped deployment can be copied as a folder. `sealtape init DIR` writes a first one. An
unknown key is refused, with the nearest known one in the message.

Sizes are numbers of bytes or texts such as `"64KiB"`, `"1GiB"`; durations are seconds or texts such
as `"200ms"`, `"8h"`, `"90d"`.

A secret is a reference: `{ file = "PATH" }`, `{ env = "NAME" }` or
`{ provider = "NAME:REFERENCE" }`, read anew for each connection. A provider is a Python function
that an installed package offers under the entry point group `sealtape.credentials`: it is called
with REFERENCE and returns the secret. A password written into the file itself works, with a
warning at every start.
"""

CLI_REFERENCE = "## Reference\n"


def config_page():
    """Return docs/config.md."""
    parts = [CONFIG_HEAD]
    for table, settings in groupby(reference(), key=lambda setting: setting.table):
        parts.append(f"\n## [{table}]\n\n| key | default | what it is |\n|---|---|---|\n")
        for setting in settings:
            doc = setting.doc.replace("|", "\\|")
            parts.append(f"| `{setting.key}` | `{setting.default}` | {doc} |\n")
    return "".join(parts)


def cli_page():
    """Return docs/cli.md: its own beginning, then the reference made from the parser."""
    path = DOCS / "cli.md"
    own = path.read_text().partition(CLI_REFERENCE)[0]
    return own + CLI_REFERENCE + "".join(_command(name, sub) for name, sub in commands().items())


def commands():
    """Return the parser of each command by its name."""
    (actions,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return actions.choices


def _command(name, parser):
    about = f"\n### sealtape {name}\n\n```text\n{parser.description.rstrip()}\n```\n"
    lines = [about, "\n| argument | what it is |\n|---|---|\n"]
    for action in parser._actions:
        if action.dest == "help":
            continue
        words = ", ".join(action.option_strings)
        value = "" if action.nargs == 0 else value_of(action)
        shown = " ".join(filter(None, [words, value]))
        lines.append(f"| `{shown}` | {action.help} |\n")
    return "".join(lines)


def value_of(action):
    """What an argument takes: the name of its value, its choices, or else its own name."""
    if action.metavar:
        return action.metavar
    if action.choices:
        return " or ".join(map(str, action.choices))
    return action.dest.upper()


PAGES = {"config.md": config_page, "cli.md": cli_page}


if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
