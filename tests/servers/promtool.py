"""promtool: Prometheus' own checker of rules and configurations, from Debian's package."""

import shutil
from pathlib import Path

import pytest

from tests.servers import availability, cache

PACKAGE = "prometheus"


def _build(folder):
    if found := shutil.which("promtool"):
        shutil.copy(found, folder / "promtool")
        return
    cache.run("Debian", "apt-get", "download", PACKAGE, cwd=folder)
    (package,) = folder.glob("*.deb")
    cache.run("Debian", "dpkg-deb", "-x", package, folder / "package", cwd=folder)
    (folder / "package/usr/bin/promtool").rename(folder / "promtool")
    shutil.rmtree(folder / "package")
    package.unlink()


_NEEDS = () if shutil.which("promtool") else ("apt-get", "dpkg-deb")
cache.register(cache.Recipe("promtool", "debian", _build, needs=_NEEDS))


class Promtool:
    """What availability asks for."""

    KIND = "promtool"
    PARTS = ("promtool",)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program: the one on the PATH, else the cache's."""
    found = shutil.which("promtool")
    if found is not None:
        return Path(found)
    if availability.mode() == "containers":
        pytest.skip(f"{availability.SKIPPED}promtool, and SEALTAPE_SERVERS=containers")
    availability.need(Promtool)
    return cache.folder("promtool") / "promtool"
