"""Every operator on every file of bundles, sums made anew: all is found, in the right class.

A change of the ZIP file itself is `form`, which every byte follows from; so the operators work on
what is in it, as whoever makes a bundle would.
"""

import json
import random
import re

import pytest

from tests.factories.bundles import judged, stamped, story, with_authority
from tests.matrix.operators import mutants
from tests.vectors.bundle_parts import packed
from tests.vectors.generate_bundle import deleted, policy, recovered, redacted, whole, with_ml_dsa

ML_DSA = policy(ml_dsa=True)
BUNDLES = {
    "whole": (whole(), policy(), "verified"),
    "redacted": (redacted(), policy(), "verified"),
    "recovered": (recovered(), policy(), "verified"),
    "deleted": (deleted(), policy(), "deleted"),
    "ml-dsa": (with_ml_dsa(), ML_DSA, "verified"),
    "stamped": (stamped(story()), with_authority(), "verified"),
}

# Where, under which changes the verdict may stay what it was, and why.
NEUTRAL = [
    (r"README\.txt", "a text for people; nothing is proven by it"),
    (r"timestamps/\d+/one\.tsr", "RFC 3161 tokens are malleable outside of what is signed"),
    (r"timestamps/\d+/one\.pem", "text around the certificates, and ones no chain needs"),
    (r"checkpoints/\d+", "a stranger's cosignature on a checkpoint that only bounds times"),
]
CLASSES = {"tampered", "incomplete"}
SEEDS = range(1)
SOAK_SEEDS = range(200)


CLASSES = {"tampered", "incomplete"}
SEEDS = range(1)
SOAK_SEEDS = range(200)


def top_of(files):
    """The checkpoint that everything is proven under; a change of it is never neutral."""
    return f"checkpoints/{json.loads(files['bundle.json'])['checkpoint']}"


def neutral(files, place, other):
    """Whether the table says why this change may change nothing."""
    if place == top_of(files):
        return same_signatures(files[place], other)
    if place.endswith(".mldsa"):
        # At which place among the note's signatures the line stood; not the line.
        return files[place].partition(b" ")[2] == other.partition(b" ")[2]
    return any(re.fullmatch(pattern, place) for pattern, _ in NEUTRAL)


def same_signatures(note, other):
    """The same text with all the same signatures: their order, and saying one twice, is nothing."""
    text, _, lines = note.partition(b"\n\n")
    other_text, _, other_lines = other.partition(b"\n\n")
    return text == other_text and set(lines.splitlines()) == set(other_lines.splitlines())


def each(name, seeds):
    """(place, what was done, the files) for every mutant of a bundle."""
    files, _, _ = BUNDLES[name]
    for seed in seeds:
        for place, content in files.items():
            for what, other in mutants(content, f"{seed} {place}"):
                yield f"{place} {what} seed {seed}", place, {**files, place: other}


def missed(name, seeds):
    """The mutants that passed, and those whose finding says nothing of where."""
    files, rules, verdict = BUNDLES[name]
    found = []
    for what, place, mutant in each(name, seeds):
        report = judged(mutant, rules)
        if report.verdict in CLASSES:
            if not all(finding.object and finding.reason for finding in report.findings):
                found.append(f"{what}: a finding without a place")
        elif report.verdict != verdict or not neutral(files, place, mutant[place]):
            found.append(f"{what}: {report.verdict}")
    return found


@pytest.mark.parametrize("name", BUNDLES)
def test_before_any_change_all_is_well(name):
    files, rules, verdict = BUNDLES[name]
    assert judged(files, rules).verdict == verdict


@pytest.mark.parametrize("name", BUNDLES)
def test_every_change_is_found(name):
    assert missed(name, SEEDS) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", BUNDLES)
def test_every_change_is_found_soak(name):
    assert missed(name, SOAK_SEEDS) == []


# -- whole files -----------------------------------------------------------------------------------


def exchanged(name):
    """(what, the places touched, files): dropped, emptied, swapped, another's, added."""
    files, _, _ = BUNDLES[name]
    places = sorted(files)
    for one in places:
        yield f"drop {one}", [one], {place: files[place] for place in places if place != one}
        yield f"empty {one}", [one], {**files, one: b""}
        for other in places:
            if one < other and files[one] != files[other]:
                yield f"swap {one} {other}", [one, other], {
                    **files, one: files[other], other: files[one]
                }  # fmt: skip
    for source, (strange, _, _) in BUNDLES.items():
        for place in sorted(strange):
            if {name, source, place} <= SAME:
                continue
            if files.get(place) != strange[place]:
                yield f"{place} of {source}", [place], {**files, place: strange[place]}


# Whole files without which, or with another's in its place, less is shown and nothing is wrong.
WITHOUT = [
    *NEUTRAL,
    (r"keys/\d+\.jsonl", "keys given for a payload: one fewer discloses less"),
    (r"timestamps/.*", "a time-stamp more or less"),
    (r"checkpoints/\d+\.mldsa", "an ML-DSA-44 line that no policy asks for"),
]


# These are of one session, and say the same frames: withheld in one, there in the others.
SAME = {"whole", "redacted", "ml-dsa", "stamped", "frames/0.bin"}


@pytest.mark.parametrize("name", BUNDLES)
def test_files_dropped_swapped_and_spliced(name):
    _, rules, verdict = BUNDLES[name]
    passed = []
    for what, touched, files in exchanged(name):
        report = judged(files, rules)
        known = all(any(re.fullmatch(p, place) for p, _ in WITHOUT) for place in touched)
        if report.verdict not in CLASSES and not (known and report.verdict == verdict):
            passed.append(f"{what}: {report.verdict}")
    assert passed == []


# -- frames: located to the frame ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole", "recovered", "ml-dsa"])
def test_a_changed_frame_is_named(name):
    files, rules, _ = BUNDLES[name]
    luck = random.Random(name)
    data = files["frames/0.bin"]
    places = bounds(data)
    for seq, (start, end) in enumerate(places):
        for _ in range(12):
            bit = luck.randrange(start * 8, end * 8)
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            report = judged({**files, "frames/0.bin": bytes(changed)}, rules)
            assert report.verdict == "tampered"
            spans = [f.frames for f in report.findings if f.frames is not None]
            assert any(lo <= seq < hi for lo, hi in spans), (seq, bit, spans)


def bounds(data):
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at + 84 : at + 88], "big")
        end = at + 88 + (0 if length == 0xFFFFFFFF else length)
        found.append((at, end))
        at = end
    return found


# -- the file itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLES)
def test_every_change_of_the_file_is_a_matter_of_form(name):
    files, rules, _ = BUNDLES[name]
    data = packed(files)
    for seed in range(20):
        for what, other in mutants(data, seed, ("flip", "zero", "cut", "append", "chunks")):
            report = judged(other, rules)
            assert (report.verdict, report.findings[0].step) == ("tampered", "form"), what
