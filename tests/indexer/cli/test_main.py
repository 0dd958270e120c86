"""One command in, one exit code out."""

import json
import os
import subprocess
import sys

import pytest

from sealtape import __version__
from sealtape.indexer.cli import sessions
from sealtape.indexer.cli.deployment import write_runtime
from sealtape.indexer.cli.main import COMMANDS, build_parser, command_module
from sealtape.schemas.errors import ERRORS, Refused, SealtapeError, StoreBusy


def test_help_and_version(run):
    answer = run("--help")
    assert answer.code == 0
    for module in map(command_module, COMMANDS):
        assert module.NAME in answer.out
        assert run(module.NAME, "--help").code == 0
    assert run("--version").out == f"sealtape {__version__}\n"


def test_a_command_is_the_module_of_its_name():
    assert [command_module(name).NAME for name in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("words", [["token", "--help"], ["-c", "x", "token", "--help"]])
def test_a_command_imports_no_other(words):
    code = (
        "import sys; from sealtape.indexer.cli.main import main; "
        "main(sys.argv[1:]); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert "sealtape.indexer.cli.token" in done.stdout
    assert "sealtape.indexer.cli.verify" not in done.stdout


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["status", "--nonsense"], ["verify", "--trust"], ["dev"]]
)
def test_what_cannot_be_parsed_is_64_and_never_a_verdict(run, words):
    answer = run(*words)
    assert answer.code == 64
    assert answer.out == ""
    assert answer.err.startswith("sealtape: ")
    assert "--help` shows what there is." in answer.err


@pytest.mark.parametrize(
    "words", [["search", "--json"], ["nonsense", "--json"], ["show", "--json", "a", "--limit", "x"]]
)
def test_what_cannot_be_parsed_is_told_to_programs_as_any_error_is(run, words):
    assert run(*words).error["code"] == "usage"


def test_every_command_takes_config_and_json():
    for module in map(command_module, COMMANDS):
        sub = build_parser()._subparsers._group_actions[0].choices[module.NAME]
        options = {option for action in sub._actions for option in action.option_strings}
        assert {"-c", "--config", "--json", "--help"} <= options, module.NAME
        assert module.HELP[0].islower()
        assert not module.HELP.endswith(".")


def test_the_config_may_stand_on_either_side(run, recorded):
    config = recorded.site.config
    before = run("-c", config, "sessions", "--json").out
    after = run("sessions", "-c", config, "--json").out
    assert before == after
    assert before
    assert run("-c", "nowhere", "sessions", "-c", config, "--json").out == before


# Refused is what capture answers a client; it never comes to the command line.
@pytest.mark.parametrize("error", [each for each in ERRORS if each is not Refused])
def test_errors_become_exit_codes(run, recorded, monkeypatch, error):
    def fail(args):
        if issubclass(error, StoreBusy):
            raise error("it went wrong", hint="do this", retry_after_s=1.0)
        raise error("it went wrong", hint="do this")

    monkeypatch.setattr(sessions, "run", fail)
    plain = run("-c", recorded.site.config, "sessions")
    assert (plain.code, plain.out) == (error.exit_code, "")
    assert plain.err == "sealtape: it went wrong do this\n"
    answer = run("-c", recorded.site.config, "sessions", "--json")
    assert answer.error == {
        "code": error.code,
        "message": "it went wrong do this",
        "exit_code": error.exit_code,
    }


def test_exit_codes_of_errors_are_no_verdicts():
    assert not {error.exit_code for error in ERRORS} & {0, 1, 2, 3}
    assert issubclass(ERRORS[0], SealtapeError)


def test_what_nobody_foresaw_is_no_verdict(run, recorded, monkeypatch):
    def fail(args):
        raise ZeroDivisionError("password=hunter2")

    monkeypatch.setattr(sessions, "run", fail)
    plain = run("-c", recorded.site.config, "sessions")
    assert (plain.code, plain.out) == (70, "")
    assert "test_main.py" in plain.err, "the stack is told"
    assert "ZeroDivisionError" in plain.err.splitlines()[-1]
    answer = run("-c", recorded.site.config, "sessions", "--json")
    assert (answer.error["code"], answer.error["exit_code"]) == ("internal", 70)
    assert len(answer.err.splitlines()) == 1
    assert "hunter2" not in plain.err + answer.err


def test_an_interrupt(run, recorded, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "run", interrupted)
    assert run("-c", recorded.site.config, "sessions").code == 130


def test_the_folder_of_the_settings_may_have_the_name_of_a_command(run, copied):
    write_runtime(copied.folder, {"postgres": "127.0.0.1:6543"})
    folder = copied.folder.rename("dev")
    words = ["-c", folder, "connect", "shop", "--", "printenv", "PGDATABASE"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("shop\n", 0), done.stderr


def test_what_follows_two_dashes(run, recorded):
    config = recorded.site.config
    assert run("-c", config, "search", "--json", "--", "-user:ada").code == 0
    assert run("-c", config, "search", "--", "--json").code == 0, "it is a query"
    assert run("-c", config, "status", "--", "extra").code == 64


def ended(*words, stdout, **environment):
    """Run a command as a process that writes into `stdout`; returns its exit code and errors."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    )
    return done.returncode, done.stderr


@pytest.fixture
def closed_pipe():
    """A pipe whose reader has left before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("words", [["sessions", "--json"], ["--help"]])
def test_a_reader_that_leaves_early_is_no_error(recorded, closed_pipe, words):
    """`sealtape sessions | head`."""
    code, errors = ended("-c", recorded.site.config, *words, stdout=closed_pipe)
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_leaves_early_changes_no_verdict(copied, closed_pipe, form):
    """`set -o pipefail; sealtape verify --all | head`."""
    words = ["-c", copied.config, "verify", "--all", *form]
    whole = ended(*words, stdout=subprocess.DEVNULL)[0]
    assert whole == 2, "a session is live"
    assert ended(*words, stdout=closed_pipe) == (whole, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("words", [["verify", "--all"], ["verify", "--all", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_no_verdict(recorded, words):
    with open("/dev/full", "wb") as full:
        code, errors = ended("-c", recorded.site.config, *words, stdout=full)
    assert code == 74
    assert "No space left on device" in errors
    assert len(errors.splitlines()) == 1


def test_output_of_another_encoding(copied, tmp_path):
    """Text is shown as well as it can be, and JSON stays JSON."""
    write_runtime(copied.folder, {"postgres": "127.0.0.1:6543"})
    words = ["-c", copied.config, "connect", "shop", "--user", "é☃"]
    for encoding in ("ascii", "latin-1", "utf-8"):
        for form in ([], ["--json"]):
            with (tmp_path / "out").open("wb") as out:
                done = ended(*words, *form, stdout=out, PYTHONIOENCODING=encoding, PYTHONUTF8="1")
            assert done == (0, "")
            text = (tmp_path / "out").read_text(encoding)
            assert not form or "//é☃@" in json.loads(text)["dsn"]


def test_closed_output(recorded):
    shell = f"exec {sys.executable} -P -m sealtape -c {recorded.site.config} sessions >&-"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_as_a_process(recorded):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", "sessions", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SEALTAPE_CONFIG": str(recorded.site.config)},
        timeout=60,
    )
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
