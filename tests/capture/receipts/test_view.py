"""What a node believes of the log's server: what verifies, and never an older checkpoint."""

import logging
from dataclasses import replace

import pytest

from sealtape.capture.outbound import OutboundError
from sealtape.capture.receipts.view import LogView, open_view
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.settings import load_settings
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.receipts import Ended
from tests.factories.log_host import log_host
from tests.factories.witnessed import WitnessedLog

ENDED = Ended(b"\x5e" * 16, 0, 12, b"\x11" * 32)


@pytest.fixture
async def host():
    async with log_host() as host:
        yield host


async def test_the_beacon_moves_on_with_the_log(host):
    view = host.view()
    assert view.beacon is None
    assert await view.look()
    first = view.beacon
    assert (first.origin, first.size) == (f"{host.name}/1", 1)
    assert not await view.look()
    host.log.seal(ENDED)
    assert await view.look()
    assert view.beacon.size == 3
    assert view.error == ""


async def test_a_log_without_a_checkpoint_is_no_failure(host):
    host.answers["/beacon"] = None
    view = host.view()
    assert not await view.look()
    assert (view.beacon, view.error) == (None, "")


async def test_what_does_not_verify_is_told_once_and_not_believed(host, caplog):
    view = host.view()
    await view.look()
    known = view.beacon
    forged = WitnessedLog(host.name, seed=9)
    forged.seal(ENDED)
    host.answers["/beacon"] = forged.beacon()
    for _ in range(2):
        assert not await view.look()
    assert view.beacon == known
    assert "trusted key" in view.error
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    del host.answers["/beacon"]
    await view.look()
    assert view.error == ""
    assert "answers again" in caplog.records[-1].message


async def test_a_checkpoint_without_its_quorum_is_none(host):
    host.log.witnessed = False
    view = host.view()
    assert not await view.look()
    assert "quorum" in view.error


async def test_it_never_goes_back(host):
    view = host.view()
    small = host.log.beacon()
    host.log.seal(ENDED)
    await view.look()
    known = view.beacon
    host.answers["/beacon"] = small
    assert not await view.look()
    assert view.beacon == known
    assert "went back" in view.error
    fork = WitnessedLog(host.name)
    fork.seal(replace(ENDED, epoch=1))
    host.answers["/beacon"] = fork.beacon()  # as large, with another root
    assert not await view.look()
    assert "two of it" in view.error
    assert view.beacon == known


async def test_a_later_shard_comes_after_a_longer_one(host):
    host.log.seal(ENDED)
    later = WitnessedLog(host.name, number=2, seed=5)
    view = host.view()
    both = replace(view._policy, logs=view._policy.logs + later_policy(later).logs,
                   witnesses=later_policy(later).witnesses + view._policy.witnesses)  # fmt: skip
    names = [replace(w, name=f"w{n}") for n, w in enumerate(both.witnesses)]
    view._policy = replace(both, witnesses=tuple(names), quorum=None)
    await view.look()
    host.answers["/beacon"] = later.beacon()
    assert await view.look()
    assert (view.beacon.origin, view.beacon.size) == (f"{host.name}/2", 1)


def later_policy(log):
    return parse_policy(log.policy.encode())


async def test_a_receipt_is_verified_before_it_is_one(host):
    view = host.view()
    assert await view.receipt(ENDED) is None
    host.log.seal(ENDED)
    assert (await view.receipt(ENDED)).root == ENDED.root
    other = replace(ENDED, session=b"\x5f" * 16)
    host.log.seal(other)
    host.answers[f"/receipt/{ENDED.session.hex()}/0"] = host.log.receipt(other)
    with pytest.raises(FormatError, match="not of"):
        await view.receipt(ENDED)


async def test_a_server_that_is_away(host):
    view = host.view()
    host.away = True
    assert not await view.look()
    assert view.error == "HTTP 503"
    with pytest.raises(OutboundError, match="503"):
        await view.receipt(ENDED)


async def test_a_path_in_the_url_goes_before(host):
    host.url += "/sealtape/"
    await host.view().look()
    assert host.asked == ["/sealtape/beacon"]


def settings(folder, capture):
    text = f'[deployment]\nlog = "sealtape.test/log"\n[capture]\n{capture}'
    return load_settings(text, base=str(folder))


async def test_the_settings_name_the_log(host, tmp_path):
    assert open_view(settings(tmp_path, "")) is None
    (tmp_path / "log.policy").write_text(host.log.policy)
    view = open_view(settings(tmp_path, f'log = "{host.url}"'))
    assert isinstance(view, LogView)
    assert await view.look()


@pytest.mark.parametrize(
    ("capture", "policy", "says"),
    [
        ('log = "http://127.0.0.1:1"', None, "cannot be read"),
        ('log = "http://127.0.0.1:1"', "log x\n", "line 1"),
        ('log = "http://127.0.0.1:1#x"', "", "fragment"),
        ('log = "https://127.0.0.1:1"\nlog_ca = "none.pem"', "", r"none\.pem"),
    ],
)
def test_settings_that_cannot_be(tmp_path, capture, policy, says):
    good = WitnessedLog("sealtape.test/log").policy
    if policy is not None:
        (tmp_path / "log.policy").write_text(policy or good)
    with pytest.raises(SettingsError, match=says):
        open_view(settings(tmp_path, capture))
