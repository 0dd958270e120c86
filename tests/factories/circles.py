"""Whether what was dropped is gone at once, or waits in a circle for the collector."""

import gc
import weakref
from contextlib import contextmanager


class _Load(bytearray):
    """Bytes that can be referred to weakly."""


class Burden:
    """Gives out bytes; `gone` says whether anybody still has them."""

    def __init__(self):
        self._given = []

    def lifted(self, data=b"much"):
        load = _Load(data)
        self._given.append(weakref.ref(load))
        return load

    def gone(self):
        return all(each() is None for each in self._given)


@contextmanager
def without_collector():
    """No collector of cycles meanwhile: what is still there then was kept."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
