"""Our notes, proofs and tiles, checked by a Go program on golang.org/x/mod/sumdb."""

import base64
import json
import random

import pytest

from sealtape.schemas import notes, tree
from sealtape.schemas.canonical import base64_bytes
from sealtape.schemas.cosignatures import verifier_of
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog import tiles
from sealtape.schemas.tlog.proof import LogProof, parse_proof
from tests.factories.large_logs import entry
from tests.factories.sessions import build_session
from tests.interop.conftest import OLD, SIZE
from tests.vectors.generate_b import FOLDER

# -- what holds ------------------------------------------------------------------------------------


def lines(hashes):
    return "".join(base64.b64encode(one).decode() + "\n" for one in hashes)


def path_of(log, ranges):
    """Roots of ranges out of the log's tiles, by our own code."""
    wanted = tiles.places(ranges, log.size)
    found = {tile: (log.folder / tile.path).read_bytes() for tile in wanted}
    return tiles.roots(ranges, log.size, found)


def test_checkpoints(interop, small_log, office, tmp_path):
    vkey, cosigned = office
    path = tmp_path / "note"
    path.write_bytes(cosigned(small_log.note))
    assert interop("checkpoint", path, small_log.vkey, vkey) == (0, "")
    assert interop("checkpoint", path, small_log.vkey) == (0, "")
    path.write_bytes(small_log.note)
    status, said = interop("checkpoint", path, small_log.vkey, vkey)
    assert (status, "1 of 2 keys" in said) == (1, True)


def test_the_vectors(interop, tmp_path):
    vectors = json.loads((FOLDER / "log.json").read_text(encoding="utf-8"))
    keys = [line.split()[1 if line.startswith("log") else 2]
            for line in vectors["short_policy"].splitlines() if line.startswith(("log", "witness"))
            ]  # fmt: skip
    (tmp_path / "note").write_text(vectors["short_witnessed"])
    (tmp_path / "proof").write_text(vectors["short_proof"])
    (tmp_path / "entry").write_text('{"n":258}')
    assert interop("checkpoint", tmp_path / "note", *keys) == (0, "")
    assert interop("inclusion", tmp_path / "proof", tmp_path / "entry", *keys) == (0, "")
    (tmp_path / "entry").write_text('{"n":257}')
    assert interop("inclusion", tmp_path / "proof", tmp_path / "entry", *keys)[0] == 1


def test_a_log_of_a_million_entries(interop, big_log):
    assert interop("log", big_log.folder, 9973, big_log.vkey) == (0, f"{SIZE}\n")


INDEXES = (0, 1, 255, 256, 65_535, 65_536, 777_777, 1_000_000, SIZE - 1)


def test_inclusion_in_a_million_both_ways(interop, big_log, tmp_path):
    for index in INDEXES:
        path = path_of(big_log, tree.inclusion_ranges(index, SIZE))
        assert interop("prove", big_log.folder, index, big_log.vkey) == (0, lines(path))
        (tmp_path / "proof").write_bytes(LogProof(index, tuple(path), big_log.note).encode())
        (tmp_path / "entry").write_bytes(entry(index))
        files = (tmp_path / "proof", tmp_path / "entry")
        assert interop("inclusion", *files, big_log.vkey) == (0, "")


def test_consistency_in_a_million_both_ways(interop, big_log, tmp_path):
    for size in (*OLD, SIZE):
        path = path_of(big_log, tree.consistency_ranges(size, SIZE))
        if size != SIZE:
            assert interop("grow", big_log.folder, size, big_log.vkey) == (0, lines(path))
        for name, data in (
            ("old", big_log.old[size]),
            ("new", big_log.note),
            ("proof", lines(path).encode()),
        ):
            (tmp_path / name).write_bytes(data)
        files = [tmp_path / name for name in ("old", "new", "proof")]
        assert interop("consistency", *files, big_log.vkey) == (0, "")


