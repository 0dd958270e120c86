"""What must hold when the trouble is over: nothing lost, nothing twice, all where it belongs."""

import dataclasses
from hashlib import sha256

from sealtape.ingest.parquet import read_rows
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.segments import FIRST_PREV, parse_manifest, record_hash
from sealtape.schemas.tree import CompactRange, root


async def check_recorded(lab, leaves):
    """All that was on the bus is sealed once, in order; everything verifies; index = ledger."""
    await check_sealed(lab, leaves)
    report = await lab.verify(expect=None)
    named = {finding["session"] for finding in report["findings"]}
    about = [each for each in await lab.sessions() if each.id in named]
    assert (report["verdict"], report["findings"]) == ("verified", []), about
    assert report["sessions"] == len({session for session, _ in leaves})
    await check_index(lab)


async def check_sealed(lab, leaves):
    """The segments hold what was on the bus, once, and the ledger says so."""
    await check_roots(lab, leaves)
    async with lab.stores() as stores:
        sealed = await segment_leaves(stores.ledger, stores.vault)
    assert sealed == {(*name, seq): leaf for name, of in leaves.items() for seq, leaf in of.items()}


async def check_roots(lab, expected):
    """The ledger's trees are over exactly the frames that were on the bus."""
    async with lab.stores() as stores:
        heads = await stores.ledger.heads(sorted(expected))
        assert set(heads) == set(expected)
        epochs = {}
        for name, leaves in expected.items():
            assert sorted(leaves) == list(range(len(leaves)))
            head = heads[name]
            assert (head.lo, head.hi, head.lost) == (0, len(leaves), 0)
            sealed = CompactRange(head.lo, head.hi, head.nodes)
            assert sealed.root() == root([leaves[seq] for seq in sorted(leaves)])
            epochs.setdefault(name[0], {})[name[1]] = len(leaves)
        for session, sizes in epochs.items():
            held = [(each.epoch, each.seq) async for each in stores.recording(session).frames()]
            assert held == [(epoch, seq) for epoch in sorted(sizes) for seq in range(sizes[epoch])]
            assert heads[session, max(sizes)].complete
        assert await stores.ledger.incidents() == []


async def segment_leaves(ledger, vault):
    """Every row of every segment, by (session, epoch, seq); none is there twice.

    Chains of segment records are whole, and objects are what the records say.
    """
    chains, leaves = {}, {}
    async for segment in ledger.segments():
        record = segment.record
        n, head = chains.get(record.shard, (0, FIRST_PREV))
        assert (record.n, record.prev) == (n, head), "a chain is broken"
        chains[record.shard] = (n + 1, record_hash(record))
        data = await vault.get(segment.key)
        assert sha256(data).digest() == record.sha256
        assert parse_manifest(await vault.get(manifest_key(segment.key)))[0] == record
        for _, row in read_rows(data):
            name = (row.session, row.epoch, row.seq)
            assert name not in leaves, "sealed twice"
            leaves[name] = row.leaf
    return leaves


async def check_index(lab):
    """The index holds the sessions of the ledger, and made anew it is the same."""
    async with lab.stores() as stores:
        rows = {row.session: row async for row in stores.ledger.sessions()}
    found = [*await lab.sessions(), *await lab.sessions("protocol:journal")]
    indexed = {each.session: (each.state, each.frames) for each in found}
    assert len(indexed) == len(found)
    assert indexed == {name: (row.state, row.frames) for name, row in rows.items()}
    assert {row.state for row in rows.values()} == {"sealed"}
    before = await documents(lab)
    await lab.cli("index", "rebuild")
    after = await documents(lab)
    assert after["sessions"] == before["sessions"]
    assert after["commands"] == before["commands"]


async def documents(lab):
    """All that the index holds, in an order of its own."""
    sessions = [*await lab.sessions(), *await lab.sessions("protocol:journal")]
    commands = await lab.commands("protocol:*")
    assert len({(each.session, each.epoch, each.n) for each in commands}) == len(commands)
    return {
        "sessions": sorted(map(dataclasses.astuple, sessions), key=lambda each: each[0]),
        "commands": sorted(commands, key=lambda each: (each.session, each.epoch, each.n)),
    }


class _Kept:
    """A tap's connection, its bytes cut out once."""

    def __init__(self, tapped):
        self.port = tapped.port
        self.sent, self.received = tapped.client_bytes(), tapped.server_bytes()


async def check_taps(lab, clients, targets):
    """What clients and targets saw on their wires is what is recorded; return the close reasons.

    Of a session that ended as its client wanted, byte for byte; of one that was cut off, nothing
    reached either side that is not recorded.
    """
    clients = [each for each in map(_Kept, clients) if each.received]
    targets = [each for each in map(_Kept, targets) if each.sent]
    reasons = []
    async with lab.stores() as stores:
        for session in await lab.sessions():
            legs = await stores.legs(session.session)
            _take_client(clients, session, legs)
            _take_target(targets, session, legs)
            reasons.append(session.close_reason)
    assert [(each.port, len(each.received)) for each in clients] == []
    assert [(each.port, len(each.sent)) for each in targets] == []
    return reasons


def _take_client(clients, session, legs):
    client_in, target_out, _, client_out = legs
    theirs = [
        each
        for each in clients  # a port may come again in another life of the gateway
        if session.source == f"127.0.0.1:{each.port}"
        and each.sent.startswith(client_in)
        and client_out.startswith(each.received)
    ]
    if not theirs:  # whoever never got an answer is not among them
        assert session.close_reason != "client", session
        return
    found = max(theirs, key=lambda each: len(each.received))
    clients.remove(found)
    assert client_in.startswith(target_out)
    if session.close_reason == "client":
        assert (client_in, client_out) == (found.sent, found.received)


def _take_target(targets, session, legs):
    _, target_out, target_in, _ = legs
    for each in list(targets):
        # The key to cancel with, at its start, is unique.
        if each.received.startswith(target_in) and target_out.startswith(each.sent):
            targets.remove(each)
            if session.close_reason == "client":
                assert (target_in, target_out) == (each.received, each.sent)
