"""What a witness tells about itself."""

import pytest

from sealtape.ingest.witness.cosigner import Witness
from sealtape.ingest.witness.memory import Memory
from sealtape.ingest.witness.metrics import MEASURES, REASONS, WitnessVitals
from sealtape.schemas.tlog import witnessing
from tests.factories.growing import ORIGIN, GrowingLog, witness_key


@pytest.fixture
async def witness(tmp_path):
    memory = Memory(tmp_path)
    log = GrowingLog()
    witness = Witness(memory, [witness_key()], [log.verifier], clock_s=lambda: 1_795_392_000.9)
    yield witness
    await witness.close()


def values(families):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_it_counts(witness):
    log = GrowingLog().grow(9)
    vitals = WitnessVitals(witness)
    found = values(await vitals.families())
    assert found["sealtape_witness_seen_size", ORIGIN] == 0
    assert ("sealtape_witness_last_cosigned_timestamp_seconds", ORIGIN) not in found
    await witness.cosign(log.request(0, 5))
    for _ in range(2):
        with pytest.raises(witnessing.Behind):
            await witness.cosign(log.request(0, 9))
    found = values(await vitals.families())
    assert found["sealtape_witness_seen_size", ORIGIN] == 5
    assert found["sealtape_witness_cosigned_total", ORIGIN] == 1
    assert found["sealtape_witness_last_cosigned_timestamp_seconds", ORIGIN] == 1_795_392_000
    assert found["sealtape_witness_refused_total", "old-size"] == 2
    assert found["sealtape_witness_refused_total", "conflict"] == 0
    assert (await vitals.readiness()).ready


def test_every_word_of_a_refusal_is_counted():
    kinds = [witnessing.Refusal]
    words = set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        words.add(kind.word)
    assert words - {witnessing.Refusal.word} == set(REASONS)
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
