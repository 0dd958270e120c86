"""Whether a test gets its server: SEALTAPE_SERVERS=local|containers|off, by default what there is.

local       child processes; a test whose server cannot be had fails
containers  the official images, by testcontainers; a test whose server cannot be had fails
off         every test that needs a server is skipped
(unset)     like `local` for the servers that are in the cache; the tests of the others are skipped
"""

import os

import pytest

from tests.servers import cache, containers

MODES = ("local", "containers", "off", "")
SKIPPED = "needs a server: "


def mode() -> str:
    """The mode of this run."""
    chosen = os.environ.get("SEALTAPE_SERVERS", "")
    if chosen not in MODES:
        raise pytest.UsageError(f"SEALTAPE_SERVERS={chosen}: it is local, containers, off or unset")
    return chosen


def need(*kinds) -> None:
    """Skip or fail the test that asked unless servers of these classes can be started."""
    chosen = mode()
    if chosen == "off":
        pytest.skip(f"{SKIPPED}{kinds[0].KIND}, and SEALTAPE_SERVERS=off")
    for part in [part for kind in kinds for part in kind.PARTS]:
        if chosen == "containers":
            if lack := containers.lack(part):
                pytest.fail(f"{SKIPPED}{lack}", pytrace=False)
        elif lack := cache.RECIPES[part].lack():
            if chosen == "local":
                pytest.fail(f"{SKIPPED}{lack}. Run `make fetch-servers`.", pytrace=False)
            pytest.skip(f"{SKIPPED}{lack}")
