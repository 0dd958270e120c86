"""`make demo`, as a person runs it."""

import shutil
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


def test_the_demo_does_all_it_promises(folder):
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/demo/demo.py"], capture_output=True, text=True, check=False,
        cwd=folder, env=client_environment(TMPDIR=str(folder), KEEP=""), timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED" in done.stdout
    assert "TAMPERED   frame" in done.stdout
