-- The log's entries, shard by shard; a name is taken once in all of them. Some entries have none.
CREATE TABLE log_entry (
  number bigint NOT NULL, idx bigint NOT NULL, name text COLLATE "C" NOT NULL, entry bytea NOT NULL,
  PRIMARY KEY (number, idx)
);
CREATE UNIQUE INDEX log_entry_name ON log_entry (name) WHERE name <> '';

-- How far the shard that grows is, and the last notes over it. Who appends holds this row.
CREATE TABLE log_state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  number bigint NOT NULL DEFAULT 0, size bigint NOT NULL DEFAULT 0,
  cursor bytea NOT NULL DEFAULT '', note bytea NOT NULL DEFAULT '',
  witnessed bytea NOT NULL DEFAULT ''
) WITH (fillfactor = 10);
INSERT INTO log_state DEFAULT VALUES;

-- What is to become an entry.
CREATE TABLE inbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL, payload bytea NOT NULL, at_ns bigint NOT NULL
);

-- When a head was last published, by the store's time, and whether its seal is in the log.
ALTER TABLE head ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN in_log boolean NOT NULL DEFAULT false;
ALTER TABLE head ALTER COLUMN changed_at DROP DEFAULT;
CREATE INDEX head_unsealed ON head (session, epoch) WHERE NOT in_log;
