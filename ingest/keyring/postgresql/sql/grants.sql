-- What each role may, and nothing else: put, read facts, read everything, destroy.
REVOKE ALL ON SCHEMA @schema@ FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA @schema@
  FROM PUBLIC, @ingest@, @indexer@, @auditor@, @reaper@;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@
  FROM PUBLIC, @ingest@, @indexer@, @auditor@, @reaper@;
GRANT USAGE ON SCHEMA @schema@ TO @ingest@, @indexer@, @auditor@, @reaper@;
GRANT SELECT ON migration, destroyed TO @ingest@, @indexer@, @auditor@, @reaper@;
GRANT SELECT ON wrap TO @indexer@, @auditor@;
GRANT EXECUTE ON FUNCTION put, dispute TO @ingest@;
GRANT EXECUTE ON FUNCTION destroy TO @reaper@;
