-- The rooms' own users; the roles and what they may do are made by `sealtape setup` (docs/postgresql.md).
create user ingest password '@ingest@';
create user indexer password '@indexer@';
create user auditor password '@auditor@';
grant sealtape_ledger_ingest, sealtape_keyring_ingest to ingest;
grant sealtape_ledger_reader, sealtape_keyring_indexer to indexer;
grant sealtape_ledger_reader, sealtape_keyring_auditor to auditor;
