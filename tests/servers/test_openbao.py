import base64

import pytest

from tests.servers.openbao import OpenBaoError


def test_a_key_seals_and_unseals(openbao_server):
    key = openbao_server.key()
    text = base64.b64encode(b"secret").decode()
    sealed = openbao_server.call("POST", f"transit/encrypt/{key}", plaintext=text)["data"]
    opened = openbao_server.call("POST", f"transit/decrypt/{key}", ciphertext=sealed["ciphertext"])
    assert opened["data"]["plaintext"] == text


def test_a_token_may_what_it_is_for(openbao_server):
    assert openbao_server.token("transit/decrypt/some")


def test_a_sealed_one_refuses(openbao_alone):
    openbao_alone.key()
    openbao_alone.seal()
    with pytest.raises(OpenBaoError, match="503"):
        openbao_alone.key()
