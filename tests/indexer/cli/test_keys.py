"""`sealtape keys seal`, and what reads with a key that is sealed."""

import asyncio
import shutil

import pytest

from sealtape.capture.checks.keys import check_private_key
from sealtape.indexer.node import indexer_key
from tests.factories.logs import grow_log

PLACE = "transit:{}/transit/keys/{}?file=keys/{}.sealed&token_file=token&ca=ca.pem"


@pytest.fixture
def places(copied, openbao_server):
    """Places for both keys, and a token that may use them."""
    name = openbao_server.key()
    shutil.copy(openbao_server.ca, copied.folder / "ca.pem")
    token = openbao_server.token(f"transit/encrypt/{name}", f"transit/decrypt/{name}")
    (copied.folder / "token").write_text(token)
    return {who: PLACE.format(openbao_server.endpoint, name, who) for who in ("auditor", "indexer")}


def settle(copied, places):
    """Say in the settings where the keys are now, and take the key files away."""
    lines = "".join(f'{who}_private = "{place}"\n' for who, place in places.items())
    text = copied.config.read_text()
    assert "[keys]" not in text
    copied.config.write_text(f"{text}\n[keys]\n{lines}")
    for who in places:
        (copied.folder / f"keys/{who}.key").unlink()


def test_keys_are_sealed_and_read_from_there(run, copied, places, recorded):
    asyncio.run(grow_log(copied))
    for who, place in places.items():
        answer = run("-c", copied.config, "keys", "seal", f"keys/{who}.key", place)
        assert answer.code == 0, answer.err
        assert f'{who}_private = "{place}"' in answer.out
    settle(copied, places)
    name = recorded.closed.session.hex()
    assert run("-c", copied.config, "verify", name, "--decrypt").code == 0
    assert "select" in run("-c", copied.config, "replay", name).out
    assert indexer_key(copied.settings).id.startswith("indexer-")


def test_without_the_service_it_says_why(run, copied, places, recorded):
    for who, place in places.items():
        assert run("-c", copied.config, "keys", "seal", f"keys/{who}.key", place).code == 0
    settle(copied, places)
    (copied.folder / "token").write_text("revoked")
    answer = run("-c", copied.config, "replay", recorded.closed.session.hex(), "--json")
    assert answer.code == 77
    assert answer.error["code"] == "key-unavailable"
    assert "403" in answer.error["message"]


def test_json(run, copied, places):
    words = ["keys", "seal", "keys/auditor.key", places["auditor"], "--json"]
    answer = run("-c", copied.config, *words)
    assert answer.json["place"] == places["auditor"]
    assert answer.json["id"].startswith("auditor-")
    again = run("-c", copied.config, *words)
    assert again.code == 74
    assert again.error["code"] == "exists"


def test_a_key_comes_back_into_a_file(run, copied, places):
    """As before a server is given up; and from file to file it works too."""
    assert run("-c", copied.config, "keys", "seal", "keys/auditor.key", places["auditor"]).code == 0
    assert run("-c", copied.config, "keys", "seal", places["auditor"], "keys/back.key").code == 0
    before, after = (copied.folder / f"keys/{name}.key" for name in ("auditor", "back"))
    assert before.read_text() == after.read_text()


def test_nothing_to_seal(run, copied, places):
    answer = run("-c", copied.config, "keys", "seal", "keys/none.key", places["auditor"], "--json")
    assert answer.code == 77
    assert not (copied.folder / "keys/auditor.sealed").exists()


def test_doctor_opens_a_sealed_key(run, copied, places):
    assert run("-c", copied.config, "keys", "seal", "keys/indexer.key", places["indexer"]).code == 0
    settle(copied, {"indexer": places["indexer"]})
    (check,) = check_private_key(copied.settings, "indexer")
    assert check.level == "ok"
    (copied.folder / "token").write_text("revoked")
    (check,) = check_private_key(copied.settings, "indexer")
    assert check.level == "error"
    assert "403" in check.message
