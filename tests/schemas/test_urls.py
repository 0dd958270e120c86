import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import parse_store_url, shown_url


def test_all_parts():
    url = parse_store_url(
        "kafka://cap%40ture@k1:9092,[::1]:9093,k3/frames%2Fa?partitions=12&ca=a%20b.pem"
    )
    assert (url.scheme, url.user, url.path) == ("kafka", "cap@ture", "frames/a")
    assert url.hosts == ("k1:9092", "[::1]:9093", "k3")
    assert url.text("ca") == "a b.pem"
    assert url.whole("partitions", 1, 1, 100) == 12


def test_the_least():
    url = parse_store_url("s3://")
    assert (url.scheme, url.user, url.hosts, url.path, dict(url.options)) == ("s3", "", (), "", {})


def test_defaults():
    url = parse_store_url("a://h")
    assert url.text("x") == ""
    assert url.text("x", "y") == "y"
    assert url.whole("x", 5, 1, 9) == 5
    assert url.duration("x", 1.5) == 1.5
    assert url.flag("x") is False
    assert url.flag("x", default=True) is True
    assert url.choice("x", ("b", "c"), "c") == "c"


def test_typed_options():
    url = parse_store_url("a://h?d=7d&yes=1&no=false&c=b")
    assert url.duration("d", 0) == 7 * 86400
    assert url.flag("yes") is True
    assert url.flag("no", default=True) is False
    assert url.choice("c", ("b", "c"), "c") == "b"


@pytest.mark.parametrize(
    ("option", "read"),
    [
        ("x=0", lambda url: url.whole("x", 1, 1, 9)),
        ("x=ten", lambda url: url.whole("x", 1, 1, 9)),
        ("x=soon", lambda url: url.duration("x", 1)),
        ("x=maybe", lambda url: url.flag("x")),
        ("x=d", lambda url: url.choice("x", ("b", "c"), "b")),
    ],
)
def test_a_wrong_value_is_named(option, read):
    with pytest.raises(SettingsError, match="`x` must be"):
        read(parse_store_url(f"a://h?{option}"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka:h", "is not a store URL"),
        ("://h", "is not a store URL"),
        ("a://h#x", "is not a store URL"),
        ("a://h:0/", "not a host"),
        ("a://h:70000/", "not a host"),
        ("a://h h/", "not a host"),
        ("a://h,,g/", "not a host"),
        ("a://h..g/", "not a host"),
        (f"a://{'x' * 64}.g:1/", "not a host"),
        ("a://h?x", "has no value"),
        ("a://h?x=1&x=2", "given twice"),
    ],
)
def test_what_is_refused(url, said):
    with pytest.raises(SettingsError, match=said):
        parse_store_url(url)


@pytest.mark.parametrize("url", ["a://me:hunter2@h/db", "a://me:hunter2@@h/db", "a:me:x@h"])
def test_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(SettingsError) as caught:
        parse_store_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:hunter2@h/db", "postgres://…@h/db"),
        ("https://me:hun/ter2@h/db", "https://…@h/db"),
        ("https://me:hun?ter2@h/db", "https://…@h/db"),
        ("https://me:hun#ter2@h/db", "https://…@h/db"),
        ("https://hun@ter2@h/db", "https://…@h/db"),
        ("transit:https://me:hunter2@h/t/keys/k?file=f", "transit:https://…@h/t/keys/k?file=f"),
        ("s3://b/p?secret_key=hunter2&region=x", "s3://b/p?secret_key=…&region=x"),
        ("s3://b/p?Access_Key=hunter2", "s3://b/p?Access_Key=…"),
        ("a://h/p?password=hunter2", "a://h/p?password=…"),
        ("a://h/p?x=1&sas_token=hunter2", "a://h/p?x=1&sas_token=…"),
        ("a://h:1/p?endpoint=https://me:hunter2@m", "a://…@m"),
        ("a://me@h:1,g:2/p?password_file=f&token_env=E", None),
        ("sqlite:a@b.db", None),
        ("file:/mnt/vault", None),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert shown_url(url) == (shown or url)


@pytest.mark.parametrize(
    "url",
    [
        "a://me:hun/ter2@h/db",
        "a://me:1/ter2@h/db",
        "a://me:hun?ter2@h/db",
        "a://h/p?pw=hunter2",
        "a://h/p?password=hunter2",
        "a://h/p?hunter2",
        "a://h/p?z=1&password=ter2&z=1",
    ],
)
def test_no_error_repeats_a_secret(url):
    with pytest.raises(SettingsError) as caught:
        parse_store_url(url, options=("z",)).whole("z", 1, 5, 6)
    assert "ter2" not in str(caught.value).replace("the option 'hunter2'", "")


def test_unknown_options():
    known = ("partitions", "replicas")
    assert parse_store_url("a://h?replicas=1", options=known).text("replicas") == "1"
    with pytest.raises(SettingsError, match="Did you mean 'partitions'"):
        parse_store_url("a://h?partition=1", options=known)
    with pytest.raises(SettingsError, match="Known: partitions, replicas"):
        parse_store_url("a://h?zzz=1", options=known)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_store_url("a://" + text)
    except SettingsError:
        pass
