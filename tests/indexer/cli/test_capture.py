"""`sealtape capture`: the same as `sealtape-capture`."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.factories.deployments import make_site


@pytest.mark.parametrize("how", ["option", "variable"])
def test_it_listens_and_drains(tmp_path, how):
    site = make_site(tmp_path / "site")
    words = ["-c", str(site.config)] if how == "option" else []
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sealtape", *words, "capture", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ({} if words else {"SEALTAPE_CONFIG": str(site.config)}),
    )
    with process:
        line = process.stdout.readline()
        ready = json.loads(line) if line else pytest.fail(process.communicate()[1])
        assert ready["ready"] is True
        assert ready["config"] == str(site.config)
        assert ready["listeners"]["postgres"].startswith("127.0.0.1:")
        assert ready["targets"] == []
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        err = process.stderr.read()
        assert process.wait(60) == 0, err


def test_no_settings(run):
    answer = run("capture", "--json")
    assert answer.code == 64
    assert answer.error["code"] == "settings"
