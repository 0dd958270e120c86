"""Private keys sealed by a real OpenBao."""

import asyncio
import base64
import os
import shutil
import time

import pytest

from sealtape.capture.kms import check_kms, open_kms, read_private_key
from sealtape.capture.kms import transit as module
from sealtape.capture.kms.transit import TransitKms
from sealtape.schemas.errors import Exists, FormatError, KeyUnavailable, SettingsError
from sealtape.schemas.sealed import SealedKey
from sealtape.schemas.wraps import X25519, generate
from tests.conformance.kms import KmsConformance
from tests.servers.http_faults import Rule, fault_proxy

PRIVATE, _ = generate("auditor", X25519, os.urandom)


def place_of(server, key, *, address="", **options):
    given = {"file": "auditor.sealed", "token_file": "token", "ca": "ca.pem", **options}
    query = "&".join(f"{name}={value}" for name, value in given.items() if value)
    return f"transit:https://{address or server.address}/transit/keys/{key}?{query}"


def equip(server, base, *paths):
    """Put a token for these paths, and the server's CA, into a folder."""
    shutil.copy(server.ca, base / "ca.pem")
    (base / "token").write_text(server.token(*paths) + "\n")


@pytest.fixture
def key(openbao_server, tmp_path):
    name = openbao_server.key()
    equip(openbao_server, tmp_path, f"transit/encrypt/{name}", f"transit/decrypt/{name}")
    return name


class TestTransitKms(KmsConformance):
    @pytest.fixture
    def kms(self, openbao_server, key, tmp_path):
        return open_kms(place_of(openbao_server, key), tmp_path)

    @pytest.fixture
    def secrets(self, tmp_path, key):
        return [(tmp_path / "token").read_text().strip()]


class TestWhatIsKept:
    @pytest.fixture
    def place(self, openbao_server, key, tmp_path):
        place = place_of(openbao_server, key)
        open_kms(place, tmp_path).keep(PRIVATE)
        return place

    def test_the_file_holds_no_key(self, place, tmp_path):
        path = tmp_path / "auditor.sealed"
        assert path.stat().st_mode & 0o777 == 0o600
        sealed = SealedKey.from_text(path.read_text())
        assert (sealed.id, sealed.suite) == (PRIVATE.id, PRIVATE.suite)
        assert sealed.sealed.startswith("vault:v1:")
        assert PRIVATE.text().split()[-1] not in path.read_text()

    def test_a_check_reads_it(self, place, tmp_path):
        key, (check,) = check_kms(place, tmp_path, "key")
        assert key == PRIVATE
        assert check.level == "ok"

    def test_rotation_of_the_servers_key_opens_it_still(self, place, key, openbao_server, tmp_path):
        openbao_server.call("POST", f"transit/keys/{key}/rotate")
        assert read_private_key(place, tmp_path) == PRIVATE

    def test_a_version_that_the_server_opens_no_more(self, place, key, openbao_server, tmp_path):
        openbao_server.call("POST", f"transit/keys/{key}/rotate")
        openbao_server.call("POST", f"transit/keys/{key}/config", min_decryption_version=2)
        with pytest.raises(KeyUnavailable, match="400") as caught:
            read_private_key(place, tmp_path)
        assert "min_decryption_version" in caught.value.hint

    def test_a_key_that_the_server_has_deleted(self, place, key, openbao_server, tmp_path):
        openbao_server.call("POST", f"transit/keys/{key}/config", deletion_allowed=True)
        openbao_server.call("DELETE", f"transit/keys/{key}")
        with pytest.raises(KeyUnavailable, match=r"400|404") as caught:
            read_private_key(place, tmp_path)
        assert "deleted" in caught.value.hint

    def test_an_id_that_was_changed_does_not_open(self, place, tmp_path):
        path = tmp_path / "auditor.sealed"
        other, _ = generate("auditor", X25519, os.urandom)
        path.write_text(path.read_text().replace(PRIVATE.id, other.id))
        with pytest.raises(KeyUnavailable, match="400"):
            read_private_key(place, tmp_path)

    def test_a_damaged_file_does_not_open(self, place, tmp_path):
        path = tmp_path / "auditor.sealed"
        whole = path.read_text()
        path.write_text(whole[:-5] + "\n")
        with pytest.raises(KeyUnavailable, match="400"):
            read_private_key(place, tmp_path)
        path.write_text(PRIVATE.text())
        with pytest.raises(FormatError):
            read_private_key(place, tmp_path)
        path.write_bytes(b"\xff")
        with pytest.raises(KeyUnavailable, match="cannot be read"):
            read_private_key(place, tmp_path)

    def test_a_token_only_for_reading_reads(self, place, key, openbao_server, tmp_path):
        equip(openbao_server, tmp_path, f"transit/decrypt/{key}")
        assert read_private_key(place, tmp_path) == PRIVATE
        other = place_of(openbao_server, key, file="other.sealed")
        with pytest.raises(KeyUnavailable, match="refused to encrypt: 403") as caught:
            open_kms(other, tmp_path).keep(PRIVATE)
        assert "transit/encrypt/" in caught.value.hint
        assert not (tmp_path / "other.sealed").exists()

    def test_a_token_for_nothing_reads_nothing(self, place, openbao_server, tmp_path):
        equip(openbao_server, tmp_path)
        with pytest.raises(KeyUnavailable, match="403") as caught:
            read_private_key(place, tmp_path)
        assert (tmp_path / "token").read_text().strip() not in str(caught.value)
        _, (check,) = check_kms(place, tmp_path, "key")
        assert check.level == "error"

    def test_a_new_token_counts_at_once(self, place, key, openbao_server, tmp_path):
        kms = open_kms(place, tmp_path)
        equip(openbao_server, tmp_path)
        with pytest.raises(KeyUnavailable):
            kms.read()
        equip(openbao_server, tmp_path, f"transit/decrypt/{key}")
        assert kms.read() == PRIVATE

    def test_the_token_may_stand_in_the_environment(
        self, place, key, openbao_server, tmp_path, monkeypatch
    ):
        token = openbao_server.token(f"transit/decrypt/{key}")
        for name, options in (
            ("BAO_TOKEN", {}),
            ("VAULT_TOKEN", {}),
            ("MINE", {"token_env": "MINE"}),
        ):
            with monkeypatch.context() as patched:
                patched.setenv(name, token)
                here = place_of(openbao_server, key, token_file="", **options)
                assert read_private_key(here, tmp_path) == PRIVATE
        with pytest.raises(SettingsError, match="no token"):
            read_private_key(place_of(openbao_server, key, token_file=""), tmp_path)
        (tmp_path / "token").write_text("two\r\nlines: x")
        with pytest.raises(SettingsError, match="no token") as caught:
            read_private_key(place, tmp_path)
        assert "lines" not in str(caught.value)

    def test_a_ca_that_is_not_named_is_not_trusted(self, place, key, openbao_server, tmp_path):
        with pytest.raises(KeyUnavailable, match="not trusted") as caught:
            read_private_key(place_of(openbao_server, key, ca=""), tmp_path)
        assert "ca=" in caught.value.hint


