"""Guards for all tests, and the real servers that they can ask for."""

import importlib.abc
import signal
import sys

import hypothesis

from tests.servers.registry import MODULES

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
