import pytest

from sealtape.schemas import notes
from sealtape.schemas.cosignatures import (
    ED25519,
    ML_DSA_44,
    Cosigner,
    MlDsaCosigner,
    cosign,
    verifier_of,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Checkpoint, Verifier
from sealtape.schemas.tlog.keyfiles import format_key, parse_key

NAME = "sealtape.example/log/1"
SEED = bytes(range(32))
KINDS = {notes.ALGORITHM: Verifier, ED25519: Cosigner, ML_DSA_44: MlDsaCosigner}


@pytest.mark.parametrize("algorithm", KINDS)
def test_what_is_written_is_read(algorithm):
    text = format_key(NAME, algorithm, SEED)
    half = parse_key(text)
    assert (half.name, half.algorithm) == (NAME, algorithm)
    assert half.private.private_bytes_raw() == SEED
    assert isinstance(half.verifier, KINDS[algorithm])
    assert verifier_of(half.vkey).key_id == half.verifier.key_id


def test_the_form_is_that_of_node_keys():
    from sealtape.schemas.trust import parse_node_key

    text = format_key("sealtape/node-1", notes.ALGORITHM, SEED)
    assert parse_node_key(text).vkey == parse_key(text).vkey


def test_a_log_key_signs_notes_and_others_do_not():
    half = parse_key(format_key(NAME, notes.ALGORITHM, SEED))
    note = half.signer().sign("text\n")
    notes.open_note(note, [half.verifier])
    for algorithm in (ED25519, ML_DSA_44):
        with pytest.raises(FormatError, match="not one that signs notes"):
            parse_key(format_key(NAME, algorithm, SEED)).signer()


@pytest.mark.parametrize("algorithm", [ED25519, ML_DSA_44])
def test_witness_keys_cosign(algorithm):
    half = parse_key(format_key("w.example", algorithm, SEED))
    text = Checkpoint(NAME, 1, bytes(32)).text()
    line = cosign(half.name, half.private, text, 7)
    notes.open_note(f"{text}\n{line}".encode(), [half.verifier])


def test_the_key_is_shown_nowhere():
    text = format_key(NAME, ML_DSA_44, SEED)
    assert SEED.hex() not in repr(parse_key(text))
    secret = text.rpartition("+")[2].strip()
    bare = text[text.index(NAME) :]
    for broken in (text[:-9], text.replace("KEY+", "KEY+x"), text + "\n", "x" + text, bare, ""):
        with pytest.raises(FormatError) as caught:
            parse_key(broken)
        assert secret[:16] not in str(caught.value)


@pytest.mark.parametrize("at", range(0, len(format_key("n", notes.ALGORITHM, SEED)) - 1, 1))
def test_no_part_of_a_key_file_is_one(at):
    with pytest.raises(FormatError):
        parse_key(format_key("n", notes.ALGORITHM, SEED)[:at])


@pytest.mark.parametrize(
    ("name", "algorithm", "seed"),
    [
        ("a b", notes.ALGORITHM, SEED),
        (NAME, b"\x02", SEED),
        (NAME, b"", SEED),
        (NAME, notes.ALGORITHM, SEED[:31]),
        (NAME, ML_DSA_44, SEED + b"\0"),
    ],
)
def test_what_is_no_key_is_not_written(name, algorithm, seed):
    with pytest.raises(FormatError):
        format_key(name, algorithm, seed)
