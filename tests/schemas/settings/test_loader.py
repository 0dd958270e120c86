"""Loading: what is refused, where the message points, what is merely warned about."""

import pytest

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import load_settings

TARGET = """
[targets.shop]
address = "127.0.0.1:5432"
database = "shop"
user = "app"
groups = ["dba"]
"""


def load(text):
    return load_settings(text, base="/deployment")


def test_an_empty_file_is_a_production_deployment_with_defaults():
    settings = load("")
    assert settings.deployment.mode == "production"
    assert settings.capture.postgres.plaintext == "never"
    assert settings.identity is None
    assert list(settings.retention) == ["standard"]
    assert settings.targets == {}
    assert settings.base == "/deployment"


def test_a_whole_deployment():
    settings = load(
        '[deployment]\nmode = "dev"\n[capture]\nspool_limit = "2MiB"\n'
        '[stores]\nevents = "dir:events?retention=1h"\n'
        '[capture.postgres]\nplaintext = "loopback"\n'
        '[identity]\nissuer = "i"\njwks = "file:k"\n[identity.development]\n'
        '[retention.short]\nretain_for = "1h"\ndelete_after = "2h"\nencryption = false\n'
        + TARGET
        + 'retention = "short"\n'
    )
    assert settings.capture.spool_limit == 2 << 20
    assert settings.capture.postgres.plaintext == "loopback"
    assert settings.identity.development.key == "keys/issuer.key"
    assert settings.retention["short"].delete_after == 7200.0
    assert settings.targets["shop"].groups == ("dba",)
    assert settings.warnings == ()


@pytest.mark.parametrize(
    "more", ['[capture]\nlog = "https://log.internal:7443"', '[deployment]\nmode = "dev"']
)
def test_receipts_need_a_log_to_ask(more):
    settings = load(more + TARGET + 'on_seal = "receipt"')
    assert settings.targets["shop"].on_seal == "receipt"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = [", "not valid TOML"),
        ("[captur]", "`captur` is not a setting. Did you mean `capture`?"),
        (
            "[capture]\nspool_limt = 1",
            "`capture.spool_limt` is not a setting. Did you mean `spool_limit`?",
        ),
        ("[capture]\nzzzzzz = 1", "Known here:"),
        ("[capture.postgres]\nlisten = 5", "`capture.postgres.listen` must be an address"),
        ("capture = 1", "`capture` must be a table"),
        ("targets = 1", "`targets` must hold one table a name"),
        ("[targets]\nshop = 1", "`targets.shop` must be a table"),
        ('[targets."Big Shop"]', "a name here must be"),
        ("[targets.shop]", "`targets.shop.address` is missing: where the target listens"),
        ('[identity]\njwks = "file:x"', "`identity.issuer` is missing"),
        (TARGET + 'retention = "gold"', "there is no class `gold`"),
        (TARGET + 'on_seal = "receipt"', "without `capture.log` no receipt can be had"),
        ('[retention.x]\nretain_for = "2d"\ndelete_after = "1d"', "delete_after is shorter"),
        ('[capture.postgres]\nplaintext = "loopback"', "allowed only in `dev`"),
        (
            '[identity]\nissuer = "i"\njwks = "file:k"\n[identity.development]',
            "refused outside `dev`",
        ),
        ("[capture]\nframe_bytes = 100", "from 4KiB to 64KiB"),
    ],
)
def test_refused_with_the_key_and_what_to_do(text, says):
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert says in str(caught.value)


def test_an_inline_password_is_warned_about_and_not_shown():
    settings = load(TARGET + 'password = "hunter2"\n')
    assert "targets.shop.password" in settings.warnings[0]
    assert "hunter2" not in settings.warnings[0] + repr(settings)


def test_passwords_by_reference_give_no_warning():
    assert load(TARGET + 'password = { env = "PW" }\n').warnings == ()


def test_the_budget_of_verification():
    found = load('[verify]\nbytes_per_day = "1GiB"\nwebhook = "https://siem.example/a"\n').verify
    assert found.bytes_per_day == 1 << 30
    assert found.webhook == "https://siem.example/a"
    (warning,) = load('[verify]\nwebhook_secret = "hunter2"\n').warnings
    assert "`verify.webhook_secret` stands in the settings file" in warning
    assert "hunter2" not in warning
    for text in ("bytes_per_day = 0", "every_s = 0"):
        with pytest.raises(SettingsError, match="above 0"):
            load(f"[verify]\n{text}\n")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dir:events", "for ever"),
        ("dir:events?retention=91d", "for 7862400 s, longer than class 'short'"),
        ("kafka://k/e?partitions=6&retention=0s", "for ever"),
        ("kafka://k/e?retention=91d&sasl=plain", "for 7862400 s"),
    ],
)
def test_events_that_outlast_a_class_are_warned_about(url, says):
    text = f'[stores]\nevents = "{url}"\n[retention.long]\n[retention.short]\nretain_for = "80d"\n'
    (warning,) = load(text).warnings
    assert says in warning
    assert "stores.events" in warning


@pytest.mark.parametrize(
    "url", ["dir:e?retention=90d", "kafka://k/e", "kafka://k/e?retention=1h", "dir:e?retention=x"]
)
def test_events_that_go_in_time_are_not(url):
    assert (
        load(f'[stores]\nevents = "{url}"\n[retention.short]\nretain_for = "90d"\n').warnings == ()
    )


def test_nodes_share_a_file_and_differ_by_name():
    text = '[deployment]\nnode = "written"\n'
    assert load_settings(text, base=".").deployment.node == "written"
    assert load_settings(text, base=".", node="node-7").deployment.node == "node-7"
    assert load_settings("", base=".", node="node-7").deployment.node == "node-7"
    with pytest.raises(SettingsError, match=r"`deployment.node` must be"):
        load_settings(text, base=".", node="not a name")
    with pytest.raises(SettingsError, match="`deployment` must be a table"):
        load_settings("deployment = 1", base=".", node="node-7")


@pytest.mark.parametrize(
    "text",
    [
        "[capture]\nheartbeat_s = 0",
        "[capture]\nauth_timeout_s = 0",
        "[capture]\nspool_limit = 0",
        "[ingest]\nlease_s = 0",
        "[indexer]\nlease_s = 0",
        "[log]\ncheckpoint_s = 0",
        '[log]\nheartbeat_s = "500ms"',
        "[log]\ntimestamp_every = 0",
        "[log]\nwitness_timeout_s = 0",
        "[verify]\nwindow = 0",
        "[retention.standard]\ndelete_after = inf",
        "[retention.standard]\ndelete_after = 1e300",
    ],
)
def test_values_with_which_a_room_would_not_work(text):
    with pytest.raises(SettingsError, match=text.partition("\n")[2].partition(" ")[0]):
        load(text + "\n")
