"""`make demo` and `make demo-servers`, as a person runs them."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.servers.postgres import client_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder():
    """A temporary folder that PostgreSQL's own user may enter."""
    made = Path(tempfile.mkdtemp(prefix="sealtape-test-demo-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def recipe(*words):
    """The commands that `make` runs for a target, with this interpreter."""
    make = ["make", "--dry-run", "--no-print-directory", f"PY={sys.executable}", *words]
    done = subprocess.run(make, capture_output=True, text=True, check=True, cwd=ROOT)
    setup, *commands = done.stdout.splitlines()
    assert setup == "bash deploy/setup.sh"  # which is how this interpreter came to be
    return "\n".join(commands)


def run(folder, target):
    """The demo's output, once it has succeeded; it is not kept where somebody says KEEP=0."""
    done = subprocess.run(
        ["sh", "-ec", recipe(target, "KEEP=0")], capture_output=True, text=True,
        check=False, cwd=ROOT, env=client_environment(TMPDIR=str(folder)), timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED" in done.stdout
    assert "TAMPERED   frame" in done.stdout
    assert done.stdout.count("TAMPERED  frame 2: ") == 2
    assert "enough witnesses cosigned it" in done.stdout
    return done.stdout


def test_the_demo_does_all_it_promises(folder):
    assert "deployment" in run(folder, "demo")


@pytest.mark.timeout(240)
def test_the_demo_on_servers(folder, real_stores):
    shown = run(folder, "demo-servers")
    for name in ("Kafka", "S3", "PostgreSQL", "OpenSearch"):
        assert f"    {name} " in shown
    assert "seg/v1/tenant=main" in shown
    assert "sealtape_ledger.session 3" in shown


def interrupted(folder, after, **environment):
    """The demo's exit code when it is interrupted after it has said something."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "deploy/demo/demo.py"], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, cwd=folder,
        env=client_environment(TMPDIR=str(folder), **environment),
    )  # fmt: skip
    with process:
        for line in process.stdout:
            if after in line:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        return process.wait(60)


def test_who_interrupts_it_has_not_seen_it_all(folder):
    assert interrupted(folder, "starting the gateway", KEEP="1") == 130


def test_who_keeps_it_has(folder):
    assert interrupted(folder, "press Ctrl-C to stop", KEEP="1") == 0


def test_an_argument_that_there_is_not(folder):
    program = [sys.executable, ROOT / "deploy/demo/demo.py", "--server"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 1
    assert "usage: demo.py [--servers]" in done.stderr
