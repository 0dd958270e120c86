-- The rooms' own users; the roles and what they may do are made by `sealtape setup` (docs/postgresql.md).
do $$ begin create user ingest password '@ingest@'; exception when duplicate_object then null; end $$;
do $$ begin create user indexer password '@indexer@'; exception when duplicate_object then null; end $$;
do $$ begin create user auditor password '@auditor@'; exception when duplicate_object then null; end $$;
do $$ begin create user verify password '@verify@'; exception when duplicate_object then null; end $$;
grant sealtape_ledger_ingest, sealtape_keyring_ingest to ingest;
grant sealtape_ledger_reader, sealtape_keyring_indexer to indexer;
grant sealtape_ledger_reader, sealtape_keyring_auditor to auditor;
grant sealtape_ledger_reader to verify;
