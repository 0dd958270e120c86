"""Deployments whose ledger and vault are servers."""

from sealtape.ingest.ledger import prepare_ledger
from sealtape.ingest.vault import prepare_vault
from tests.factories.deployments import make_site
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url


async def make_site_on_servers(folder, postgres, s3, monkeypatch):
    """One with a new database and a new bucket."""
    monkeypatch.setenv(SECRET_VARIABLE, s3.secret_key)
    site = make_site(folder)
    vault, ledger = s3_url(s3, s3.bucket()), postgres.database().url()
    text = site.config.read_text()
    site.config.write_text(f'{text}ledger = "{ledger}"\nvault = "{vault}"\n')
    await prepare_ledger(ledger, site.folder)
    await prepare_vault(vault, site.folder)
    return site