def test_a_damaged_tile_is_found(interop, small_log):
    path = small_log.folder / "tile/0/001.p/44"
    whole = path.read_bytes()
    path.write_bytes(whole[:5] + bytes([whole[5] ^ 1]) + whole[6:])
    status, said = interop("log", small_log.folder, 1, small_log.vkey)
    assert (status, "inconsistent tile" in said) == (1, True)
    path.write_bytes(whole)
    path = small_log.folder / "tile/entries/000"
    path.write_bytes(path.read_bytes().replace(b'{"n":77}', b'{"n":78}', 1))
    assert interop("log", small_log.folder, 1, small_log.vkey)[0] == 1
    assert interop("log", small_log.folder, 256, small_log.vkey) == (0, "300\n")


def headers(built, size=None):
    return b"".join(frame.header() for frame in built.frames[:size])


def test_a_session(interop, tmp_path):
    built = build_session(commands=200)
    key = built.ephemeral.vkey
    (tmp_path / "headers").write_bytes(headers(built))
    (tmp_path / "note").write_bytes(built.checkpoint(len(built.frames)).note)
    assert interop("session", tmp_path / "headers", tmp_path / "note", key) == (0, "")
    (tmp_path / "note").write_bytes(built.checkpoint(2).note)
    assert interop("session", tmp_path / "headers", tmp_path / "note", key)[0] == 1
    (tmp_path / "headers").write_bytes(headers(built, 2))
    assert interop("session", tmp_path / "headers", tmp_path / "note", key) == (0, "")


def test_commands_that_make_no_sense(interop, tmp_path):
    (tmp_path / "note").write_bytes(b"")
    for arguments in ([], ["log"], ["checkpoint", tmp_path / "note"],
                      ["checkpoint", tmp_path / "note", "key"],
                      ["checkpoint", tmp_path / "nowhere", build_session().ephemeral.vkey],
                      ["log", tmp_path, 0, build_session().ephemeral.vkey]):  # fmt: skip
        assert interop(*arguments)[0] == 64


# -- verdicts of both ------------------------------------------------------------------------------


def opened(note, keys):
    """By our code: a checkpoint that all keys have signed; the first is the log's."""
    verifiers = [verifier_of(key) for key in keys]
    found = notes.open_note(note, verifiers)
    if len(found.verified) != len(verifiers):
        raise FormatError("not all keys have signed")
    checkpoint = notes.parse_checkpoint(found.text)
    if checkpoint.origin != verifiers[0].name:
        raise FormatError("another origin")
    return checkpoint


def hashes(data):
    text = data.decode("ascii")
    if text and not text.endswith("\n"):
        raise FormatError("a line that does not end")
    found = [base64_bytes(line, "hash") for line in text.split("\n")[:-1]]
    if len(found) > 63:
        raise FormatError("too many")
    return found


def ours(check, inputs, keys):
    """Whether our own code takes it."""
    try:
        if check == "checkpoint":
            opened(inputs[0], keys)
        elif check == "inclusion":
            proof = parse_proof(inputs[0])
            proof.check(inputs[1], opened(proof.note, keys))
        elif check == "consistency":
            old, new = (opened(note, keys) for note in inputs[:2])
            tree.verify_consistency(old.size, old.root, new.size, hashes(inputs[2]), new.root)
        else:
            checkpoint = opened(inputs[1], keys)
            size = 84
            parts = [inputs[0][at : at + size] for at in range(0, len(inputs[0]), size)]
            if any(len(part) != size for part in parts) or len(parts) != checkpoint.size:
                return False
            return tree.root([tree.leaf_hash(part) for part in parts]) == checkpoint.root
    except (FormatError, UnicodeDecodeError):
        return False
    return True


