"""What a monitor tells about itself."""

from sealtape.capture.metrics.vitals import written
from sealtape.indexer.monitor import open_monitor
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.monitor.metrics import MEASURES, MonitorVitals
from sealtape.schemas.verify.violations import RULES
from tests.factories.breaches_of_sessions import sealed_twice
from tests.factories.happenings import generate
from tests.factories.log_vaults import LogVault, monitor_key


async def scraped(vitals):
    return written(await vitals.families()).decode()


async def test_a_monitor_tells_what_it_read_and_found(tmp_path):
    history = generate(2, 20, turns=False)
    sealed_twice(history)
    log = await LogVault(tmp_path / "vault", history).write()
    monitor = await open_monitor(
        vault=log.vault,
        policy=log.policy(),
        keys=[monitor_key()],
        state=tmp_path / "state",
        listen="127.0.0.1:0",
        clock_ns=lambda: log.at_ns,
    )
    try:
        vitals = MonitorVitals(monitor)
        text = await scraped(vitals)
        for each in MEASURES:
            assert f"# TYPE {each.name} " in text
        assert 'sealtape_monitor_read_size{shard="1"} 0' in text
        assert text.count("sealtape_monitor_violations{") == len(RULES)
        assert (await vitals.readiness()).ready
        await monitor.follower.reach(log.checkpoint())
        text = await scraped(vitals)
        assert f'sealtape_monitor_read_size{{shard="1"}} {log.size}' in text
        assert 'sealtape_monitor_violations{rule="seal-once"} 1' in text
        assert 'sealtape_monitor_violations{rule="chain"} 0' in text
        for name in ("objections", "unacknowledged"):
            assert f"\nsealtape_monitor_{name} 1" in text
        assert "sealtape_witness_seen_size" in text
        found = await vitals.readiness()
        assert (found.ready, found.checks) == (False, {"rules": "1 violations"})
        MonitorFolder(tmp_path / "state").acknowledge("ann", "a test", 1)
        assert (await vitals.readiness()).ready
    finally:
        await monitor.close()
