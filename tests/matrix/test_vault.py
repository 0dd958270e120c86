"""Every operator on every object of a live deployment's vault: found, located, rightly judged."""

import itertools
import random
import re

import pytest

from tests.factories.deployments import reading
from tests.indexer.harm import overwrite
from tests.matrix.operators import mutants
from tests.stories.deployed import judged, place

# Objects of which a change may change nothing, and why; a change of any other one is found.
NEUTRAL = [
    (
        r"log/v1/1/tile/(0|entries)/000\.p/\d+",
        "a partial tile that a later one replaced: the log is read without it",
    ),
    (r"log/v1/1/checkpoint", "signatures in another order, or one twice"),
    (r"log/v1/1/checkpoint\.pending", "it vouches for nothing; any valid signature will do"),
    (r"log/v1/1/checkpoints/\d+", "signatures in another order, or one twice"),
]
PER_OBJECT = 5


def files_of(site):
    """Objects; what begins with a dot is the store's own."""
    vault = site.folder / "vault"
    return sorted(path for path in vault.rglob("[!.]*") if path.is_file())


def newest(site, name):
    """Whether an object is one that the log is read by: of partial tiles, the widest."""
    stem, _, width = name.rpartition("/")
    if not stem.endswith(".p"):
        return True
    widths = [int(path.name) for path in (site.folder / "vault" / stem).iterdir()]
    return int(width) == max(widths)


def neutral(site, path, data, other):
    name = place(site, path)
    if not any(re.fullmatch(pattern, name) for pattern, _ in NEUTRAL):
        return False
    if "/tile/" in name:
        return not newest(site, name)
    text, _, lines = data.partition(b"\n\n")
    other_text, _, other_lines = other.partition(b"\n\n")
    if name.endswith(".pending"):
        return text == other_text
    return text == other_text and set(lines.splitlines()) == set(other_lines.splitlines())


def located(report, name):
    """A finding of the layer names the very object, or for a bundle the entries in it."""
    where = {(finding.layer, finding.object) for finding in report.findings}
    if name.endswith(".manifest.jsonl"):
        segment = name.replace(".manifest.jsonl", ".parquet")
        return ("manifest", segment) in where
    if name.endswith(".parquet"):
        return bool({("object", name), ("frame", name)} & where)
    if ("log", name) in where:
        return True
    bundle = re.fullmatch(r"log/v1/1/tile/entries/000\.p/(\d+)", name)
    entries = range(int(bundle[1])) if bundle else ()
    return any(("ledger", f"log entry {index}") in where for index in entries)


async def missed(site, seed, per_object):
    """What passed, and what was found without saying where."""
    found = []
    luck = random.Random(f"vault {seed}")
    async with reading(site) as stores:
        for path in files_of(site):
            data = path.read_bytes()
            made = list(mutants(data, f"{seed} {place(site, path)}"))
            for what, other in luck.sample(made, min(per_object, len(made))):
                overwrite(path, other)
                report = await judged(site, stores=stores)
                name = place(site, path)
                if report.verdict not in ("tampered", "incomplete"):
                    if not neutral(site, path, data, other):
                        found.append(f"{name}: {what}: {report.verdict}")
                elif not located(report, name):
                    found.append(f"{name}: {what}: not located")
            overwrite(path, data)
    return found


async def test_every_change_is_found(site):
    assert await missed(site, 0, PER_OBJECT) == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 41))
async def test_every_change_is_found_soak(site, seed):
    assert await missed(site, seed, 10_000) == []


async def test_every_object_that_is_gone_is_missed(site):
    """But for what the table names: an object that nothing is read by."""
    spared = re.compile(r"log/v1/1/(checkpoint\.pending|checkpoints/\d+)")
    for path in files_of(site):
        name, kept = place(site, path), path.read_bytes()
        path.unlink()
        report = await judged(site)
        if not spared.fullmatch(name) and report.verdict not in ("tampered", "incomplete"):
            assert any(re.fullmatch(pattern, name) for pattern, _ in NEUTRAL), name
        path.write_bytes(kept)


async def test_every_object_in_the_place_of_another(site):
    """Objects of the same kind, swapped."""
    swapped = []
    files = files_of(site)
    for one, other in itertools.pairwise(files):
        if one.suffix != other.suffix or one.read_bytes() == other.read_bytes():
            continue
        kept = one.read_bytes(), other.read_bytes()
        overwrite(one, kept[1])
        overwrite(other, kept[0])
        report = await judged(site)
        if report.verdict not in ("tampered", "incomplete"):
            swapped.append((place(site, one), place(site, other)))
        overwrite(one, kept[0])
        overwrite(other, kept[1])
    assert swapped == []
