-- What each role may, and nothing else. Only what is relayed or over is ever deleted.
REVOKE ALL ON SCHEMA @schema@ FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA @schema@ FROM PUBLIC, @ingest@, @reader@;
GRANT USAGE ON SCHEMA @schema@ TO @ingest@, @reader@;
GRANT SELECT ON ALL TABLES IN SCHEMA @schema@ TO @ingest@, @reader@;

GRANT INSERT ON lease, worker, object, shard, segment, fragment, head, session, incident,
  quarantine, outbox, log_entry, inbox TO @ingest@;
GRANT UPDATE (term, owner, expires_at, next_offset) ON lease TO @ingest@;
GRANT UPDATE (state) ON object TO @ingest@;
GRANT UPDATE (n, hash) ON shard TO @ingest@;
GRANT UPDATE (segment, incident, event) ON counter TO @ingest@;
GRANT UPDATE (digest, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost, closed, opening,
  changed_at, in_log) ON head TO @ingest@;
GRANT UPDATE (number, size, cursor, note, witnessed) ON log_state TO @ingest@;
GRANT UPDATE (state, epoch, frames, bytes, first_ts_ns, last_ts_ns, close_reason, lost, incidents,
  revision) ON session TO @ingest@;
GRANT UPDATE (expires_at), DELETE ON worker TO @ingest@;
GRANT DELETE ON outbox, inbox TO @ingest@;

GRANT INSERT ON lease, worker, inbox TO @reader@;
GRANT UPDATE (term, owner, expires_at) ON lease TO @reader@;
GRANT UPDATE (expires_at), DELETE ON worker TO @reader@;
