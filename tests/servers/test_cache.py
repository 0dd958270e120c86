import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.servers import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEALTAPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "RECIPES", {})
    return tmp_path / "cache"


def _recipe(build, **options):
    return cache.register(cache.Recipe("thing", "1.0", build, **options))


def test_a_thing_is_fetched_once_and_whole(folder):
    calls = []

    def build(into):
        calls.append(into)
        assert not (folder / "thing-1.0").exists()
        (into / "file").write_text("x")

    recipe = _recipe(build)
    assert "not in the cache" in recipe.lack()
    with pytest.raises(cache.FetchError, match="make fetch-servers"):
        cache.folder("thing")
    assert cache.fetch("thing") == cache.fetch("thing") == cache.folder("thing")
    assert len(calls) == 1
    assert (folder / "thing-1.0/file").read_text() == "x"
    assert recipe.lack() == ""


def test_what_fails_leaves_nothing_behind(folder):
    def build(into):
        (into / "half").write_text("x")
        cache.run("Somewhere", "sh", "-c", "echo no route to host; exit 7", cwd=into)

    _recipe(build)
    with pytest.raises(cache.FetchError) as failed:
        cache.fetch("thing")
    assert "no route to host" in str(failed.value)
    assert "make fetch-servers` again" in str(failed.value)
    assert [path for path in folder.iterdir() if not path.name.endswith(".lock")] == []


def test_what_a_killed_fetch_left_is_cleared_away(folder):
    folder.mkdir()
    (folder / ".thing-1.partial").mkdir()
    _recipe(lambda into: (into / "file").write_text("x"))
    cache.fetch("thing")
    assert not (folder / ".thing-1.partial").exists()


def test_a_program_that_is_not_there_is_named():
    _recipe(lambda into: None, needs=("no-such-program",))
    with pytest.raises(cache.FetchError, match="thing needs no-such-program"):
        cache.fetch("thing")


def test_two_who_fetch_at_once_fetch_once():
    calls = []
    both = threading.Barrier(2)

    def build(into):
        calls.append(into)
        (into / "file").write_text("x")

    _recipe(build)

    def fetch():
        both.wait()
        cache.fetch("thing")

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_long_run_shows_that_it_is_alive(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cache, "BEAT_S", 0.05)
    cache.run("Slow", "sleep", "0.4", cwd=tmp_path)
    assert "servers: Slow: still at work after 0 s: 0.4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SEALTAPE_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/sealtape"),
        ({"HOME": "/h"}, "/h/.cache/sealtape"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("SEALTAPE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.root() == Path(expected)


def test_the_listing_says_what_each_thing_lacks(tmp_path):
    listed = subprocess.run(
        [sys.executable, "-m", "tests.servers", "list"],
        env={**os.environ, "SEALTAPE_CACHE": str(tmp_path)}, capture_output=True, text=True,
        check=True, cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip
    assert f"cache: {tmp_path}" in listed
    assert re.search(r"^kafka +\S+ +kafka \S+ is not in the cache$", listed, re.MULTILINE)
