"""Bundles out of real stores and a real log, judged by the deployment's own evidence policy."""

import base64
import io
import json
import shutil
import subprocess
import zipfile

import pytest

from sealtape.indexer import export as exporting
from sealtape.indexer.evidence import selection
from sealtape.indexer.export import Exporter, Frames
from sealtape.indexer.reading import Keys
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.vault import open_vault
from sealtape.schemas import bundle
from sealtape.schemas.errors import NotFound, StoreCorrupt, UsageError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.notes import Verifier
from sealtape.schemas.verify.bundle import verify_bundle
from sealtape.schemas.verify.steps import State
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


async def export(site, session, place, *, keys=False, **options):
    base = site.folder
    ledger = await open_ledger(site.settings.stores.ledger, base, read_only=True)
    vault = await open_vault(site.settings.stores.vault, base)
    keyring = await open_keyring(site.settings.stores.keyring, base, read_only=True)
    try:
        exporter = Exporter(
            ledger,
            vault,
            keys=Keys(keyring, site.auditor) if keys else None,
            progress=lambda *_: None,
        )
        return await exporter.export(session, place, **options)
    finally:
        await keyring.close()
        await vault.close()
        await ledger.close()


def judge(site, place):
    policy = parse_evidence_policy((site.folder / "policy.toml").read_bytes())
    return verify_bundle(place.read_bytes(), policy)


async def sealed(site, *sessions):
    await seal(site, list(sessions))
    await grow_log(site)


async def test_a_session_verifies_outside_of_its_deployment(site, tmp_path):
    built = site.session(commands=4)
    await sealed(site, built, site.session(commands=2, seed=9))
    done = await export(site, built.session, tmp_path / "b.zip")
    report = judge(site, tmp_path / "b.zip")
    assert (report.verdict, report.findings) == ("verified", [])
    assert report.session == built.session
    assert (done.lacking, done.frames, done.keys) == ([], len(built.frames), 0)
    assert done.size == (tmp_path / "b.zip").stat().st_size
    assert report.frames == len(built.frames)


async def test_two_exports_have_the_same_bytes(site, tmp_path):
    built = site.session(commands=4)
    await sealed(site, built)
    for name in ("a.zip", "b.zip"):
        await export(site, built.session, tmp_path / name, keys=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.zip", "b.zip", "lab"]


async def test_redacted_frames_and_single_keys(site, tmp_path):
    built = site.session(commands=4)
    await sealed(site, built)
    place = tmp_path / "b.zip"
    redact = Frames(((0, 2, 4),))
    done = await export(site, built.session, place, keys=True, redact=redact)
    report = judge(site, place)
    assert report.verdict == "verified"
    assert report.state("payloads") == State.PASS
    assert [(span.what, span.lo, span.hi) for span in report.spans] == [("withheld", 2, 4)]
    opened = bundle.open_bundle(place.read_bytes())
    keys = dict(bundle.parse_keys(opened.bytes_of("keys/0.jsonl")))
    encrypted = {frame.seq for frame in built.frames if frame.suite == 2}
    assert set(keys) == encrypted - {2, 3}
    assert (done.withheld, done.keys) == (2, len(keys))
    hidden = built.frames[2].payload
    assert hidden not in place.read_bytes()


async def test_keys_of_chosen_frames_only(site, tmp_path):
    built = site.session(commands=4)
    await sealed(site, built)
    place = tmp_path / "b.zip"
    await export(site, built.session, place, keys=True, disclose=Frames(((0, 1, 2), (0, 5, 6))))
    opened = bundle.open_bundle(place.read_bytes())
    assert [seq for seq, _ in bundle.parse_keys(opened.bytes_of("keys/0.jsonl"))] == [1, 5]
    assert judge(site, place).verdict == "verified"


async def test_a_public_frame_is_not_redacted(site, tmp_path):
    built = site.session(commands=1)
    await sealed(site, built)
    with pytest.raises(UsageError, match="public"):
        await export(site, built.session, tmp_path / "b.zip", redact=Frames(((0, 0, 1),)))
    assert [item.name for item in tmp_path.iterdir()] == ["lab"]


async def test_a_session_that_is_too_large(site, tmp_path, monkeypatch):
    """Written all the same, it would be called tampered."""
    built = site.session(commands=1)
    await sealed(site, built)
    monkeypatch.setattr(exporting, "MAX_ENTRIES", 3)
    with pytest.raises(NotFound, match=r"too large for a bundle: \d+ entries; 3 are read"):
        await export(site, built.session, tmp_path / "b.zip")
    monkeypatch.undo()
    monkeypatch.setitem(bundle._SINGLE, bundle.README, 10)
    with pytest.raises(NotFound, match=r"too large for a bundle: README\.txt has"):
        await export(site, built.session, tmp_path / "b.zip")
    assert [item.name for item in tmp_path.iterdir()] == ["lab"]


@pytest.mark.parametrize("choice", ["redact", "disclose"])
@pytest.mark.parametrize(
    ("ranges", "named"),
    [(((0, 99, 100),), "0:99"), (((0, 2, 3), (1, 2, 3)), "1:2"), (((0, 98, 101),), "0:98-100")],
)
async def test_a_choice_of_frames_that_are_not_there(site, tmp_path, choice, ranges, named):
    """A slip must not hand out what was to be withheld."""
    built = site.session(commands=1)
    await sealed(site, built)
    with pytest.raises(UsageError, match=f"no frame {named}: nothing was written"):
        await export(site, built.session, tmp_path / "b.zip", **{choice: Frames(ranges)})
    assert [item.name for item in tmp_path.iterdir()] == ["lab"]


async def test_a_choice_that_begins_or_ends_beyond_the_frames(site, tmp_path):
    built = site.session(commands=2)
    await sealed(site, built)
    choice = {"redact": Frames(((0, 1, 3), (0, 5, 6))), "disclose": Frames(((0, 0, 10**6),))}
    done = await export(site, built.session, tmp_path / "b.zip", keys=True, **choice)
    assert (done.frames, done.withheld, done.keys) == (7, 3, 2)


async def test_a_recovered_session(site, tmp_path):
    first = site.session(commands=4, close=None, final_checkpoint=False, seed=3)
    second = site.session(
        commands=1, session=first.session, epoch=1, continues=first.continues, close="aborted",
        seed=4,
    )  # fmt: skip
    await sealed(site, first, second)
    await export(site, first.session, tmp_path / "b.zip")
    report = judge(site, tmp_path / "b.zip")
    assert (report.verdict, report.epochs) == ("verified", 2)
    assert [(span.what, span.lo) for span in report.spans] == [("attested", 2)]


async def test_what_is_not_in_the_log_yet(site, tmp_path):
    built = site.session(commands=2)
    await seal(site, [built])
    with pytest.raises(NotFound, match="witnessed"):
        await export(site, built.session, tmp_path / "b.zip")
    await grow_log(site)
    with pytest.raises(NotFound, match="No frame"):
        await export(site, bytes(16), tmp_path / "b.zip")


async def test_a_session_that_is_not_sealed_yet(site, tmp_path):
    live = site.session(commands=4, close=None, seed=5)
    await sealed(site, live)
    done = await export(site, live.session, tmp_path / "b.zip")
    assert "epoch 0 is not sealed in the log yet" in done.lacking
    report = judge(site, tmp_path / "b.zip")
    assert report.verdict == "incomplete"
    assert {finding.step for finding in report.findings} == {"seals"}


async def test_an_object_that_was_exchanged_is_not_exported(site, tmp_path):
    built = site.session(commands=2)
    await sealed(site, built)
    (segment,) = (site.folder / "vault").rglob("*.parquet")
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes()[:-1] + b"\0")
    with pytest.raises(StoreCorrupt, match="not the object"):
        await export(site, built.session, tmp_path / "b.zip")


