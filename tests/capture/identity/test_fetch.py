import pytest

from sealtape.capture.identity.fetch import MAX_BYTES, fetch, provider_context
from sealtape.schemas.errors import SettingsError
from tests.factories.provider import scripted_provider


@pytest.fixture
def provider(tmp_path):
    with scripted_provider(tmp_path) as running:
        yield running


def test_get_and_post(provider):
    provider.answers["/a"] = [(200, b"one"), (400, b"two")]
    assert fetch(provider.issuer + "/a", provider.context) == (200, b"one")
    assert fetch(provider.issuer + "/a", provider.context, {"x": "y z"}) == (400, b"two")
    assert provider.asked == [("/a", None), ("/a", {"x": "y z"})]


def test_no_redirect_is_followed(provider):
    provider.answers["/a"] = [(302, b"")]
    assert fetch(provider.issuer + "/a", provider.context)[0] == 302
    assert len(provider.asked) == 1


def test_answers_are_bounded(provider):
    provider.answers["/a"] = [(200, b"x" * (MAX_BYTES + 1))]
    with pytest.raises(ValueError, match="1 MiB"):
        fetch(provider.issuer + "/a", provider.context)


@pytest.mark.parametrize(
    "answer",
    [
        b"hello, x=y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx=y",
        b"HTTP/1.1 400 OK\r\nTransfer-Encoding: chunked\r\n\r\nx=y\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: x=y\r\n" * 200,
        b"",
    ],
)
def test_what_is_not_http_is_an_oserror_that_repeats_nothing(provider, answer):
    provider.answers["/a"] = [(None, answer)]
    with pytest.raises(OSError, match=r"HTTP|[Cc]losed") as caught:
        fetch(provider.issuer + "/a", provider.context, {"x": "y"})
    assert "x=y" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_only_https(provider):
    with pytest.raises(ValueError, match="https"):
        fetch("http://localhost/", provider.context)


def test_a_provider_is_not_believed_without_its_ca(provider, tmp_path):
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(provider.issuer + "/a", None)
    context = provider_context(provider.ca.name, tmp_path)
    assert fetch(provider.issuer + "/a", context)[0] == 404


def test_the_ca_file(tmp_path):
    assert provider_context(None, tmp_path) is None
    with pytest.raises(SettingsError, match="nowhere"):
        provider_context("nowhere", tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(SettingsError):
        provider_context("ca.pem", tmp_path)
