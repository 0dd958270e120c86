"""Which of the vault's segments were published, and in what order: chains out of records. Pure.

A manifest in the vault does not say whether its segment was published: a crash may have left one
that never was. The chain tells. A record that another one continues was published; of several that
could come last, or next, only the one of the highest term can have been, since a claim that raises
the term fences off everybody before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sealtape.ingest.ledger.rows import ShardHead
from sealtape.schemas.errors import StoreCorrupt
from sealtape.schemas.layout import SegmentKey, parse_key
from sealtape.schemas.segments import FIRST_PREV, BusRange, SegmentRecord, record_hash

__all__ = ["Chains", "Link", "chain_up", "link_of", "publications"]


@dataclass(frozen=True, slots=True)
class Link:
    """One segment record: what continues what, and which publication it belongs to."""

    key: str
    term: int
    shard: str
    n: int
    prev: bytes
    hash: bytes
    bus: BusRange
    sealed_at_ns: int

    @property
    def publication(self) -> tuple[int, int, int, int]:
        """The same for all segments of one publication of a shard, and for no others."""
        return self.term, self.bus.first, self.bus.next, self.sealed_at_ns


@dataclass(frozen=True, slots=True)
class Chains:
    """The chain of each shard; the highest term seen in it; keys of segments never published."""

    links: dict[str, list[Link]]
    terms: dict[str, int]
    left: list[str]


def link_of(key: str, record: SegmentRecord) -> Link:
    """The link that a manifest's record makes. Raises `StoreCorrupt` when it is of another key."""
    parts = parse_key(key)
    shard = f"{record.bus.topic}/{record.bus.partition}"
    if record.object != key or record.shard != shard or not isinstance(parts, SegmentKey):
        raise StoreCorrupt(f"The manifest of {key} is the one of another segment.", key=key)
    return Link(
        key=key,
        term=parts.term,
        shard=record.shard,
        n=record.n,
        prev=record.prev,
        hash=record_hash(record),
        bus=record.bus,
        sealed_at_ns=record.sealed_at_ns,
    )


def chain_up(links: Iterable[Link]) -> Chains:
    """Put links in order. Raises `StoreCorrupt` where a record is missing, or a shard forks."""
    shards: dict[str, dict[int, list[Link]]] = {}
    for link in links:
        shards.setdefault(link.shard, {}).setdefault(link.n, []).append(link)
    found = Chains({}, {}, [])
    for shard, places in sorted(shards.items()):
        chain = _chain(places)
        _explain(shard, chain, places)
        used = {link.key for link in chain}
        everything = [link for here in places.values() for link in here]
        found.links[shard] = chain
        found.terms[shard] = max(link.term for link in everything)
        found.left.extend(link.key for link in everything if link.key not in used)
    found.left.sort()
    return found


def _chain(places: dict[int, list[Link]]) -> list[Link]:
    chain: list[Link] = []
    end = ShardHead(0, FIRST_PREV)
    while follow := [link for link in places.get(end.n, ()) if link.prev == end.hash]:
        best = max(follow, key=lambda link: link.term)
        if [link.term for link in follow].count(best.term) > 1:
            raise StoreCorrupt(
                f"Shard {best.shard} forks: term {best.term} has several records {end.n}.",
                hint="Two ledgers wrote into one vault, or an old copy of one went on.",
            )
        chain.append(best)
        end = ShardHead(end.n + 1, best.hash)
    return chain


def _explain(shard: str, chain: Sequence[Link], places: dict[int, list[Link]]) -> None:
    """Each record beside the chain must be of a publication that failed, and nothing else.

    Its first segment continues the chain, the others continue that one, all with one cut.
    """
    ends = {FIRST_PREV: None} | {link.hash: link for link in chain}
    tried: dict[bytes, Link] = {}
    for n in sorted(places):
        for link in places[n]:
            if link.hash in ends:
                continue
            before = tried.get(link.prev)
            if link.prev not in ends and (before is None or before.publication != link.publication):
                raise StoreCorrupt(
                    f"Shard {shard} has a record {n} that goes on from none of the records here.",
                    hint="A manifest is missing, or an old copy of the ledger went on; see verify.",
                    key=link.key,
                )
            tried[link.hash] = link


def publications(chain: Sequence[Link]) -> list[list[Link]]:
    """The links of a chain, those of one publication together."""
    groups: list[list[Link]] = []
    for link in chain:
        if groups and groups[-1][0].publication == link.publication:
            groups[-1].append(link)
        else:
            groups.append([link])
    return groups
