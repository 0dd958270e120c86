"""`sealtape status`."""

import asyncio
import re
import sqlite3

from sealtape.capture.bus import open_bus
from sealtape.indexer.cli.deployment import write_runtime
from sealtape.indexer.worker import lease_topic
from sealtape.ingest.findings import Findings
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.ledger.rows import Publish
from tests.capture.node_lab import NodeLab, node
from tests.factories.deployments import tree_state
from tests.servers.postgres import free_port, shared_server


def test_json(at, recorded):
    status = at("status", "--json").json
    assert status["capture"]["running"] is False
    assert status["capture"]["targets"] == ["shop"]
    assert status["ingest"]["sessions"] == {
        "live": 1, "closed": 0, "incomplete": 0, "sealed": 2,
    }  # fmt: skip
    assert status["ingest"]["segments"] == len(recorded.site.objects())
    assert status["ingest"]["bytes"] == sum(p.stat().st_size for p in recorded.site.objects())
    assert status["ingest"]["behind"] == 0
    assert status["ingest"]["incidents"] == status["ingest"]["gaps"] == 0
    assert status["ingest"]["incidents_by_reason"] == {}
    assert status["ingest"]["events_waiting"] > 0  # no relay was at work
    assert status["indexer"]["positions"]
    (part,) = status["ingest"]["partitions"]
    assert (part["partition"], part["behind"], part["owner"]) == (0, 0, None)
    assert part["position"] == part["end"] > 0
    assert part["term"] >= 1
    assert status["indexer"]["behind"] == status["indexer"]["partitions"][0]["behind"] == 0


def test_for_people(at):
    answer = at("status")
    assert answer.code == 0
    assert "live: 1, closed: 0, incomplete: 0, sealed: 2" in answer.out
    assert "partition  position" in answer.out


def test_a_node_that_runs(run, copied):
    write_runtime(copied.folder, {"postgres": "127.0.0.1:6543"})
    spool = copied.folder / "spool"
    spool.mkdir()
    (spool / "x").write_bytes(bytes(100))
    status = run("-c", copied.config, "status", "--json").json
    assert status["capture"]["running"] is True
    assert status["capture"]["listeners"] == {"postgres": "127.0.0.1:6543"}
    assert status["capture"]["spool_bytes"] == 100


def test_it_changes_nothing(at, recorded):
    before = tree_state(recorded.site.folder)
    at("status")
    assert tree_state(recorded.site.folder) == before


def test_before_the_first_run(run, tmp_path):
    run("init", "lab", "--dev")
    before = tree_state(tmp_path / "lab")
    answer = run("-c", "lab", "status", "--json")
    assert answer.code == 0
    assert "There is no" in answer.json["stores"]["error"]
    assert answer.json["capture"]["spool_bytes"] == 0
    assert tree_state(tmp_path / "lab") == before


def test_who_works_on_what(run, copied):
    async def claim():
        ledger = await open_ledger(copied.settings.stores.ledger, copied.folder)
        bus = open_bus(copied.settings.stores.bus, copied.folder)
        for topic in (bus.topic, lease_topic(bus.topic)):
            await ledger.claim(topic, 0, f"worker of {topic[:7]}", 60.0)
        await bus.append(0, [(bytes(16), b"one more message")])
        await bus.close()
        await ledger.close()

    asyncio.run(claim())
    status = run("-c", copied.config, "status", "--json").json
    (ingest,), (indexer,) = status["ingest"]["partitions"], status["indexer"]["partitions"]
    assert ingest["owner"].startswith("worker of")
    assert indexer["owner"] == "worker of indexer"
    assert 0 < ingest["lease_s"] <= 60
    assert status["ingest"]["behind"] == ingest["behind"] > 0
    assert "worker of indexer" in run("-c", copied.config, "status").out


def test_incidents_are_counted_by_reason(run, copied):
    with sqlite3.connect(copied.folder / "ledger.db") as database:
        columns = [row[1] for row in database.execute("pragma table_info(incident)")]
        assert "reason" in columns

    async def publish():
        ledger = await open_ledger(copied.settings.stores.ledger, copied.folder)
        bus = open_bus(copied.settings.stores.bus, copied.folder)
        lease = await ledger.claim(bus.topic, 0, "w", 60.0)
        findings = Findings(bus.topic, 0)
        for offset, reason in enumerate(("gap", "gap", "conflict")):
            findings.incident(reason, "found", offset=lease.next_offset + offset, now_ns=1)
        publication = Publish(
            lease=lease, first=lease.next_offset, next_offset=lease.next_offset,
            shard=f"{bus.topic}/0", at_ns=1, incidents=tuple(findings.incidents),
        )  # fmt: skip
        await ledger.publish(publication)
        await bus.close()
        await ledger.close()

    asyncio.run(publish())
    ingest = run("-c", copied.config, "status", "--json").json["ingest"]
    assert ingest["incidents_by_reason"] == {"conflict": 1, "gap": 2}
    assert (ingest["incidents"], ingest["gaps"], ingest["last_incident"]) == (3, 2, "conflict")


def test_what_is_away_hides_nothing_else(run, copied):
    (copied.folder / "index.db").write_bytes(b"nonsense" * 1000)
    status = run("-c", copied.config, "status", "--json").json
    assert status["ingest"]["segments"] > 0
    assert "error" in status["indexer"]
    settings = copied.folder / "sealtape.toml"
    address = f"127.0.0.1:{free_port()}"
    away = f'bus = "kafka://{address}/frames?tls=disable&timeout=1s"'
    text, changed = re.subn(r'(?m)^bus = ".*"$', away, settings.read_text())
    assert changed == 1
    settings.write_text(text)
    status = run("-c", copied.config, "status", "--json").json
    assert address in status["bus"]["error"]
    assert status["ingest"]["segments"] > 0
    assert (status["ingest"]["behind"], status["ingest"]["partitions"]) == (None, [])


def test_a_node_is_asked_how_it_is(run, tmp_path, monkeypatch):
    lab = NodeLab(tmp_path, shared_server(), capture='metrics = "127.0.0.1:0"')

    async def look():
        async with node(lab) as (_, ready):
            write_runtime(tmp_path, ready["listeners"])
            return await asyncio.to_thread(run, "-c", lab.path, "status", "--json")

    capture = asyncio.run(look()).json["capture"]
    assert (capture["running"], capture["ready"], capture["live"]) == (True, True, 0)
    assert capture["checks"]["spool"] == "ok"
    assert capture["unshipped_bytes"] >= 0
    assert capture["oldest_unacked_s"] >= 0
    assert (capture["stalled"], capture["unrecorded"]) == (0, 0)
