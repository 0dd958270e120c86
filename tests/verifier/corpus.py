"""Bundles, and what can be done to each of their files; both verifiers are asked about all of it.

Sums are made anew after a change, as whoever changes a bundle would. A change of the ZIP file's
own bytes is apart: there every byte follows from the files.
"""

import random

from tests.factories.bundles import stamped, story, with_authority
from tests.vectors import generate_bundle as made
from tests.vectors.generate_bundle import policy

__all__ = ["BUNDLES", "NEUTRAL", "UNCHECKED", "exchanged", "flips", "mutants"]

_WITH_ML_DSA_KEY = policy(ml_dsa=True).replace("ml_dsa_from = 0\n", "")

BUNDLES = {
    "whole": (made.whole(), policy()),
    "redacted": (made.redacted(), policy()),
    "recovered": (made.recovered(), policy()),
    "deleted": (made.deleted(), policy()),
    "erased": (made.deleted(erasure=True), policy()),
    "held": (made.deleted(hold=True), policy()),
    "early": (made.deleted(wait_s=300), policy()),
    "unsealed": (made.unsealed(), policy()),
    "lost": (made.lost(), policy()),
    "gap": (made.whole(gap=True), policy()),
    "unmonitored": (made.whole(made.BOTH[:1]), policy(require="[]")),
    "cut": (story(cuts=(2, 3)), policy()),
    "stamped": (stamped(story()), with_authority()),
    "ml-dsa": (made.with_ml_dsa(), _WITH_ML_DSA_KEY),
}
"""(files, policy) by name."""

# In which files a change may leave the verdict as it was, and why.
NEUTRAL = {
    r"README\.txt": "a text for people; no verifier reads it",
    r"checkpoints/\d+": "a line by a key that the policy does not have is ignored, as notes demand;"
    " so is a cosignature more or less where the quorum does not need it",
    r"checkpoints/\d+\.consistency": "without checkpoint and proof there is one bound less",
    r"timestamps/.*": "a stamp that is not required may be missing; bytes of it that no signature"
    " covers may be others",
    r"checkpoints/\d+\.mldsa": "a signature that is not required may be missing",
    r"keys/\d+\.jsonl": "what is not disclosed is not judged",
}

# Files that the second verifier does not look into: it may see nothing where the first does.
UNCHECKED = {
    r"timestamps/.*": "RFC 3161",
    r"checkpoints/\d+\.mldsa": "ML-DSA-44",
}


def flips(data, count, luck):
    """One bit of every byte, or of `count` bytes of a longer file."""
    places = range(len(data)) if len(data) <= count else luck.sample(range(len(data)), count)
    for at in places:
        bit = 1 << luck.randrange(8)
        yield f"bit of byte {at}", data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def ends(data, luck):
    for cut in sorted({0, 1, 31, 84, 88, len(data) // 2, len(data) - 1, luck.randrange(len(data))}):
        yield f"cut at {cut}", data[:cut]
    for more in (b"\n", b"\0", b"AAAA\n", data):
        yield f"append {more[:8]!r}", data + more


def parts(data, luck):
    """Lines, or stretches as long as a hash: one dropped, one twice, two swapped."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 3 or b"\0" in data:
        lines = [data[at : at + 32] for at in range(0, len(data), 32)]
    if len(lines) > 1:
        one, other = sorted(luck.sample(range(len(lines)), 2))
        yield f"drop part {one}", b"".join([*lines[:one], *lines[one + 1 :]])
        yield f"part {one} twice", b"".join([*lines[: one + 1], *lines[one:]])
        lines[one], lines[other] = lines[other], lines[one]
        yield f"swap parts {one} and {other}", b"".join(lines)


def mutants(name, seed, count):
    """(what, file, files): each operator on the bytes of each file."""
    files, _ = BUNDLES[name]
    for file, data in files.items():
        luck = random.Random(f"{seed} {name} {file}")
        for what, other in (*flips(data, count, luck), *ends(data, luck), *parts(data, luck)):
            if other != data:
                yield f"{name}: {file}: {what}", (file,), {**files, file: other}


# The frames of these are the same, withheld in one of them; and of a deleted session frames may be
# there or not: whatever is there is verified.
SAME_FRAMES = (
    {"whole", "redacted", "unmonitored", "cut", "stamped", "ml-dsa"},
    {"deleted", "erased", "held", "early"},
)


def same_frames(name, source, file):
    return file == "frames/0.bin" and any({name, source} <= group for group in SAME_FRAMES)


def exchanged(name):
    """(what, files touched, files): whole files dropped, swapped, another bundle's, renamed."""
    files, _ = BUNDLES[name]
    for one in files:
        rest = {file: files[file] for file in files if file != one}
        yield f"{name}: without {one}", (one,), rest
        for other in files:
            if one < other and files[one] != files[other]:
                swapped = {**files, one: files[other], other: files[one]}
                yield f"{name}: {one} and {other} swapped", (one, other), swapped
    for source, (strange, _) in BUNDLES.items():
        for file, data in strange.items():
            if files.get(file) != data and not same_frames(name, source, file):
                yield f"{name}: {file} of {source}", (file,), {**files, file: data}
    for file in files:
        if file.startswith("entries/"):
            yield f"{name}: {file} once more", (file,), {**files, "entries/99.json": files[file]}
