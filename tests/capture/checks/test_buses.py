from sealtape.capture.checks.buses import check_buses
from tests.capture.checks.found import levels, one

KEYS = '[stores]\nkeys = "dir:keys-bus?partitions=1"\nevents = "dir:told?partitions=1"\n'


async def test_each_bus_under_its_own_name(deployment):
    names = {
        name.partition(":")[0]
        for name in levels(await check_buses(deployment.settings(), ["capture"]))
    }
    assert names == {"bus"}
    found = levels(await check_buses(deployment.settings(more=KEYS), ["ingest", "indexer"]))
    assert {name.partition(":")[0] for name in found} == {"bus", "keys bus", "events bus"}
    assert set(found.values()) == {"warning"}  # they are made by `sealtape setup`


async def test_a_bus_that_no_adapter_knows(deployment):
    settings = deployment.settings(more='[stores]\nkeys = "rabbit:x"\n')
    assert one(await check_buses(settings, ["auditor"]), "error", "dir:").name == "keys bus"
