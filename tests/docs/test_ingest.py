from pathlib import Path

from sealtape.ingest.findings import QUARANTINE_REASONS, REASONS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_reason_for_an_incident_is_documented():
    page = (DOCS / "ingest.md").read_text()
    for reason, text in REASONS.items():
        quarantined = "yes" if reason in QUARANTINE_REASONS else "no"
        assert f"| `{reason}` | {quarantined} | {text} |" in page


def test_every_table_of_the_ledger_is_documented():
    page = (DOCS / "spec" / "ledger.md").read_text()
    layout = Path(__file__).parents[2] / "ingest/ledger/sql/0001_first_layout.sql"
    tables = [
        line.split()[2]
        for line in layout.read_text().splitlines()
        if line.startswith("CREATE TABLE")
    ]
    assert len(tables) == 10
    for table in tables:
        assert f"| `{table}` |" in page
