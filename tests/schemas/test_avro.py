"""The schema files: pinned bytes and fingerprints, and all versions of each can read each other."""

import io
import itertools
import json
from hashlib import sha256
from importlib import resources

import fastavro
import pytest

from sealtape.schemas import avro

# Released files never change. A fingerprint alone would not see a default or a doc change.
PINNED = {
    "checkpoint.v1": "cbdf26462fce8356b87c3e4956ceabe15a78d49b8813f375a61c23fa99cdf7f4",
    "data.v1": "eb919f91e9b7f18749a70e5431001a942da086eeef9260ea49beeced99867341",
    "facts.v1": "1675141e762736e7c8fe7629a0fe61f65e791c79bf4a44a3135af21a06e0e4d6",
    "frame.v1": "c32ba6e756e1d7bc9e8d3b94a1404aca9d5b40f068df513ebe29bf98c858520e",
    "key.v1": "2fb57cca8af86c8b6eb8481c2c15f80fc9cf3d4f12eb7e6e23b11f43c38d918c",
}


def parsed(name):
    return fastavro.parse_schema(json.loads(avro.text(name)))


def versions():
    """The names of each schema's versions, oldest first."""
    ordered = sorted(avro.FINGERPRINTS, key=lambda name: int(name.rpartition(".v")[2]))
    families = {}
    for name in ordered:
        families.setdefault(name.rpartition(".v")[0], []).append(name)
    return families


def sample(schema):
    """A value of a schema, every field filled."""
    if isinstance(schema, str):
        return {"int": 7, "long": 1 << 40, "string": "text", "bytes": b"\xff\x00"}[schema]
    kind = schema["type"]
    if kind == "record":
        return {field["name"]: sample(field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [sample(schema["items"])] * 2
    if kind == "map":
        return {"key": sample(schema["values"])}
    if kind == "fixed":
        return b"\x01" * schema["size"]
    return sample(kind)


def test_every_file_is_listed_and_pinned():
    folder = resources.files("sealtape.schemas.avro")
    files = {item.name.removesuffix(".avsc") for item in folder.iterdir() if ".avsc" in item.name}
    assert files == set(avro.FINGERPRINTS) == set(PINNED)


@pytest.mark.parametrize("name", PINNED)
def test_the_bytes_are_pinned(name):
    assert sha256(avro.text(name).encode()).hexdigest() == PINNED[name]


@pytest.mark.parametrize("name", PINNED)
def test_the_fingerprint_is_the_reference_librarys(name):
    canonical = fastavro.schema.to_parsing_canonical_form(json.loads(avro.text(name)))
    crc = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    assert avro.FINGERPRINTS[name].to_bytes(8, "little").hex() == crc


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        avro.text("../frame.v1")


@pytest.mark.parametrize("name", PINNED)
def test_nothing_in_a_schema_can_be_reinterpreted(name):
    text = avro.text(name)
    for word in ("enum", "logicalType", "aliases", "union", "float", "double"):
        assert f'"{word}"' not in text


@pytest.mark.parametrize("name", PINNED)
def test_a_sample_survives_the_reference_library(name):
    schema = parsed(name)
    value = sample(json.loads(avro.text(name)))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    out.seek(0)
    assert fastavro.schemaless_reader(out, schema) == value


def incompatibility(writer, reader):
    """Why `reader` cannot take what `writer` wrote, None when it can (our subset of Avro)."""
    value = sample(writer)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(writer), value)
    out.seek(0)
    try:
        fastavro.schemaless_reader(
            out, fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        )
    except fastavro.read.SchemaResolutionError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("family", "names"), versions().items())
def test_all_versions_read_each_other(family, names):
    for writer, reader in itertools.product(names, names):
        schemas = json.loads(avro.text(writer)), json.loads(avro.text(reader))
        assert incompatibility(*schemas) is None, (family, writer, reader)


def test_the_compatibility_check_can_fail():
    old = json.loads(avro.text("frame.v1"))
    without_default = json.loads(avro.text("frame.v1"))
    without_default["fields"].append({"name": "more", "type": "long"})
    assert incompatibility(old, without_default)
    assert incompatibility(without_default, old) is None
    with_default = json.loads(avro.text("frame.v1"))
    with_default["fields"].append({"name": "more", "type": "long", "default": 0})
    assert incompatibility(old, with_default) is None
    other_type = json.loads(avro.text("frame.v1"))
    other_type["fields"][1]["type"] = "string"
    assert incompatibility(old, other_type)
