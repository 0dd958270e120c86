import random
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.ingest.rebuild.chains import Link, chain_up, link_of, publications
from sealtape.schemas.errors import StoreCorrupt
from sealtape.schemas.segments import FIRST_PREV, BusRange, record_hash
from tests.conformance.ledger import A, sealed_segment


def link(n, prev=FIRST_PREV, *, term=1, cut=0, shard="frames/0", name=""):
    """A link named after its place; `cut` tells publications of one term apart."""
    key = name or f"{shard}#{n}-{term}-{cut}"
    return Link(
        key, term, shard, n, prev, sha256(key.encode()).digest(), BusRange("frames", 0, cut, cut), 7
    )


def grown(*cuts, prev=FIRST_PREV, n=0, term=1, shard="frames/0"):
    """A chain with a publication for each number, of so many segments."""
    found = []
    for cut, count in enumerate(cuts):
        for part in range(count):
            name = f"{shard}#{n}-{term}-{cut}-{part}"
            found.append(link(n, prev, term=term, cut=cut, shard=shard, name=name))
            prev, n = found[-1].hash, n + 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_records_are_put_in_order(seed):
    one, two = grown(1, 3, 2), grown(2, 1, shard="frames/1")
    mixed = [*one, *two]
    random.Random(seed).shuffle(mixed)
    chains = chain_up(mixed)
    assert chains.links == {"frames/0": one, "frames/1": two}
    assert (chains.left, chains.terms) == ([], {"frames/0": 1, "frames/1": 1})
    assert chain_up([]).links == {}


def test_a_claim_fences_off_what_was_tried_before():
    """Whoever has the highest term at a place is the only one who can have published there."""
    chain = grown(2)
    tried = grown(2, prev=chain[-1].hash, n=2, term=3)
    done = grown(1, prev=chain[-1].hash, n=2, term=4)
    after = grown(1, prev=done[-1].hash, n=3, term=9)
    late = grown(1, prev=after[-1].hash, n=4, term=5)
    found = chain_up([*tried, *late, *after, *done, *chain])
    assert found.links["frames/0"] == [*chain, *done, *after, *late]
    assert found.left == sorted(each.key for each in tried)
    assert found.terms == {"frames/0": 9}


def test_orphans_alone_make_no_chain_of_their_own():
    assert chain_up(grown(1, prev=b"x" * 32, n=0)[:0]).links == {}
    with pytest.raises(StoreCorrupt, match="goes on from none"):
        chain_up(grown(1, prev=b"x" * 32, n=3))


def test_a_missing_record_is_not_skipped():
    chain = grown(1, 1, 1, 1)
    for missing in range(3):
        with pytest.raises(StoreCorrupt, match="goes on from none"):
            chain_up([each for each in chain if each.n != missing])
    assert chain_up(chain[:3]).links["frames/0"] == chain[:3]


def test_two_histories_are_not_guessed_between():
    """An old copy of the ledger went on, in the same term."""
    chain = grown(1)
    first = grown(1, prev=chain[0].hash, n=1, term=2)
    other = [link(1, chain[0].hash, term=2, cut=50)]
    with pytest.raises(StoreCorrupt, match="forks"):
        chain_up([*chain, *first, *other])


def test_a_second_publication_shows_that_the_first_was_one():
    """What goes on from a record that lost was published too: that is no crash."""
    chain = grown(1)
    published = grown(1, 1, prev=chain[0].hash, n=1, term=2)
    other = grown(1, prev=chain[0].hash, n=1, term=3)
    with pytest.raises(StoreCorrupt, match="goes on from none"):
        chain_up([*chain, *published, *other])


def test_segments_of_one_publication_stay_together():
    chain = grown(1, 3, 2)
    assert [len(group) for group in publications(chain)] == [1, 3, 2]
    again = replace(chain[0], term=2)
    assert len(publications([chain[0], again])) == 2
    assert publications([]) == []


def test_a_manifest_belongs_to_its_segment():
    sealed = sealed_segment(1, [(A, 0, 0, 3)])
    found = link_of(sealed.key, sealed.record)
    assert (found.hash, found.term, found.n) == (record_hash(sealed.record), 1, 0)
    for record in (
        replace(sealed.record, object=sealed_segment(2, [(A, 0, 0, 3)]).key),
        replace(sealed.record, shard="elsewhere/0"),
    ):
        with pytest.raises(StoreCorrupt):
            link_of(sealed.key, record)
