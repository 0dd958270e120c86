from tests.conformance.ledger import LedgerConformance


class TestPostgresLedger(LedgerConformance):
    pass