def test_a_key_that_takes_no_associated_data_is_refused(openbao_server, tmp_path):
    name = openbao_server.key("rsa-2048")
    equip(openbao_server, tmp_path, f"transit/encrypt/{name}", f"transit/decrypt/{name}")
    with pytest.raises(KeyUnavailable, match="400") as caught:
        open_kms(place_of(openbao_server, name), tmp_path).keep(PRIVATE)
    assert "aes256-gcm96" in caught.value.hint


def test_an_engine_that_is_not_there(openbao_server, tmp_path):
    equip(openbao_server, tmp_path, "nowhere/encrypt/k")
    place = place_of(openbao_server, "k").replace("/transit/keys/", "/nowhere/keys/")
    with pytest.raises(KeyUnavailable, match="404"):
        open_kms(place, tmp_path).keep(PRIVATE)


def test_a_file_that_is_there_is_not_touched(openbao_server, key, tmp_path):
    (tmp_path / "auditor.sealed").write_text("mine")
    with pytest.raises(Exists):
        open_kms(place_of(openbao_server, key), tmp_path).keep(PRIVATE)
    assert (tmp_path / "auditor.sealed").read_text() == "mine"


class TestOutages:
    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch):
        monkeypatch.setattr(module, "PAUSE_S", 0.05)
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)

    def test_cut_and_healed(self, openbao_server, key, tmp_path, toxiproxy):
        proxy = toxiproxy.proxy(openbao_server.address)
        place = place_of(openbao_server, key, address=proxy.address)
        open_kms(place, tmp_path).keep(PRIVATE)
        proxy.cut()
        with pytest.raises(KeyUnavailable, match="refused"):
            read_private_key(place, tmp_path)
        proxy.heal()
        with proxy.half_open():
            started = time.monotonic()
            with pytest.raises(KeyUnavailable, match="no answer in time"):
                read_private_key(place, tmp_path)
            assert time.monotonic() - started < 10
        assert read_private_key(place, tmp_path) == PRIVATE
        proxy.close()

    def test_it_is_sealed(self, openbao_alone, tmp_path):
        name = openbao_alone.key()
        paths = f"transit/encrypt/{name}", f"transit/decrypt/{name}"
        equip(openbao_alone, tmp_path, *paths)
        place = place_of(openbao_alone, name)
        open_kms(place, tmp_path).keep(PRIVATE)
        openbao_alone.seal()
        with pytest.raises(KeyUnavailable, match="503") as caught:
            read_private_key(place, tmp_path)
        assert "unseal" in caught.value.hint


