import ssl

import pytest

from sealtape.ingest.tlog.opening import log_parts, pace_of, read_policy, start_log
from sealtape.ingest.witness import open_witness
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.tlog.policy import parse_policy
from tests.factories.deployments import make_site, seal
from tests.factories.growing import GrowingLog, witness_key
from tests.factories.logs import kinds, log_of, read_log
from tests.servers.tls import write_certificate


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


def changed(site, before, after):
    text = site.config.read_text()
    assert before in text
    site.config.write_text(text.replace(before, after))
    return site.settings


def test_the_policy_that_the_settings_name(site):
    policy = read_policy(site.settings)
    assert [key.verifier.name for key in policy.logs] == ["sealtape.test/log/1"] * 2
    (site.folder / "log.policy").rename(site.folder / "other")
    with pytest.raises(SettingsError, match="sealtape log init"):
        read_policy(site.settings)
    settings = changed(site, "[log] ", '[log]\npolicy = "other"\n#')
    assert read_policy(settings).quorum == policy.quorum


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"quorum none", b"\xff\n"])
def test_a_policy_that_cannot_be_read_says_where(site, content):
    (site.folder / "log.policy").write_bytes(content)
    with pytest.raises(SettingsError, match=r"log\.policy"):
        read_policy(site.settings)


def test_a_policy_of_another_log(site):
    settings = changed(site, "sealtape.test/log", "sealtape.other/log")
    with pytest.raises(SettingsError, match=r"has no key of sealtape\.other/log/1"):
        read_policy(settings)


def test_the_pace_of_the_settings(site):
    settings = changed(site, "heartbeat_s = 10", 'heartbeat_s = "5m"\nsilent_s = 7\n')
    pace = pace_of(settings.log)
    assert (pace.heartbeat_s, pace.silent_s, pace.checkpoint_s) == (300.0, 7.0, 1.0)


async def parts_of(settings):
    async with log_parts(settings, None, None) as parts:
        return parts


async def test_what_the_settings_name_is_opened(site):
    parts = await parts_of(site.settings)
    assert (parts.log, parts.stamping) == ("sealtape.test/log", None)
    assert parts.cosigners is not None
    settings = changed(site, "[log] ", '[log]\ntimestamps = ["one=http://127.0.0.1:9/tsa"]\n#')
    stamping = (await parts_of(settings)).stamping
    assert [status.name for status in stamping.snapshot()] == ["one"]


@pytest.mark.parametrize(
    "line", ['signer = "kms:x"', 'signer = "file:none"', 'timestamps = ["http://x"]']
)
async def test_settings_that_name_nothing(site, line):
    settings = changed(site, "[log] ", f"[log]\n{line}\n#")
    with pytest.raises(SettingsError):
        await parts_of(settings)


async def test_worker_and_watch_run_until_they_are_stopped(site):
    await seal(site, [site.session()])
    async with log_of(site) as (stores, parts):
        running = start_log(parts, stores.bus, owner="dev-1", lease_s=5.0)
        await running.stop()
        await running.wait()
        await running.stop()
        assert {row.owner for row in await stores.ledger.leases()} == {""}
    assert "session-seal" in kinds((await read_log(site))[0])


async def test_witnesses_on_the_premises_have_a_ca_of_their_own(site, tmp_path):
    """One of ours, behind TLS that nobody else trusts."""
    chain, key = write_certificate(site.folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    log = GrowingLog().grow(5)
    server = await open_witness(
        state=tmp_path / "state", listen="127.0.0.1:0", keys=[witness_key()], logs=[log.verifier],
        tls=context,
    )  # fmt: skip
    vkeys = log.verifier.vkey, witness_key().verifier.vkey
    lines = f"log {vkeys[0]}", f"witness one {vkeys[1]} {server.url}", "quorum one", ""
    policy = parse_policy("\n".join(lines).encode())

    async def cosigned(settings):
        async with log_parts(settings, None, None, policy=policy) as parts:
            return await parts.cosigners.cosign(log.note(), log.prove)

    try:
        assert await cosigned(site.settings) == []
        settings = changed(site, "[log] ", f'[log]\nwitness_ca = "{chain.name}"\n#')
        assert len(await cosigned(settings)) == 1
    finally:
        await server.close()
    settings = changed(site, chain.name, "gone.crt")
    with pytest.raises(SettingsError, match=r"gone\.crt"):
        await cosigned(settings)
