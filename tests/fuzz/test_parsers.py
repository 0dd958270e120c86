"""No bytes make a parser raise what it must not, hang, or take much memory.

`make fuzz` runs many inputs with another seed each time (FUZZ=N, SEED=N); a failure names both.
"""

import os
import time
import tracemalloc

import pytest

from sealtape.schemas.errors import SealtapeError
from tests.fuzz.mutations import inputs
from tests.fuzz.seeds import PARSERS

COUNT = int(os.environ.get("FUZZ", "2000"))
SEED = int(os.environ.get("SEED", "1"))
HANG_S = 1.0
MEMORY = 64 << 20
SLOW = ("parquet", "bundle", "time-stamp")


def parsed(parse, data):
    try:
        parse(data)
    except SealtapeError:
        return False
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_the_samples_are_good(name):
    parse, samples = PARSERS[name]
    assert all(parsed(parse, sample) for sample in samples)


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_taken_or_refused(name):
    parse, samples = PARSERS[name]
    count = COUNT // 5 if name in SLOW else COUNT
    for number, data in enumerate(inputs(samples, count, f"{name} {SEED}")):
        begun, done = time.thread_time(), False
        try:
            parsed(parse, data)
            done = True
        finally:
            if not done:
                print(f"{name}: SEED={SEED}, input {number}: {data[:200]!r}")
        assert time.thread_time() - begun < HANG_S, (name, SEED, number)


@pytest.mark.parametrize("name", PARSERS)
def test_little_memory_is_taken(name):
    parse, samples = PARSERS[name]
    tracemalloc.start()
    try:
        for number, data in enumerate(inputs(samples, COUNT // 20, f"memory {name} {SEED}")):
            parsed(parse, data)
            assert tracemalloc.get_traced_memory()[1] < MEMORY, (name, SEED, number)
    finally:
        tracemalloc.stop()
