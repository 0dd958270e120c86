"""One command in, one exit code out."""

import json
import os
import subprocess
import sys

import pytest

from sealtape import __version__
from sealtape.indexer.cli import sessions
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


def test_an_interrupt(run, recorded, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "run", interrupted)
    assert run("-c", recorded.site.config, "sessions").code == 130


def test_what_follows_two_dashes(run, recorded):
    config = recorded.site.config
    assert run("-c", config, "search", "--json", "--", "-user:ada").code == 0
    assert run("-c", config, "search", "--", "--json").code == 0, "it is a query"
    assert run("-c", config, "status", "--", "extra").code == 64


def test_a_reader_that_leaves_early_is_no_error(recorded):
    """`sealtape sessions | head`, with a pipe that is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", "-c", recorded.site.config, "sessions", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 0


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
