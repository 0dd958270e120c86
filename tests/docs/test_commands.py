"""Every `sealtape` command in a document is one that the parser takes."""

import ast
import re
import shlex

import pytest

from sealtape.indexer.cli.main import build_parser
from tests.docs.generated import commands
from tests.house import sources

FENCE = re.compile(r"^```(?:sh|console|bash|text)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\$ )?sealtape [^`]+)`")
CALL = re.compile(r"(?:^|[;(|&]|\$\()\s*(?:\$ )?(sealtape(?: -\S+| [a-z\"'$./-]).*)")
PAGES = [
    path
    for path in sources.files()
    if path.suffix == ".md" and (path.parts[0] in ("docs", "deploy") or len(path.parts) == 1)
]
ROOMS = ("capture", "indexer", "ingest", "schemas")


def calls(text):
    """The command lines that begin with `sealtape`, in fences and between back quotes."""
    for body in FENCE.findall(text):
        for line in re.sub(r"\\\n", " ", body).splitlines():
            for part in re.split(r"; |\)| && ", line):
                if found := CALL.search(part):
                    yield found[1]
    for line in INLINE.findall(text):
        yield line.removeprefix("$ ")


def words_of(line):
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def problem(line):
    """What the parser would refuse in a command line, None when nothing."""
    words = [word.strip("[]…") for word in words_of(line)[1:]]
    if "--" in words:
        words = words[: words.index("--")]
    while words and words[0] in ("-c", "--config"):
        words = words[2:]
    known = commands()
    if not words or words[0] in ("COMMAND", "--help", "--version"):
        return None
    if words[0] not in known:
        return f"there is no command {words[0]!r}"
    options = {word for action in known[words[0]]._actions for word in action.option_strings}
    for word in words[1:]:
        name = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*|-[a-z]", name) and name not in options:
            return f"{words[0]} has no option {name}"
    first = known[words[0]]._get_positional_actions()[:1]
    choices = first[0].choices if first and len(words) > 1 else None
    if choices and re.fullmatch(r"[a-z][a-z-]*", words[1]) and words[1] not in choices:
        return f"{words[0]} has no action {words[1]}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_in_documents_exist(page):
    wrong = {line: problem(line) for line in calls(sources.text(page)) if problem(line)}
    assert not wrong


def test_the_search_for_commands_finds_them():
    found = {line.split()[1] for page in PAGES for line in calls(sources.text(page))}
    assert {"init", "dev", "connect", "search", "replay", "verify"} <= found
    assert problem("sealtape verify --al") == "verify has no option --al"
    assert problem("sealtape verfy --all") == "there is no command 'verfy'"
    assert problem("sealtape index rebild") == "index has no action rebild"
    assert problem("sealtape -c FILE verify --all --json") is None
    assert problem("sealtape connect shop -- psql --no-such") is None


def test_commands_in_the_help_exist():
    texts = [build_parser().description, *(parser.description for parser in commands().values())]
    wrong = {
        line.strip(): problem(line.strip())
        for text in texts
        for line in text.splitlines()
        if line.strip().startswith("sealtape ") and problem(line.strip())
    }
    assert not wrong


def test_commands_in_messages_exist():
    """What an error or a hint tells somebody to run."""
    found = set()
    for path in sources.files():
        if path.suffix == ".py" and path.parts[0] in ROOMS:
            for node in ast.walk(ast.parse(sources.text(path))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(INLINE.findall(" ".join(node.value.split())))
    assert len(found) > 20
    assert not {line: problem(line) for line in found if problem(line)}


def test_every_command_is_in_the_reference():
    page = sources.text(next(page for page in PAGES if str(page) == "docs/cli.md"))
    for name, parser in commands().items():
        section = page.partition(f"### sealtape {name}\n")[2].partition("\n### ")[0]
        assert section, name
        for action in parser._actions:
            for option in action.option_strings:
                assert option in section or option in ("-h", "--help"), f"{name} {option}"
            for choice in action.choices or ():
                assert str(choice) in section, f"{name} {action.dest}: {choice}"
        assert "| `` |" not in section, name
