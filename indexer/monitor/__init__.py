"""A monitor: a witness that reads all entries of a log before it cosigns (docs/spec/monitor.md).

`open_monitor` is a whole one with its HTTP server; `read_once` judges a log without cosigning.
"""

from sealtape.indexer.monitor.follower import Follower
from sealtape.indexer.monitor.once import Judgement, read_once
from sealtape.indexer.monitor.server import Monitor, MonitorSnapshot, open_monitor

__all__ = [
    "Follower",
    "Judgement",
    "Monitor",
    "MonitorSnapshot",
    "open_monitor",
    "read_once",
]
