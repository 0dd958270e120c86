"""No bytes make a parser raise what it must not, hang, or take much memory.

FUZZ=N and SEED=N choose how many inputs for a parser and which; a failure names both. `make fuzz`
looks for inputs by what they reach instead: `campaign.py`.
"""

import os
import time
import tracemalloc

import pytest

from tests.fuzz.mutations import inputs
from tests.fuzz.seeds import FEWER, HANG_S, MEMORY, PARSERS, parsed

COUNT = int(os.environ.get("FUZZ", "2000"))
SEED = int(os.environ.get("SEED", "1"))


@pytest.mark.parametrize("name", PARSERS)
def test_the_samples_are_good(name):
    parse, samples = PARSERS[name]
    assert all(parsed(parse, sample) for sample in samples)


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_taken_or_refused(name):
    parse, samples = PARSERS[name]
    count = COUNT // FEWER.get(name, 1)
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
    count = COUNT // 4 // FEWER.get(name, 5)
    tracemalloc.start()
    try:
        for number, data in enumerate(inputs(samples, count, f"memory {name} {SEED}")):
            parsed(parse, data)
            assert tracemalloc.get_traced_memory()[1] < MEMORY, (name, SEED, number)
    finally:
        tracemalloc.stop()
