-- Names are compared byte by byte (COLLATE "C"), whatever the database's own order is.

-- Who may publish from a partition, and where its reading stands.
CREATE TABLE lease (
  topic text COLLATE "C" NOT NULL, part integer NOT NULL,
  term bigint NOT NULL, owner text COLLATE "C" NOT NULL, expires_at timestamptz NOT NULL,
  next_offset bigint NOT NULL,
  PRIMARY KEY (topic, part)
) WITH (fillfactor = 50);

-- Which processes of a role are at work; each says so again before its time is over.
CREATE TABLE worker (
  role text COLLATE "C" NOT NULL, worker text COLLATE "C" NOT NULL, expires_at timestamptz NOT NULL,
  PRIMARY KEY (role, worker)
) WITH (fillfactor = 50);

-- Every object that was ever announced: staged, published, abandoned or erased.
CREATE TABLE object (
  key text COLLATE "C" PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('staged', 'published', 'abandoned', 'erased')),
  topic text COLLATE "C" NOT NULL, part integer NOT NULL, term bigint NOT NULL,
  staged_at timestamptz NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX object_pending ON object (state, staged_at) WHERE state IN ('staged', 'abandoned');

-- The end of each chain of segment records.
CREATE TABLE shard (
  id integer GENERATED ALWAYS AS IDENTITY UNIQUE,
  shard text COLLATE "C" PRIMARY KEY, n bigint NOT NULL, hash bytea NOT NULL
) WITH (fillfactor = 50);

-- The last ids that were given out. A publication holds this row until it is committed, so ids grow
-- in the order in which publications become visible, and no id is left out.
CREATE TABLE counter (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  segment bigint NOT NULL DEFAULT 0, incident bigint NOT NULL DEFAULT 0,
  event bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO counter DEFAULT VALUES;

-- Published segments; `record` is the canonical JSON that is hashed and chained.
CREATE TABLE segment (
  id bigint PRIMARY KEY,
  key text COLLATE "C" NOT NULL UNIQUE REFERENCES object (key),
  shard integer NOT NULL REFERENCES shard (id), n bigint NOT NULL, record bytea NOT NULL,
  UNIQUE (shard, n)
);

-- Named by the place of its segment in the chain, which is known before the segment has its id.
CREATE TABLE fragment (
  shard integer NOT NULL, n bigint NOT NULL, idx integer NOT NULL,
  session bytea NOT NULL, epoch bigint NOT NULL, lo bigint NOT NULL, hi bigint NOT NULL,
  record bytea NOT NULL,
  PRIMARY KEY (shard, n, idx)
);
CREATE INDEX fragment_session ON fragment (session, epoch, lo, hi);

-- How far each (session, epoch) is sealed; `digest` covers all other columns.
CREATE TABLE head (
  session bytea NOT NULL, epoch bigint NOT NULL, digest bytea NOT NULL,
  lo bigint NOT NULL, hi bigint NOT NULL, nodes bytea NOT NULL,
  last_ts_ns bigint NOT NULL, bus_offset bigint NOT NULL, attested bigint NOT NULL,
  lost bigint NOT NULL, closed text NOT NULL, opening bytea NOT NULL,
  PRIMARY KEY (session, epoch)
) WITH (fillfactor = 80);

CREATE TABLE session (
  session bytea PRIMARY KEY, tenant text NOT NULL, class text NOT NULL,
  state text NOT NULL, epoch bigint NOT NULL,
  frames bigint NOT NULL, bytes bigint NOT NULL,
  first_ts_ns bigint NOT NULL, last_ts_ns bigint NOT NULL,
  close_reason text NOT NULL, lost bigint NOT NULL, incidents bigint NOT NULL,
  revision bigint NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE incident (
  id bigint PRIMARY KEY,
  topic text COLLATE "C" NOT NULL, part integer NOT NULL, bus_offset bigint NOT NULL,
  reason text COLLATE "C" NOT NULL, detail text NOT NULL,
  session bytea NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL, at_ns bigint NOT NULL,
  UNIQUE (topic, part, bus_offset, reason)
);
CREATE INDEX incident_session ON incident (session);

-- Messages that could not be sealed, with their bytes in `data` or in the object `key`.
CREATE TABLE quarantine (
  topic text COLLATE "C" NOT NULL, part integer NOT NULL, bus_offset bigint NOT NULL,
  reason text NOT NULL, session bytea NOT NULL, sha256 bytea NOT NULL, size bigint NOT NULL,
  data bytea NOT NULL, key text NOT NULL, at_ns bigint NOT NULL,
  PRIMARY KEY (topic, part, bus_offset)
);

CREATE TABLE outbox (
  id bigint PRIMARY KEY,
  kind text NOT NULL, key text NOT NULL, payload bytea NOT NULL, at_ns bigint NOT NULL
);

-- Readers lease partitions of their own and say that they are at work; ingest's rows they may read
-- and never change.
ALTER TABLE lease ENABLE ROW LEVEL SECURITY;
CREATE POLICY ingest ON lease TO @ingest@ USING (true) WITH CHECK (true);
CREATE POLICY reader_reads ON lease FOR SELECT TO @reader@ USING (true);
CREATE POLICY reader_claims ON lease FOR INSERT TO @reader@
  WITH CHECK (starts_with(topic, 'indexer:'));
CREATE POLICY reader_holds ON lease FOR UPDATE TO @reader@
  USING (starts_with(topic, 'indexer:')) WITH CHECK (starts_with(topic, 'indexer:'));

ALTER TABLE worker ENABLE ROW LEVEL SECURITY;
CREATE POLICY ingest ON worker TO @ingest@ USING (true) WITH CHECK (true);
CREATE POLICY reader_reads ON worker FOR SELECT TO @reader@ USING (true);
CREATE POLICY reader_comes ON worker FOR INSERT TO @reader@ WITH CHECK (role = 'indexer');
CREATE POLICY reader_stays ON worker FOR UPDATE TO @reader@
  USING (role = 'indexer') WITH CHECK (role = 'indexer');
CREATE POLICY reader_leaves ON worker FOR DELETE TO @reader@ USING (role = 'indexer');