def mutants(data, rng, count=400):
    """Flipped bits, bytes lost, added and swapped, lines lost, doubled and swapped."""
    bits = len(data) * 8
    for bit in range(bits) if bits <= count else rng.sample(range(bits), count):
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
    for _ in range(count // 4):
        at = rng.randrange(len(data))
        yield data[:at] + data[at + 1 :]
        yield data[:at] + rng.choice([b"\r", b"\n", b" ", b"\0", b"\x7f", b"=", b"0"]) + data[at:]
        yield data[:at]
    parts = data.splitlines(keepends=True)
    for at in range(len(parts)):
        yield b"".join(parts[:at] + parts[at + 1 :])
        yield b"".join(parts[:at] + parts[at : at + 1] + parts[at:])
        yield b"".join(parts[:at] + parts[at + 1 : at + 2] + parts[at : at + 1] + parts[at + 2 :])
    yield data.replace(b"\n", b"\r\n")
    yield data + b"\n"
    yield b""


@pytest.fixture
def corpus(small_log, office):
    """(check, inputs, keys): what holds, and everything near it."""
    vkey, cosigned = office
    note, old = cosigned(small_log.note), cosigned(small_log.old[256])
    built = build_session(commands=8)
    path = path_of(small_log, tree.inclusion_ranges(258, 300))
    whole = [
        ("checkpoint", [note], [small_log.vkey, vkey]),
        ("inclusion", [LogProof(258, tuple(path), note, b"more").encode(), entry(258)],
         [small_log.vkey, vkey]),
        ("consistency",
         [old, note, lines(path_of(small_log, tree.consistency_ranges(256, 300))).encode()],
         [small_log.vkey, vkey]),
        ("consistency",
         [small_log.old[7], small_log.note,
          lines(path_of(small_log, tree.consistency_ranges(7, 300))).encode()], [small_log.vkey]),
        ("consistency", [note, note, b""], [small_log.vkey, vkey]),
        ("session", [headers(built), built.checkpoint(len(built.frames)).note],
         [built.ephemeral.vkey]),
    ]  # fmt: skip
    rng = random.Random(1)
    found = list(whole)
    for check, inputs, keys in whole:
        for place, data in enumerate(inputs):
            found += (
                [
                    (check, [*inputs[:place], mutant, *inputs[place + 1 :]], keys)
                    for mutant in mutants(data, rng)
                ]
                if data
                else []
            )
        found.append((check, inputs[::-1], keys))
    return whole, found


def test_both_give_the_same_verdict_over_everything_near_what_holds(interop, corpus):
    whole, cases = corpus
    theirs = interop.verdicts(cases)
    differ = [
        (check, inputs, said)
        for (check, inputs, keys), said in zip(cases, theirs, strict=True)
        if ours(check, inputs, keys) != (said is None)
    ]
    assert not differ, differ[0]
    assert theirs[: len(whole)] == [None] * len(whole)
    taken = sum(said is None for said in theirs)
    # What is taken besides: `extra` is signed by nobody, ML-DSA lines are not looked at.
    assert len(whole) <= taken < len(cases) / 4
    assert len(cases) > 5000


ORDER = 2**252 + 27742317777372353535851937790883648493


def test_both_are_strict_about_signatures(interop, small_log):
    note = small_log.old[7]
    head, _, encoded = note.rpartition(b" ")
    raw = base64.b64decode(encoded)
    s = int.from_bytes(raw[36:], "little")
    second = raw[:36] + (s + ORDER).to_bytes(32, "little")
    small = raw[:4] + b"\1" + bytes(31) + raw[36:]
    loose = encoded[:-4] + bytes([encoded[-4] + 1]) + encoded[-3:]  # stray bits
    odd = [second, small, raw + b"\0", raw[:-1]]
    cases = [head + b" " + base64.b64encode(one) + b"\n" for one in odd]
    cases += [head + b" " + loose, head + b" " + encoded[:20] + b"\r" + encoded[20:]]
    questions = [("checkpoint", [one], [small_log.vkey]) for one in [note, *cases]]
    assert interop.verdicts(questions)[0] is None
    assert all(interop.verdicts(questions)[1:])
    assert [ours(*one) for one in questions] == [True] + [False] * len(cases)


def test_both_refuse_weak_keys(interop, small_log):
    for y in (b"\0" * 32, b"\1" + b"\0" * 31, (2**255 - 20).to_bytes(32, "little"),
              (2**255 - 19 + 3).to_bytes(32, "little")):  # fmt: skip
        key = b"\1" + y
        vkey = f"x+{notes.key_id('x', y).hex()}+{base64.b64encode(key).decode()}"
        question = ("checkpoint", [small_log.note], [vkey])
        assert interop.verdicts([question])[0] is not None
        with pytest.raises(FormatError):
            verifier_of(vkey)