async def test_an_object_that_is_gone_is_missing_in_the_bundle(site, tmp_path):
    built = site.session(commands=2)
    await sealed(site, built)
    (segment,) = (site.folder / "vault").rglob("*.parquet")
    segment.unlink()
    done = await export(site, built.session, tmp_path / "b.zip")
    assert "not in the vault" in done.lacking[0]
    report = judge(site, tmp_path / "b.zip")
    assert report.verdict == "tampered"
    assert [finding.step for finding in report.findings] == ["frames"]


async def test_a_manifest_of_other_fragments(site, tmp_path):
    built = site.session(commands=2)
    await sealed(site, built)
    (manifest,) = (site.folder / "vault").rglob("*.manifest.jsonl")
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes().replace(b'"lo":"0"', b'"lo":"1"'))
    with pytest.raises(StoreCorrupt, match="manifest"):
        await export(site, built.session, tmp_path / "b.zip")


async def test_a_ledger_whose_entries_are_not_the_logs(site, tmp_path, monkeypatch):
    built = site.session(commands=2)
    await sealed(site, built)
    monkeypatch.setattr(selection, "inclusion_root", lambda *_: bytes(32))
    with pytest.raises(StoreCorrupt, match="checkpoint"):
        await export(site, built.session, tmp_path / "b.zip")


async def test_by_hand_as_the_readme_says(site, tmp_path):
    built = site.session(commands=2)
    await sealed(site, built)
    place = tmp_path / "b.zip"
    await export(site, built.session, place)
    with zipfile.ZipFile(io.BytesIO(place.read_bytes())) as reader:
        reader.extractall(tmp_path / "bundle")
        about = json.loads(reader.read("bundle.json"))
    text = (tmp_path / "bundle/README.txt").read_text()
    assert f"checkpoints/{about['checkpoint']}" in text
    if shutil.which("sha256sum"):
        run(tmp_path / "bundle", "sha256sum -c SHA256SUMS")
    if shutil.which("openssl"):
        script = text.split("in log.pem:\n")[1].split("With Go")[0]
        policy = parse_evidence_policy((site.folder / "policy.toml").read_bytes())
        (log,) = [key.verifier for key in policy.tlog.logs if isinstance(key.verifier, Verifier)]
        (tmp_path / "bundle/log.pem").write_bytes(public_pem(log.public))
        assert "Signature Verified Successfully" in run(tmp_path / "bundle", script)
    script = text.split("The first:\n")[1].split("With DuckDB")[0]
    shown = run(tmp_path / "bundle", script).split("\n")
    header_digest = "".join(" ".join(shown[:2]).split())
    assert header_digest == shown[2].split()[0]
    leaf = text.split("Its leaf hash is\n")[1].split("`inclusion`")[0]
    entry = (tmp_path / "bundle/entries/0.json").read_bytes()
    assert run(tmp_path / "bundle", leaf).split()[0] == bundle.entry_hash(entry).hex()


def public_pem(raw):
    """An Ed25519 key as OpenSSL reads it."""
    encoded = base64.encodebytes(bytes.fromhex("302a300506032b6570032100") + raw)
    return b"-----BEGIN PUBLIC KEY-----\n" + encoded + b"-----END PUBLIC KEY-----\n"


def run(folder, script):
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
