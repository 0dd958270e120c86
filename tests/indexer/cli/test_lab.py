from sealtape.indexer.cli.lab import ensure_log_files, lab_log
from sealtape.indexer.cli.log_files import LAB_WITNESSES
from tests.factories.deployments import make_site
from tests.factories.logs import grow_log, read_log


async def test_its_witnesses_answer_while_it_is_open(tmp_path):
    site = make_site(tmp_path / "lab")
    async with lab_log(site.settings, None, None) as parts:
        assert {witness.name for witness in parts.policy.witnesses} == set(LAB_WITNESSES)
        assert all(witness.url for witness in parts.policy.witnesses)
        assert [status.state for status in parts.cosigners.snapshot()] == ["unasked"] * len(
            LAB_WITNESSES
        )


async def test_a_witness_that_has_a_url_is_asked_there(tmp_path):
    site = make_site(tmp_path / "lab")
    policy = site.folder / "log.policy"
    lines = [
        f"{line} http://127.0.0.1:9" if line.startswith("witness witness") else line
        for line in policy.read_text().splitlines()
    ]
    policy.write_text("\n".join(lines) + "\n")
    async with lab_log(site.settings, None, None) as parts:
        urls = {witness.name: witness.url for witness in parts.policy.witnesses}
        assert urls["witness"] == "http://127.0.0.1:9"


async def test_without_their_keys_they_are_not_there(tmp_path):
    site = make_site(tmp_path / "lab")
    for path in LAB_WITNESSES.values():
        (site.folder / path).unlink()
    async with lab_log(site.settings, None, None) as parts:
        assert not any(witness.url for witness in parts.policy.witnesses)


async def test_an_older_lab_gets_what_it_lacks(tmp_path):
    site = make_site(tmp_path / "lab")
    ensure_log_files(site.settings)
    for name in ("log", "log.mldsa", "admin", "witness", "monitor"):
        (site.folder / f"keys/{name}.key").unlink()
    for name in ("log.policy", "policy.toml"):
        (site.folder / name).unlink()
    ensure_log_files(site.settings)
    await grow_log(site)
    assert (await read_log(site))[1].size > 0
