"""Who has the auditors' private key: he reads everything, and can change nothing."""

import shutil
from dataclasses import replace

from sealtape.schemas.keys import open_payload
from tests.factories.deployments import Forger, audit, make_site, seal
from tests.indexer.harm import tampered


async def test_he_reads(deployed):
    site = deployed.site
    report = await audit(site, key=site.auditor)
    assert report.verdict == "verified"
    assert not any("cannot be read" in note for note in report.notes)


async def test_he_seals_other_contents_under_the_same_key(tmp_path):
    """With the session's data key a payload opens as if it were real; its digest is another's."""
    site = make_site(tmp_path / "site")
    built = site.session(commands=3)
    await seal(site, [built])
    kept = tmp_path / "kept"
    shutil.copytree(site.folder, kept)
    frame = built.frames[2]
    other = built.frames[4]
    label = built.label_keys.data
    assert open_payload(frame, label)
    forged = replace(frame, payload=other.payload)
    for forge in (Forger.write_object, Forger.write_all):
        forger = Forger(site)
        forger.put(built, 2, forged)
        forge(forger)
        tampered(await audit(site, key=site.auditor), session=built.session.hex())
