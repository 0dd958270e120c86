import pytest

from sealtape.indexer.cli.log_files import make_shard_keys
from sealtape.ingest.tlog.checkup import check_log
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, read_log


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


def changed(site, before, after):
    text = site.config.read_text()
    assert before in text
    site.config.write_text(text.replace(before, after))


async def found(site):
    return {check.name: check for check in await check_log(site.settings)}


async def test_a_lab_is_well(site):
    await grow_log(site)
    checks = await found(site)
    assert {check.level for check in checks.values()} == {"ok"}
    assert "sealtape.test/log/1" in checks["log: signer"].message


async def test_a_shard_has_a_year(site):
    assert "not known" in (await found(site))["log: shard"].message
    await seal(site, [])
    assert "not begun" in (await found(site))["log: shard"].message
    await grow_log(site)
    day_ns = 86_400 * 10**9
    entries, _ = await read_log(site)
    for days, level in ((365, "ok"), (366, "warning")):
        checks = {
            c.name: c for c in await check_log(site.settings, entries[0].at_ns + days * day_ns)
        }
        check = checks["log: shard"]
        assert (check.level, f"{days} days ago" in check.message) == (level, True)
        assert ("sealtape log rotate" in (check.hint or "")) == (level == "warning")


async def test_without_a_policy(site):
    (site.folder / "log.policy").unlink()
    check = (await found(site))["log: policy"]
    assert (check.level, "sealtape log init" in check.hint) == ("error", True)


@pytest.mark.parametrize(("lines", "word"), [("quorum none\n", "No witness"), ("", "no URL")])
async def test_production_wants_witnesses_of_others(site, lines, word):
    changed(site, 'mode = "dev"', 'mode = "production"')
    changed(site, 'plaintext = "loopback"', 'plaintext = "never"')
    changed(site, "[identity.development]", "[nothing]")
    text = site.config.read_text()
    start = text.index("[nothing]")
    site.config.write_text(text[:start] + text[text.index("[ingest]") :])
    if lines:
        path = site.folder / "log.policy"
        kept = [line for line in path.read_text().splitlines() if line.startswith("log ")]
        path.write_text("\n".join(kept) + "\n" + lines)
    check = (await found(site))["log: policy"]
    assert (check.level, word in check.message) == ("warning", True)


async def test_a_key_that_is_not_there(site):
    (site.folder / "keys/log.key").unlink()
    assert (await found(site))["log: signer"].level == "error"
    changed(site, "[log] ", '[log]\nsigner = "unix:nowhere"\n#')
    check = (await found(site))["log: signer"]
    assert (check.level, "sealtape signer" in check.hint) == ("error", True)


async def test_a_shard_that_the_signer_does_not_have(site, tmp_path):
    path = site.folder / "log.policy"
    (tmp_path / "keys").mkdir()
    vkeys = make_shard_keys(tmp_path / "keys/log.key", "sealtape.test/log", 2)
    path.write_text(f"log {vkeys[0]}\n{path.read_text()}")
    check = (await found(site))["log: signer"]
    assert (check.level, "log/2" in check.message) == ("error", True)


async def test_a_process_that_writes_no_log(site):
    changed(site, "[log] ", '[log]\nsigner = ""\n#')
    checks = await found(site)
    assert [check.level for check in checks.values()] == ["ok"]
