"""Deployment folders: targets from the command line, and what a running node leaves."""

import json
import os
import stat
import subprocess
import sys

import pytest

from sealtape.indexer.cli.deployment import (
    create,
    parse_target,
    private_file,
    put_target,
    read_runtime,
    write_runtime,
)
from sealtape.schemas.errors import DeploymentExists, StoreError, UsageError
from sealtape.schemas.settings import load_settings
from sealtape.schemas.trust import parse_node_key, parse_trust


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "lab", development=True)
    return tmp_path / "lab"


def target_of(folder, name):
    text = (folder / "sealtape.toml").read_text()
    return load_settings(text, base=str(folder)).targets[name]


def test_the_trust_file_names_the_node(folder):
    (trusted,) = parse_trust((folder / "trust.toml").read_text()).nodes
    assert trusted.vkey == parse_node_key((folder / "keys/node.key").read_text()).vkey


def test_a_second_deployment_is_refused(folder):
    with pytest.raises(DeploymentExists):
        create(folder, development=False)


def test_private_files_are_never_overwritten(tmp_path):
    private_file(tmp_path / "key", "one")
    with pytest.raises(FileExistsError):
        private_file(tmp_path / "key", "two")
    assert (tmp_path / "key").read_text() == "one"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "expected", "password"),
    [
        ("postgresql://app:pw@db:5433/x", ("db:5433", "x", "app", "disable"), "pw"),
        ("postgres://app@db", ("db:5432", "app", "app", "disable"), ""),
        (
            "postgresql://a%40b:p%2Fw%20%23@[::1]:6000/d%20e",
            ("[::1]:6000", "d e", "a@b", "disable"),
            "p/w #",
        ),
        ("postgresql://u:p@h/d?sslmode=verify-full", ("h:5432", "d", "u", "verify-full"), "p"),
        ("postgresql://u:a=b@h/d?sslmode=require", ("h:5432", "d", "u", "require"), "a=b"),
    ],
)
def test_addresses(url, expected, password):
    name, target, secret = parse_target("shop=" + url)
    assert name == "shop"
    assert (target["address"], target["database"], target["user"], target["tls"]) == expected
    assert secret == password


@pytest.mark.parametrize(
    "argument",
    [
        "shop",
        "shop=",
        "=postgresql://u@h/d",
        "Shop Floor=postgresql://u@h/d",
        "shop=mysql://u:hunter2@h/d",
        "shop=postgresql://h/d",
        "shop=postgresql://u:hunter2@/d",
        "shop=postgresql://u:hunter2@h:port/d",
        "shop=postgresql://u:hunter2@h:99999/d",
        "shop=postgresql://u:hunter2#@h/d",
        "shop=postgresql://u:#hunter2@h/d",
        "shop=postgresql://u:hunter2@[::1/d",
        "shop=postgresql://u:hunter2@h/d?sslmode=prefer",
        "shop=postgresql://u:hunter2@h/d?connect_timeout=3",
        "shop=postgresql://u:hunter2@h/d#x",
    ],
)
def test_what_is_no_address_is_refused_without_showing_the_password(folder, argument):
    before = (folder / "sealtape.toml").read_bytes()
    with pytest.raises(UsageError) as caught:
        put_target(folder, argument)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None or "hunter2" not in str(caught.value.__cause__)
    assert (folder / "sealtape.toml").read_bytes() == before
    assert not (folder / "secrets").exists()


def test_the_password_is_in_a_file_of_its_own(folder):
    assert put_target(folder, "shop=postgresql://app:hunter2@db/shopdb") == "shop"
    assert "hunter2" not in (folder / "sealtape.toml").read_text()
    secret = folder / "secrets/shop.password"
    assert secret.read_text() == "hunter2\n"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert target_of(folder, "shop").address == "db:5432"
    assert target_of(folder, "shop").groups == ("*",)