class TestAnswers:
    """In plaintext through a proxy that stands in for the server: what it might say."""

    @pytest.fixture
    async def proxy(self):
        async with fault_proxy("http://127.0.0.1:1") as proxy:
            yield proxy

    @pytest.fixture
    def kms(self, proxy, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "PAUSE_S", 0.05)
        monkeypatch.setenv("BAO_TOKEN", "token")
        text = SealedKey("transit", PRIVATE.suite, PRIVATE.id, "vault:v1:abc").text()
        (tmp_path / "auditor.sealed").write_text(text)
        place = f"transit:{proxy.url}/team/transit/keys/k?file=auditor.sealed&allow_http=1"
        return TransitKms.of_setting(f"{place}&namespace=ns", tmp_path)

    async def ask(self, call):
        return await asyncio.to_thread(call)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b'{"data": 1}',
            b'{"data": {}}',
            b'{"data": {"plaintext": "not base64: hunter2"}}',
            b'{"data": {"plaintext": "aHVudGVyMg=="}}',
        ],
    )
    async def test_what_is_no_answer(self, kms, proxy, body):
        proxy.answer(lambda _: True, "200 OK", body)
        with pytest.raises(FormatError) as caught:
            await self.ask(kms.read)
        assert "hunter2" not in str(caught.value)
        assert proxy.seen[0].path == "/v1/team/transit/decrypt/k"
        assert proxy.seen[0].headers["x-vault-namespace"] == "ns"

    async def test_what_passes_is_asked_again(self, kms, proxy):
        raw = base64.b64encode(PRIVATE.raw)
        proxy.answer(lambda _: True, "429 Too Many Requests")
        proxy.reset(lambda _: True)
        proxy.answer(lambda _: True, "200 OK", b'{"data": {"plaintext": "' + raw + b'"}}')
        assert await self.ask(kms.read) == PRIVATE

    async def test_an_answer_that_was_cut_off_is_asked_for_again(self, kms, proxy):
        raw = base64.b64encode(PRIVATE.raw)
        body = b'{"data": {"plaintext": "' + raw + b'"}}'

        async def cut(_, request, sent, reader, writer):
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            writer.write(head + body[:30])
            await writer.drain()
            return False

        proxy.rules.append(Rule(lambda _: True, cut, 1))
        proxy.answer(lambda _: True, "200 OK", body)
        assert await self.ask(kms.read) == PRIVATE
        proxy.rules.append(Rule(lambda _: True, cut, 9))
        with pytest.raises(KeyUnavailable, match="no answer"):
            await self.ask(kms.read)

    async def test_a_standby_that_sends_on_is_told(self, kms, proxy):
        proxy.answer(lambda _: True, "307 Temporary Redirect", headers=["Location: https://a/"])
        with pytest.raises(KeyUnavailable, match="307") as caught:
            await self.ask(kms.read)
        assert "active" in caught.value.hint

    async def test_what_does_not_pass_is_not(self, kms, proxy):
        proxy.answer(lambda _: True, "418 I am a teapot", times=9)
        with pytest.raises(KeyUnavailable, match="418"):
            await self.ask(kms.read)
        assert len(proxy.seen) == 1

    async def test_a_service_that_changes_the_key_is_found_out(self, kms, proxy, tmp_path):
        (tmp_path / "auditor.sealed").unlink()
        other, _ = generate("auditor", X25519, os.urandom)
        raw = base64.b64encode(other.raw)
        proxy.answer(lambda _: True, "200 OK", b'{"data": {"ciphertext": "vault:v1:abc"}}')
        proxy.answer(lambda _: True, "200 OK", b'{"data": {"plaintext": "' + raw + b'"}}')
        with pytest.raises(FormatError):
            await self.ask(lambda: kms.keep(PRIVATE))
        assert not (tmp_path / "auditor.sealed").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("transit:", "store URL"),
        ("transit:https://h/keys/k?file=f", "transit engine"),
        ("transit:https://h/transit/k?file=f", "transit engine"),
        ("transit:https://u@h/transit/keys/k?file=f", "transit engine"),
        ("transit:https://a,b/transit/keys/k?file=f", "transit engine"),
        ("transit:ftp://h/transit/keys/k?file=f", "transit engine"),
        ("transit:https://h/transit/keys/k", "file=FILE"),
        ("transit:http://h/transit/keys/k?file=f", "in the clear"),
        ("transit:https://h/transit/keys/k?file=f&tokenfile=x", "tokenfile"),
        ("transit:https://h/transit/keys/k?file=f&ca=none.pem", "PEM"),
        ("transit:https://h/transit/keys/k?file=f&namespace=a%0Ab", "printable"),
    ],
)
def test_what_is_wrong_in_a_setting_is_said(tmp_path, place, said):
    with pytest.raises(SettingsError, match=said):
        open_kms(place, tmp_path)
