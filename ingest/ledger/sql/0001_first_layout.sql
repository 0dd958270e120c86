-- Who may publish from a partition, and where its reading stands.
CREATE TABLE lease (
  topic TEXT NOT NULL, part INTEGER NOT NULL,
  term INTEGER NOT NULL, owner TEXT NOT NULL, expires_ns INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (topic, part)
) WITHOUT ROWID;

-- Every object that was ever announced: staged, published, abandoned or erased.
CREATE TABLE object (
  key TEXT PRIMARY KEY, state TEXT NOT NULL,
  topic TEXT NOT NULL, part INTEGER NOT NULL, term INTEGER NOT NULL,
  staged_at_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX object_pending ON object (state, staged_at_ns) WHERE state IN ('staged', 'abandoned');

-- The end of each chain of segment records.
CREATE TABLE shard (
  shard TEXT PRIMARY KEY, n INTEGER NOT NULL, hash BLOB NOT NULL
) WITHOUT ROWID;

-- Published segments; `record` is the canonical JSON that is hashed and chained.
CREATE TABLE segment (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE REFERENCES object (key),
  shard TEXT NOT NULL, n INTEGER NOT NULL, record BLOB NOT NULL,
  UNIQUE (shard, n)
);

CREATE TABLE fragment (
  segment_id INTEGER NOT NULL REFERENCES segment (id), idx INTEGER NOT NULL,
  session BLOB NOT NULL, epoch INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY (segment_id, idx)
) WITHOUT ROWID;
CREATE INDEX fragment_session ON fragment (session, epoch, lo, hi);

-- How far each (session, epoch) is sealed; `digest` covers all other columns.
CREATE TABLE head (
  session BLOB NOT NULL, epoch INTEGER NOT NULL, digest BLOB NOT NULL,
  lo INTEGER NOT NULL, hi INTEGER NOT NULL, nodes BLOB NOT NULL,
  last_ts_ns INTEGER NOT NULL, bus_offset INTEGER NOT NULL, attested INTEGER NOT NULL,
  lost INTEGER NOT NULL, closed TEXT NOT NULL, opening BLOB NOT NULL,
  PRIMARY KEY (session, epoch)
) WITHOUT ROWID;

CREATE TABLE session (
  session BLOB PRIMARY KEY, tenant TEXT NOT NULL, class TEXT NOT NULL,
  state TEXT NOT NULL, epoch INTEGER NOT NULL,
  frames INTEGER NOT NULL, bytes INTEGER NOT NULL,
  first_ts_ns INTEGER NOT NULL, last_ts_ns INTEGER NOT NULL,
  close_reason TEXT NOT NULL, lost INTEGER NOT NULL, incidents INTEGER NOT NULL,
  revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE incident (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL, part INTEGER NOT NULL, bus_offset INTEGER NOT NULL,
  reason TEXT NOT NULL, detail TEXT NOT NULL,
  session BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  UNIQUE (topic, part, bus_offset, reason)
);
CREATE INDEX incident_session ON incident (session);

-- Messages that could not be sealed, with their bytes in `data` or in the object `key`.
CREATE TABLE quarantine (
  topic TEXT NOT NULL, part INTEGER NOT NULL, bus_offset INTEGER NOT NULL,
  reason TEXT NOT NULL, session BLOB NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL,
  data BLOB NOT NULL, key TEXT NOT NULL, at_ns INTEGER NOT NULL,
  PRIMARY KEY (topic, part, bus_offset)
);

CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL, key TEXT NOT NULL, payload BLOB NOT NULL, at_ns INTEGER NOT NULL
);
