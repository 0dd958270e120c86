"""The composition's file, and what its service `prepare` draws."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.house import sources

__all__ = ["COMPOSE", "DEPLOY", "SERVICES", "TEXT", "prepare"]

DEPLOY = sources.ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def prepare(folder):
    """Run `prepare` as its service does, in a folder that has what is mounted there."""
    place = folder / "prepare"
    if not place.exists():
        shutil.copytree(DEPLOY / "compose", place)
        shutil.copy(DEPLOY / "demo/shop.sql", place)
        shutil.copy(sources.ROOT / "tests/servers/realm.json", place)
        for mount in SERVICES["prepare"]["volumes"]:
            if mount.startswith("conf-"):
                (folder / mount.split(":")[1].lstrip("/")).mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, place / "prepare.py", folder / "out"],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"
