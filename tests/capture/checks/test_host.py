import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sealtape.capture.checks import host
from sealtape.capture.checks.host import check_host
from tests.capture.checks.found import levels, one


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(host, "SLOW_SYNC_S", 3600)


def test_a_host_with_room(deployment, fast):
    before = sorted(deployment.folder.rglob("*"))
    checks = check_host(deployment.settings(("[capture]\n", "[capture]\nspool_limit = 4096\n")))
    assert levels(checks) == dict.fromkeys(
        ("spool: folder", "spool: room", "node: run folder", "node: open files"), "ok"
    )
    assert sorted(deployment.folder.rglob("*")) == before  # nothing is made by looking


def test_a_slow_disk_is_said(deployment, monkeypatch):
    monkeypatch.setattr(host, "SLOW_SYNC_S", -1)
    assert levels(check_host(deployment.settings()))["spool: folder"] == "warning"


def test_a_spool_that_is_no_folder(deployment, fast):
    (deployment.folder / "spool").write_text("")
    one(check_host(deployment.settings()), "error", "capture.spool")


LOOK = """
import os, sys
from sealtape.capture.checks.host import check_host
from sealtape.schemas.settings import load_settings
settings = load_settings("", base=sys.argv[1])
if os.getuid() == 0:  # root may write anywhere, so somebody else looks
    os.setgroups([])
    os.setuid(65534)
print([check.name for check in check_host(settings) if check.level == "error"])
"""


def test_a_folder_that_cannot_be_written():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        done = subprocess.run(
            [sys.executable, "-P", "-c", LOOK, folder], capture_output=True, text=True, check=False
        )
    assert done.stdout == "['spool: folder', 'node: run folder']\n", done.stderr


def test_too_little_room(deployment, fast):
    def level(size):
        text = f'[capture]\nspool_limit = "{size >> 10}KiB"\n'
        return levels(check_host(deployment.settings(("[capture]\n", text))))["spool: room"]

    free = shutil.disk_usage(deployment.folder).free
    assert level(free // 2) == "ok"
    assert level(free * 2) == "warning"
    assert level(free * 20) == "error"


def test_memory_is_no_disk(deployment, production, monkeypatch, fast):
    monkeypatch.setattr(host, "_kind", lambda _: "tmpfs")
    assert levels(check_host(deployment.settings()))["spool: folder"] == "ok"
    assert levels(check_host(production.settings()))["spool: folder"] == "error"


def test_the_kind_of_a_file_system_is_known_where_linux_tells():
    if not os.path.exists("/proc/self/mounts"):
        pytest.skip("not Linux")
    assert host._kind(Path("/proc/self")) == "proc"
    assert host._kind(Path("/")) not in {"", "proc"}


def test_too_few_descriptors(deployment, fast):
    many = deployment.settings(("[capture]\n", "[capture]\nmax_connections = 1000000\n"))
    few = deployment.settings(("[capture]\n", "[capture]\nmax_connections = 1\n"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    expected = "ok" if limit >= 2_000_200 or limit == resource.RLIM_INFINITY else "warning"
    assert levels(check_host(many))["node: open files"] == expected
    assert levels(check_host(few))["node: open files"] == "ok"


def test_files_that_vanish_while_they_are_counted(deployment, monkeypatch):
    (deployment.folder / "spool").mkdir()
    (deployment.folder / "spool/a").write_bytes(b"12345")
    gone = deployment.folder / "spool/gone"
    monkeypatch.setattr(Path, "rglob", lambda self, _: [gone, *self.iterdir()])
    assert host._size(deployment.folder / "spool") == 5
