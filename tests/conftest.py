"""Guards for all tests, their order, and the real servers that they can ask for."""

import hashlib
import importlib.abc
import itertools
import signal
import sys

import hypothesis

from tests.servers.registry import MODULES

LAST_JOURNEY = 0.8  # the share of the other files behind which none begins
ROOMS = {"schemas", "capture", "ingest", "indexer"}


class _BareRooms(importlib.abc.MetaPathFinder):
    """Refuses `import schemas`: in a checkout it resolves, to a second copy of every class."""

    def find_spec(self, fullname, path=None, target=None):
        if path is None and fullname in ROOMS:
            raise ImportError(f"import sealtape.{fullname}, not {fullname}")


sys.meta_path.insert(0, _BareRooms())

# Who is started in the background by a script inherits that Ctrl-C is ignored, and so would every
# program that a test starts and ends by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("sealtape", deadline=None, print_blob=True)
hypothesis.settings.load_profile("sealtape")

pytest_plugins = ["tests.servers.plugin", *MODULES]


def pytest_collection_modifyitems(config, items):
    """In parallel, spread the journeys, which wait, over the files, which work.

    Each worker takes the next file. Were the longest last, the others would end long before; were
    all together, each would wait for the others' servers.
    """
    if not hasattr(config, "workerinput"):
        return
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    journeys = [path for path in files if path.parent.name == "journeys"]
    others = sorted(files.keys() - {*journeys}, key=lambda path: _drawn(path, config.rootpath))
    places = {path: (n + 1) / (len(others) + 1) for n, path in enumerate(others)}
    places |= {path: LAST_JOURNEY * n / len(journeys) for n, path in enumerate(journeys)}
    order = sorted(files, key=places.__getitem__)
    items[:] = itertools.chain.from_iterable(files[path] for path in order)


def _drawn(path, root):
    return hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()
