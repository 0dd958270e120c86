"""A deployment that was recorded, sealed and indexed, and the command line run in this process."""

import asyncio
import io
import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import put_target
from sealtape.indexer.cli.main import main
from sealtape.indexer.node import rebuild_index
from tests.factories.deployments import make_site, seal

URL = "shop=postgresql://app:hunter2@127.0.0.1:5433/shopdb"


@pytest.fixture(scope="module")  # after some minutes, what is not in the log is a finding
def recorded(tmp_path_factory):
    """The site and its sessions: one of three statements, one live, one of another user."""
    site = make_site(tmp_path_factory.mktemp("cli") / "site")
    put_target(site.folder, URL)
    found = [
        site.session(commands=3),
        site.session(commands=1, close=None),
        site.session(commands=2, user="grace", statements=["select 7 from secrets"] * 2),
    ]

    async def fill():
        await seal(site, found)
        await rebuild_index(site.settings)

    asyncio.run(fill())
    return SimpleNamespace(site=site, closed=found[0], live=found[1], grace=found[2])


@pytest.fixture
def copied(recorded, tmp_path):
    """A copy of it elsewhere, to change."""
    shutil.copytree(recorded.site.folder, tmp_path / "elsewhere/copy")
    return recorded.site.moved(tmp_path / "elsewhere/copy")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run one command; the answer has `code`, `out`, `err` and `json` or `lines`."""
    monkeypatch.delenv("SEALTAPE_CONFIG", raising=False)
    monkeypatch.delenv("SEALTAPE_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Answer(code=code, out=out, err=err)

    return call


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that is shown every step of long work."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(output, "_PROGRESS_EVERY_S", 0.0)
    monkeypatch.setattr(output, "Progress", partial(output.Progress, stream=shown))
    return shown


class Answer(SimpleNamespace):
    @property
    def json(self):
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        return json.loads(self.err.splitlines()[-1])["error"]


@pytest.fixture
def at(run, recorded):
    """Run one command on the recorded deployment."""

    def call(name, *words):
        return run("-c", recorded.site.config, name, *words)

    return call
