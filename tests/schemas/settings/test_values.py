"""Values of the settings file: sizes, durations, names, addresses, secrets."""

import pytest

from sealtape.schemas.settings import values
from sealtape.schemas.settings.values import Secret


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, 0),
        (65536, 65536),
        ("12", 12),
        ("7B", 7),
        ("64KiB", 65536),
        ("64 MiB", 64 << 20),
        ("1GiB", 1 << 30),
    ],
)
def test_sizes(given, expected):
    assert values.parse_size(given) == expected


@pytest.mark.parametrize("given", [-1, True, 1.5, "64kb", "1.5GiB", "", "GiB", None, [1]])
def test_sizes_refused(given):
    with pytest.raises(ValueError, match="a size such as"):
        values.parse_size(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.5, 0.5),
        ("200ms", 0.2),
        ("8h", 28800.0),
        ("90d", 7776000.0),
        ("1.5m", 90.0),
    ],
)
def test_durations(given, expected):
    assert values.parse_duration(given) == pytest.approx(expected)


@pytest.mark.parametrize(
    "given",
    [
        *(-1, True, "5", "5 h", "1y", "", None, float("inf"), float("nan"), 1e300, 10**400),
        *("9" * 400 + "d", "366001d"),
    ],
)
def test_durations_refused(given):
    with pytest.raises(ValueError, match="a duration such as"):
        values.parse_duration(given)


def test_what_has_a_least_value():
    assert values.period(0.5)("500ms") == 0.5
    assert values.size_from(1 << 10)("1KiB") == 1024
    with pytest.raises(ValueError, match=r"at least 0\.5 s"):
        values.period(0.5)(0)
    with pytest.raises(ValueError, match="at least 1024 bytes"):
        values.size_from(1 << 10)(1023)
    for parse in (values.period(0.5), values.size_from(1)):
        with pytest.raises(ValueError, match="such as"):
            parse("nonsense")


@pytest.mark.parametrize(
    ("parse", "good", "expected"),
    [
        (values.text, "x", "x"),
        (values.name, "shop-1", "shop-1"),
        (values.texts, ["a", "b"], ("a", "b")),
        (values.texts, [], ()),
        (values.boolean, True, True),
        (values.whole(1, 9), 9, 9),
        (values.one_of("a", "b"), "b", "b"),
        (values.address, "db.internal:5432", "db.internal:5432"),
        (values.address, "[::1]:0", "[::1]:0"),
        (values.address, "db.internal.:1", "db.internal.:1"),
        (values.address, "dü.example:1", "dü.example:1"),
        (values.store_url, "dir:bus", "dir:bus"),
        (values.optional(values.address), "", ""),
        (values.optional(values.address), "h:1", "h:1"),
        (values.key_source, "https://x/keys", "https://x/keys"),
        (values.http_url, "https://x:1", "https://x:1"),
        (values.http_url, "http://127.0.0.1:1/log", "http://127.0.0.1:1/log"),
        (values.secret, "abc", Secret("inline", "abc")),
        (values.secret, {"env": "PW"}, Secret("env", "PW")),
    ],
)
def test_accepted(parse, good, expected):
    assert parse(good) == expected


@pytest.mark.parametrize(
    ("parse", "bad"),
    [
        (values.text, ""),
        (values.text, 5),
        (values.name, "Shop"),
        (values.name, "a/b"),
        (values.name, 3),
        (values.texts, "a"),
        (values.texts, ["a", 1]),
        (values.boolean, 1),
        (values.boolean, "true"),
        (values.whole(1, 9), 10),
        (values.whole(1, 9), 0),
        (values.whole(1, 9), True),
        (values.whole(1, 9), "3"),
        (values.one_of("a"), "c"),
        (values.address, "db.internal"),
        (values.address, "db:99999"),
        (values.address, "::1:5432"),
        (values.address, "db..internal:5432"),
        (values.address, f"{'x' * 64}.internal:5432"),
        (values.address, 5432),
        (values.store_url, "bus"),
        (values.store_url, 1),
        (values.optional(values.address), "h"),
        (values.key_source, "http://x"),
        (values.http_url, "x:1"),
        (values.http_url, "https://x y"),
        (values.http_url, 1),
        (values.key_source, None),
        (values.secret, ""),
        (values.secret, {"file": ""}),
        (values.secret, {"file": "a", "env": "b"}),
        (values.secret, {"vault": "a"}),
        (values.secret, 7),
    ],
)
def test_refused(parse, bad):
    with pytest.raises(ValueError, match=r"\w"):
        parse(bad)


def test_split_address():
    assert values.split_address("[::1]:5432") == ("::1", 5432)
    assert values.split_address("db:0") == ("db", 0)


def test_an_inline_secret_is_never_printed():
    assert "hunter2" not in repr(Secret("inline", "hunter2"))
    assert repr(Secret("file", "a/b")) == "Secret(file: a/b)"
