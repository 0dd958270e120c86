"""Where the settings come from."""

import argparse

import pytest

from sealtape.indexer.cli.options import (
    config_path,
    inside,
    login_name,
    positive,
    read_settings,
    settings_at,
)
from sealtape.schemas.errors import SettingsError, UsageError


def test_the_option_wins_then_the_variable_then_the_folder(run, tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        run("init", name, "--dev")
    monkeypatch.setenv("SEALTAPE_CONFIG", str(tmp_path / "two/sealtape.toml"))
    monkeypatch.chdir(tmp_path / "three")
    assert config_path(str(tmp_path / "one/sealtape.toml")).parent.name == "one"
    assert config_path(None).parent.name == "two"
    monkeypatch.delenv("SEALTAPE_CONFIG")
    assert config_path(None).parent.name == "three"
    assert config_path(None).is_absolute()


def test_a_folder_stands_for_the_file_in_it(run, tmp_path):
    run("init", "lab", "--dev")
    assert config_path("lab") == tmp_path / "lab/sealtape.toml"


def test_no_settings(run, tmp_path):
    for words in (["status"], ["-c", "nowhere", "status"], ["-c", str(tmp_path), "status"]):
        answer = run(*words, "--json")
        assert answer.code == 64
        assert answer.error["code"] == "settings"
        assert "sealtape init" in answer.error["message"]


def test_settings_that_cannot_be_read(tmp_path):
    path = tmp_path / "sealtape.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        settings_at(path)


def test_an_unknown_key_names_the_nearest(run, tmp_path):
    run("init", "lab", "--dev")
    path = tmp_path / "lab/sealtape.toml"
    path.write_text(path.read_text().replace("segment_s", "segment_secs"))
    answer = run("-c", "lab", "status")
    assert answer.code == 64
    assert "segment_s" in answer.err


def test_warnings_go_to_standard_error(run, tmp_path, capsys):
    run("init", "lab", "--dev")
    path = tmp_path / "lab/sealtape.toml"
    target = '\n[targets.x]\naddress = "h:1"\ndatabase = "d"\nuser = "u"\ngroups = ["*"]\n'
    target += 'password = "hunter2"\n'
    path.write_text(path.read_text() + target)
    settings = read_settings(argparse.Namespace(config=str(path)))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("warning: ")
    assert "hunter2" not in err
    assert inside(settings, "keys/node.key") == tmp_path / "lab/keys/node.key"
    assert str(inside(settings, "/abs")) == "/abs"


def test_positive():
    assert positive("3") == 3
    for text in ("0", "-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            positive(text)


@pytest.mark.parametrize("command", ["sessions", "search", "show"])
@pytest.mark.parametrize("limit", ["0", "-3", "x"])
def test_a_limit_that_is_none(at, command, limit):
    assert at(command, "x", "--limit", limit).code == 64


def test_who_runs_it_may_have_no_name(monkeypatch):
    """A container that runs under a number."""
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 3)
    with pytest.raises(UsageError, match="Say it with --user"):
        login_name("--user")
    monkeypatch.setenv("USER", "ada")
    assert login_name("--user") == "ada"
