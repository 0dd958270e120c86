"""The Avro schema files and their fingerprints.

The files are never edited after release: `FINGERPRINTS` and a test that pins each file's SHA-256
keep that. A change is a new file (`frame.v2.avsc`) that older readers and older data can live with.
"""

from importlib import resources

__all__ = ["FINGERPRINTS", "text"]

FINGERPRINTS = {
    "checkpoint.v1": 0x653FADC29DFE9F39,
    "data.v1": 0xF90A3765A505B00C,
    "facts.v1": 0xE9224DA7A979F580,
    "frame.v1": 0x5BFBB335A48F8530,
    "key.v1": 0xEEF0F272D40B3A04,
}
"""CRC-64-AVRO of each schema's parsing canonical form."""


def text(name: str) -> str:
    """Return the schema file of `name`, for example `frame.v1`, as JSON text.

    Raises KeyError for a name that is not in `FINGERPRINTS`.
    """
    if name not in FINGERPRINTS:
        raise KeyError(name)
    return resources.files(__name__).joinpath(f"{name}.avsc").read_text(encoding="utf-8")
