"""Whether a vault answers: found out without anything to put there, and not asked all the time."""

import logging
from pathlib import Path

import pytest

from sealtape.ingest.vault import open_vault, standing
from sealtape.ingest.vault.file import FileVault
from sealtape.ingest.vault.standing import Standing
from sealtape.schemas.errors import StoreError
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url, s3_vault


class Counting(FileVault):
    asked = 0

    def keys(self, prefix="", after=""):
        self.asked += 1
        return super().keys(prefix, after)


async def test_a_good_answer_counts_for_a_while(tmp_path, monkeypatch):
    vault = Counting(tmp_path)
    asking = Standing(vault)
    for _ in range(3):
        await asking.ask()
    assert vault.asked == 1
    monkeypatch.setattr(standing, "ASK_EVERY_S", 0.0)
    await asking.ask()
    assert vault.asked == 2


async def test_what_is_no_folder_is_asked_again_until_it_is_one(tmp_path, caplog):
    (tmp_path / "vault").write_text("in the way")
    asking = Standing(FileVault(tmp_path / "vault"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(StoreError):
                await asking.ask()
    assert len(caplog.records) == 1
    (tmp_path / "vault").unlink()
    await asking.ask()


@pytest.mark.parametrize("wrong", ["secret", "bucket"])
async def test_wrong_credentials_and_no_bucket_are_found_out(s3, monkeypatch, wrong):
    bucket = "b-nobody" if wrong == "bucket" else s3.bucket()
    if wrong == "secret":
        monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    async with s3_vault(s3, bucket) as vault:
        with pytest.raises(StoreError, match="answered 40"):
            await Standing(vault).ask()


async def test_who_may_only_do_what_ingest_does_is_answered(s3, monkeypatch):
    bucket, (access, secret) = s3.bucket(), s3.user()
    s3.allow(bucket, (access, ("GetObject", "PutObject"), "/deep/*"), (access, ("ListBucket",), ""))
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    vault = await open_vault(s3_url(s3, bucket).replace(s3.access_key, access, 1), Path())
    await Standing(vault).ask()
    await vault.close()