def test_another_address_replaces_its_own_lines_only(folder):
    config = folder / "sealtape.toml"
    config.chmod(0o640)
    original = config.read_text()
    put_target(folder, "shop=postgresql://app:one@db/shopdb")
    put_target(folder, "lager=postgresql://app@db/lager")
    mine = '\n[targets.mine]\naddress = "x:1"\ndatabase = "d"\nuser = "u"  # kept\ngroups = ["*"]\n'
    config.write_text(config.read_text() + mine)
    before = config.read_text()
    put_target(folder, "shop=postgresql://other:two@elsewhere:7/shopdb")
    after = config.read_text()
    assert after.startswith(original.rstrip("\n"))
    assert after.endswith(mine)
    assert target_of(folder, "shop").user == "other"
    assert target_of(folder, "lager").user == "app"
    assert (folder / "secrets/shop.password").read_text() == "two\n"
    put_target(folder, "shop=postgresql://app:one@db/shopdb")
    assert config.read_text() == before, "there and back again"
    assert stat.S_IMODE(config.stat().st_mode) == 0o640


def test_the_same_address_changes_nothing(folder):
    put_target(folder, "shop=postgresql://app:one@db/shopdb")
    before = (folder / "sealtape.toml").read_bytes()
    put_target(folder, "shop=postgresql://app:one@db/shopdb")
    assert (folder / "sealtape.toml").read_bytes() == before


def test_a_target_written_by_hand_is_not_doubled(folder):
    config = folder / "sealtape.toml"
    config.write_text(
        config.read_text()
        + '\n[targets.shop]\naddress = "x:1"\ndatabase = "d"\nuser = "u"\ngroups = ["*"]\n'
    )
    before = config.read_bytes()
    with pytest.raises(UsageError, match="does not fit"):
        put_target(folder, "shop=postgresql://app:pw@db/shopdb")
    assert config.read_bytes() == before
    assert not (folder / "secrets").exists()


def test_a_lost_end_line_costs_nothing_that_follows(folder):
    put_target(folder, "shop=postgresql://app@db/shopdb")
    config = folder / "sealtape.toml"
    text = config.read_text().replace("# end of target shop\n", "")
    config.write_text(
        text + '\n[targets.mine]\naddress = "x:1"\ndatabase = "d"\nuser = "u"\ngroups = ["*"]\n'
    )
    before = config.read_bytes()
    with pytest.raises(UsageError, match="lost the line"):
        put_target(folder, "shop=postgresql://app@other/shopdb")
    assert config.read_bytes() == before


def test_without_settings_a_target_has_no_place(tmp_path):
    with pytest.raises(StoreError):
        put_target(tmp_path, "shop=postgresql://app@db/shopdb")


def test_addresses_of_a_running_node(tmp_path):
    assert read_runtime(tmp_path) == {}
    path = write_runtime(tmp_path, {"postgres": "127.0.0.1:5"})
    assert read_runtime(tmp_path) == {"postgres": "127.0.0.1:5"}
    assert json.loads(path.read_text())["pid"] == os.getpid()


def test_addresses_of_a_node_that_is_gone_do_not_count(tmp_path):
    path = write_runtime(tmp_path, {"postgres": "127.0.0.1:5"})
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps({"pid": gone.pid, "listeners": {"postgres": "127.0.0.1:5"}}))
    assert read_runtime(tmp_path) == {}


def test_a_node_that_runs_as_another_user_runs(tmp_path, monkeypatch):
    write_runtime(tmp_path, {"postgres": "127.0.0.1:5"})

    def not_permitted(process, number):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.kill", not_permitted)
    assert read_runtime(tmp_path) == {"postgres": "127.0.0.1:5"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x", "listeners": {}}', "\xff"])
def test_a_runtime_file_that_makes_no_sense(tmp_path, text):
    path = write_runtime(tmp_path, {})
    path.write_bytes(text.encode("latin-1"))
    assert read_runtime(tmp_path) == {}
