"""Who may write, delete and restore any object of the vault, and holds no key."""

import shutil

import pytest

from sealtape.ingest.tlog.store import CHECKPOINT, PENDING
from tests.indexer.harm import overwrite, tampered
from tests.stories.deployed import judged, log_file, place


def manifest_of(path):
    return path.with_name(path.stem + ".manifest.jsonl")


async def test_before_the_attack_all_is_well(deployed):
    for site in (deployed.site, deployed.earlier):
        report = await judged(site)
        assert [finding.to_json() for finding in report.findings] == []
        assert report.verdict == "verified"


async def test_he_swaps_two_recordings(site):
    one, other = site.objects()
    data = one.read_bytes(), other.read_bytes()
    overwrite(one, data[1])
    overwrite(other, data[0])
    for path in (one, other):
        tampered(await judged(site), layer="object", object=place(site, path))


async def test_he_swaps_two_recordings_with_their_manifests(site):
    for suffix in (".parquet", ".manifest.jsonl"):
        one, other = site.objects(suffix)
        data = one.read_bytes(), other.read_bytes()
        overwrite(one, data[1])
        overwrite(other, data[0])
    for path in site.objects():
        tampered(await judged(site), object=place(site, path))


async def test_he_drops_a_recording(site, deployed):
    """A delete marker of S3 is the same to whoever reads: the object is not there."""
    path = site.objects()[0]
    path.unlink()
    report = await judged(site)
    tampered(report, layer="object", object=place(site, path))
    for built in deployed.first:
        tampered(report, layer="frame", session=built.session.hex())


async def test_he_drops_a_recording_and_its_manifest(site):
    path = site.objects()[1]
    path.unlink()
    manifest_of(path).unlink()
    report = await judged(site)
    tampered(report, layer="object", object=place(site, path))
    tampered(report, layer="log", reason="manifest")


async def test_he_rewrites_one_byte_of_a_payload(site, deployed):
    path = site.objects()[1]
    frame = deployed.second[0].frames[3]
    data = bytearray(path.read_bytes())
    data[data.index(frame.payload) + 20] ^= 1
    overwrite(path, bytes(data))
    found = tampered(
        await judged(site), layer="frame", session=deployed.second[0].session.hex(), seq=3
    )
    assert {finding.seq for finding in found if finding.layer == "frame"} == {3}


async def test_he_puts_back_all_objects_of_an_earlier_day(site, deployed):
    shutil.rmtree(site.folder / "vault")
    shutil.copytree(deployed.earlier.folder / "vault", site.folder / "vault")
    report = await judged(site)
    tampered(report, layer="object", reason="it is gone")
    tampered(report, layer="log", object=place(site, log_file(site, CHECKPOINT)))


async def test_he_puts_back_the_log_of_an_earlier_day(site, deployed):
    shutil.rmtree(log_file(site))
    shutil.copytree(log_file(deployed.earlier), log_file(site))
    tampered(await judged(site), layer="log", object=place(site, log_file(site, CHECKPOINT)))


@pytest.mark.parametrize("name", [CHECKPOINT, PENDING])
async def test_he_puts_back_a_checkpoint_of_an_earlier_day(site, deployed, name):
    """The pending one vouches for nothing; the other is behind what was witnessed."""
    overwrite(log_file(site, name), log_file(deployed.earlier, name).read_bytes())
    report = await judged(site)
    if name == PENDING:
        assert report.verdict == "verified"
    else:
        tampered(report, layer="log", object=place(site, log_file(site, name)))


async def test_he_hides_a_kept_checkpoint_and_the_log_goes_on_without_it(site):
    """The kept notes are anchors; without one less is bounded in time, and nothing is wrong."""
    path = min(log_file(site, "checkpoints").iterdir())
    path.unlink()
    assert (await judged(site)).verdict == "verified"


async def test_he_removes_the_whole_log(site):
    shutil.rmtree(log_file(site))
    tampered(await judged(site), layer="log")


async def test_he_exchanges_a_kept_checkpoint_for_another(site):
    kept = sorted(log_file(site, "checkpoints").iterdir())
    assert len(kept) > 1
    overwrite(kept[0], kept[-1].read_bytes())
    tampered(await judged(site), layer="log", object=place(site, kept[0]))


async def test_he_adds_an_object_of_his_own(site):
    path = site.objects()[1]
    name = path.stem.rpartition("-")[0][:-1] + "0-1.parquet"
    assert name != path.name
    shutil.copy(path, path.with_name(name))
    tampered(await judged(site), layer="ledger", object=place(site, path.with_name(name)))
