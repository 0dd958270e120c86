import importlib.util

import pytest

from sealtape.capture.checks import Report, check_capture, check_settings
from tests.capture.checks.found import levels, one
from tests.capture.checks.test_targets import target


async def test_a_deployment_that_can_start(deployment, postgres_server, monkeypatch):
    monkeypatch.setenv("scram-secret", "scram-secret")
    checks = await check_capture(deployment.settings(more=target(postgres_server.port)))
    report = Report(checks)
    assert report.errors == 0, list(report.lines())
    assert {"keys: node", "spool: folder", "listener: address", "listener: certificate",
            "capture: metrics", "identity: keys", "target shop"} <= set(levels(checks))  # fmt: skip


async def test_everything_is_looked_at_though_much_is_wrong(deployment):
    for name in ("node.key", "tls.crt", "jwks.json"):
        (deployment.keys / name).unlink()
    checks = await check_capture(deployment.settings(more=target(1)))
    wrong = {name for name, level in levels(checks).items() if level == "error"}
    assert {"keys: node", "listener: certificate", "identity: keys", "target shop"} <= wrong


@pytest.mark.parametrize(("loop", "level"), [("auto", "warning"), ("uvloop", "error")])
async def test_without_uvloop(deployment, monkeypatch, loop, level):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "uvloop" else find(n))
    settings = deployment.settings(("[capture]\n", f'[capture]\nloop = "{loop}"\n'))
    checks = [c for c in await check_capture(settings) if c.name == "node: event loop"]
    one(checks, level, "uvloop")


def test_what_the_settings_warn_of(deployment):
    more = (
        '[targets.x]\naddress = "127.0.0.1:1"\ndatabase = "x"\nuser = "x"\npassword = "hunter2"\n'
    )
    checks = check_settings(deployment.settings(more=more + 'groups = ["*"]\n'))
    assert "hunter2" not in one(checks, "warning", "targets.x.password").message
    assert "1 targets" in one(checks, "ok", "dev").message
