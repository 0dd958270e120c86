import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import der
from sealtape.schemas.der import Der
from sealtape.schemas.errors import FormatError


def of(text):
    return Der(bytes.fromhex(text), "thing")


def test_elements_in_order():
    fields = of("300f 020105 0101ff 04020102 0500 8001 07".replace(" ", "")).inside(der.SEQUENCE)
    assert fields.integer() == 5
    assert fields.boolean() is True
    assert fields.optional(der.NULL) is None
    assert fields.whole(der.OCTET_STRING) == bytes.fromhex("04020102")
    assert fields.optional(der.NULL).content == b""
    assert fields.tag == der.CONTEXT
    assert fields.integer(der.CONTEXT) == 7
    assert fields.tag == -1
    fields.end()


def test_places_are_those_of_the_first_bytes():
    outer = of("3005300304 01aa".replace(" ", "")).inside(der.SEQUENCE)
    inner = outer.inside(der.SEQUENCE)
    assert (inner.start, inner.stop, inner.content) == (4, 7, b"\x04\x01\xaa")
    assert inner.value(der.OCTET_STRING) == b"\xaa"
    outer.end()


@pytest.mark.parametrize(
    "text",
    [
        "",  # nothing
        "30",  # no length
        "0401aa",  # another tag
        "30800000",  # indefinite
        "3001",  # less than it says
        "308101aa",  # a long form for a short length
        "30820080" + "00" * 128,  # padded with zeros
        "3081",  # no byte of the length
        "308200",  # half a length
        "30ff" + "ff" * 127,  # a length beyond any file
    ],
)
def test_heads_that_are_refused(text):
    with pytest.raises(FormatError, match="thing"):
        of(text).inside(der.SEQUENCE)


def test_an_element_does_not_reach_beyond_the_one_around_it():
    inner = of("30020403aabbcc").inside(der.SEQUENCE)
    with pytest.raises(FormatError, match="ends inside an element"):
        inner.value(der.OCTET_STRING)


@pytest.mark.parametrize("text", ["0200", "02020001", "0202ff80"])
def test_numbers_that_are_refused(text):
    with pytest.raises(FormatError, match="a number that is not DER"):
        of(text).integer()


@pytest.mark.parametrize(("text", "number"), [("0202ff7f", -129), ("02020080", 128)])
def test_numbers_at_the_edge(text, number):
    assert of(text).integer() == number


@pytest.mark.parametrize("text", ["0100", "010101", "0102ffff"])
def test_booleans_that_are_refused(text):
    with pytest.raises(FormatError, match="boolean"):
        of(text).boolean()


def test_false():
    assert of("010100").boolean() is False


@pytest.mark.parametrize(
    ("text", "oid"),
    [
        ("06092a864886f70d010702", "1.2.840.113549.1.7.2"),
        ("0603551d25", "2.5.29.37"),
        ("0603813403", "2.100.3"),
        ("060100", "0.0"),
    ],
)
def test_object_identifiers(text, oid):
    assert of(text).oid() == oid


@pytest.mark.parametrize("text", ["0600", "060281ff", "0603800101", "06042a800101", "06022a80"])
def test_object_identifiers_that_are_refused(text):
    with pytest.raises(FormatError, match="object identifier"):
        of(text).oid()


def test_what_is_left():
    reader = of("0500aa")
    reader.value(der.NULL)
    with pytest.raises(FormatError, match="1 bytes too many"):
        reader.end()


@given(st.binary(max_size=70_000) | st.binary(min_size=120, max_size=260))
def test_what_is_written_is_read(content):
    data = der.element(der.OCTET_STRING, content[:9], content[9:])
    reader = Der(data, "thing")
    assert reader.value(der.OCTET_STRING) == content
    reader.end()


@given(st.integers(min_value=0, max_value=2**170))
def test_numbers_that_are_written_are_read(number):
    assert Der(der.integer(number), "thing").integer() == number


@given(st.binary(max_size=64))
def test_garbage_is_refused_or_read(data):
    reader = Der(data, "thing")
    try:
        while reader.tag != -1:
            tag = reader.tag
            {der.INTEGER: reader.integer, der.BOOLEAN: reader.boolean, der.OID: reader.oid}.get(
                tag, lambda tag=tag: reader.value(tag)
            )()
    except FormatError:
        pass
