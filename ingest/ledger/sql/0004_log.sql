-- The log's entries, shard by shard; a name is taken once in all of them. Some entries have none.
CREATE TABLE log_entry (
  number INTEGER NOT NULL, idx INTEGER NOT NULL, name TEXT NOT NULL, entry BLOB NOT NULL,
  PRIMARY KEY (number, idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX log_entry_name ON log_entry (name) WHERE name <> '';

-- How far the shard that grows is, and the last notes over it.
CREATE TABLE log_state (
  one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, size INTEGER NOT NULL,
  cursor BLOB NOT NULL, note BLOB NOT NULL, witnessed BLOB NOT NULL
);
INSERT INTO log_state VALUES (1, 0, 0, x'', x'', x'');

-- What is to become an entry.
CREATE TABLE inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL, payload BLOB NOT NULL, at_ns INTEGER NOT NULL
);

-- When a head was last published, by the store's time, and whether its seal is in the log.
ALTER TABLE head ADD COLUMN changed_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE head ADD COLUMN in_log INTEGER NOT NULL DEFAULT 0;
UPDATE head SET changed_ns = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000;
CREATE INDEX head_unsealed ON head (session, epoch) WHERE in_log = 0;
