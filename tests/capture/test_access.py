import ssl

import pytest

from sealtape.capture.access import password, tls_context
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import parse_store_url
from tests.servers.tls import write_certificate


def test_a_password_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("pass word\n")
    monkeypatch.setenv("STORE_SECRET", "other")
    assert password(parse_store_url("a://h?password_file=secret"), tmp_path) == "pass word"
    assert password(parse_store_url("a://h?password_env=STORE_SECRET"), tmp_path) == "other"
    assert password(parse_store_url("a://h?token_file=secret"), tmp_path, "token") == "pass word"
    assert password(parse_store_url("a://h"), tmp_path) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("a://h?password_file=nowhere", "cannot be read"),
        ("a://h?password_env=SEALTAPE_NOWHERE", "has no SEALTAPE_NOWHERE"),
        ("a://h?password_env=A&password_file=b", "names both"),
    ],
)
def test_a_password_that_is_not_there_is_named(tmp_path, url, said):
    with pytest.raises(SettingsError, match=said):
        password(parse_store_url(url), tmp_path)


def test_tls_is_verified_unless_told(tmp_path):
    chain, key = write_certificate(tmp_path)
    context = tls_context(parse_store_url(f"a://h?ca={chain}"), tmp_path)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.get_ca_certs()
    context = tls_context(parse_store_url(f"a://h?tls=require&cert={chain}&key={key}"), tmp_path)
    assert context.verify_mode == ssl.CERT_NONE
    assert tls_context(parse_store_url("a://h?tls=disable"), tmp_path) is None


@pytest.mark.parametrize("options", ["ca=nowhere", "cert=nowhere", "tls=perhaps"])
def test_tls_that_cannot_be_set_up_is_named(tmp_path, options):
    with pytest.raises(SettingsError):
        tls_context(parse_store_url(f"a://h?{options}"), tmp_path)


def test_a_file_that_is_no_certificate(tmp_path):
    (tmp_path / "ca.pem").write_text("not PEM")
    with pytest.raises(SettingsError, match="PEM"):
        tls_context(parse_store_url("a://h?ca=ca.pem"), tmp_path)
