"""`sealtape-capture` as a process."""

import asyncio
import json
import signal
import sys

import pytest

from sealtape.capture.__main__ import build_parser, loop_factory, main, settings_at
from sealtape.schemas.errors import SettingsError
from tests.capture.node_lab import NodeLab, node
from tests.capture.postgres.gateway_world import psql
from tests.servers.postgres import shared_server


async def test_one_worker(tmp_path):
    lab = NodeLab(tmp_path, shared_server())
    async with node(lab) as (process, ready):
        assert ready["ready"] is True
        assert ready["config"] == str(lab.path)
        assert ready["targets"] == ["shop"]
        code, out, err = await psql(lab.dsn(ready["listeners"]["postgres"]), "-c", "select 1")
        assert (code, out) == (0, "1\n"), err
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


def test_errors_name_themselves_and_give_the_exit_code(tmp_path, capsys):
    assert main(["-c", str(tmp_path / "none.toml")]) == 64
    assert "There is no settings file" in capsys.readouterr().err
    (tmp_path / "sealtape.toml").write_bytes(b"\xff")
    assert main(["-c", str(tmp_path), "--json"]) == 64
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "settings"


def test_a_node_is_checked_before_it_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "scram-secret")
    lab = NodeLab(tmp_path, shared_server())
    for path in (tmp_path / "keys").iterdir():
        path.chmod(0o600)
    assert main(["-c", str(lab.path), "--check"]) == 0
    assert "0 errors" in capsys.readouterr().out
    (tmp_path / "keys/node.key").unlink()
    assert main(["-c", str(lab.path), "--check", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    (wrong,) = [check for check in told["checks"] if check["level"] == "error"]
    assert wrong["name"] == "keys: node"
    assert not (tmp_path / "spool").exists()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "docs/connect.md" in text
    assert "exit codes" in text
    assert "--worker" not in text
    assert build_parser().prog == "sealtape-capture"


def test_the_loop_is_a_setting(monkeypatch):
    import uvloop

    assert loop_factory("auto") is uvloop.new_event_loop
    assert loop_factory("asyncio") is asyncio.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory("auto") is asyncio.new_event_loop
    with pytest.raises(SettingsError):
        loop_factory("uvloop")


def test_a_node_may_be_named_by_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "sealtape.toml"
    path.write_text('[deployment]\nnode = "written"\n')
    assert settings_at(path).deployment.node == "written"
    monkeypatch.setenv("SEALTAPE_NODE", "sealtape-capture-1")
    assert settings_at(path).deployment.node == "sealtape-capture-1"
