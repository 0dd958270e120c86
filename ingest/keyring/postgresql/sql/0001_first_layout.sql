-- Wraps lie in 256 tables by the first byte of the session. PostgreSQL does not wipe what it deletes:
-- neither an update nor VACUUM takes the old bytes out of a page. A destroyed session's table is
-- therefore written anew without it, and the old file is given up in the same transaction.
CREATE SEQUENCE wrap_came;

CREATE TABLE wrap (
  session bytea NOT NULL CHECK (length(session) = 16), epoch bigint NOT NULL,
  label text COLLATE "C" NOT NULL, recipient text COLLATE "C" NOT NULL,
  suite text NOT NULL, sealed bytea NOT NULL,
  tenant text NOT NULL, retention text NOT NULL,
  disputed boolean NOT NULL, came bigint NOT NULL DEFAULT nextval('wrap_came')
) PARTITION BY RANGE (session);
ALTER TABLE wrap ALTER COLUMN sealed SET STORAGE EXTERNAL;
-- ANALYZE keeps samples of a column in pg_statistic; none of this one.
ALTER TABLE wrap ALTER COLUMN sealed SET STATISTICS 0;

-- The one that counts under a name; any number of others may be disputed.
CREATE UNIQUE INDEX wrap_name ON wrap (session, epoch, label, recipient) WHERE NOT disputed;
CREATE INDEX wrap_disputed ON wrap (session) WHERE disputed;

DO $$
BEGIN
  FOR byte IN 0..255 LOOP
    EXECUTE format('CREATE TABLE %I PARTITION OF wrap FOR VALUES FROM (%s) TO (%s)',
      'wrap_' || lpad(to_hex(byte), 2, '0'),
      quote_literal('\x' || lpad(to_hex(byte), 2, '0')),
      CASE byte WHEN 255 THEN 'MAXVALUE'
        ELSE quote_literal('\x' || lpad(to_hex(byte + 1), 2, '0')) END);
    EXECUTE format('ALTER TABLE %I ALTER COLUMN sealed SET STATISTICS 0',
      'wrap_' || lpad(to_hex(byte), 2, '0'));
  END LOOP;
END
$$;

CREATE TABLE destroyed (
  session bytea PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Putting and destroying go through functions, so that who may put can neither read nor destroy.
-- Both hold the advisory lock of the session's table: putting shares it, destroying has it alone, so
-- no wrap comes back after its session was destroyed.

-- 'kept', 'destroyed', or 'exists' for another wrap under the same name.
CREATE FUNCTION put(
  p_session bytea, p_epoch bigint, p_label text, p_recipient text, p_suite text, p_sealed bytea,
  p_tenant text, p_retention text
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared('@schema@.wrap'::regclass::oid::integer,
    get_byte(p_session, 0));
  IF EXISTS (SELECT FROM destroyed WHERE session = p_session) THEN
    RETURN 'destroyed';
  END IF;
  INSERT INTO wrap (session, epoch, label, recipient, suite, sealed, tenant, retention, disputed)
  VALUES (p_session, p_epoch, p_label, p_recipient, p_suite, p_sealed, p_tenant, p_retention, false)
  ON CONFLICT DO NOTHING;
  IF FOUND OR EXISTS (
    SELECT FROM wrap WHERE session = p_session AND epoch = p_epoch AND label = p_label
      AND recipient = p_recipient AND NOT disputed AND suite = p_suite AND sealed = p_sealed
  ) THEN
    RETURN 'kept';
  END IF;
  RETURN 'exists';
END
$$;

CREATE FUNCTION dispute(
  p_session bytea, p_epoch bigint, p_label text, p_recipient text, p_suite text, p_sealed bytea,
  p_tenant text, p_retention text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock('@schema@.wrap'::regclass::oid::integer, get_byte(p_session, 0));
  IF NOT EXISTS (SELECT FROM destroyed WHERE session = p_session) AND NOT EXISTS (
    SELECT FROM wrap WHERE session = p_session AND epoch = p_epoch AND label = p_label
      AND recipient = p_recipient AND suite = p_suite AND sealed = p_sealed
  ) THEN
    INSERT INTO wrap (session, epoch, label, recipient, suite, sealed, tenant, retention, disputed)
    VALUES (p_session, p_epoch, p_label, p_recipient, p_suite, p_sealed, p_tenant, p_retention,
      true);
  END IF;
END
$$;

-- Destroys the wraps of sessions that lie in one table; returns how many there were. The table is
-- written anew also when no row is seen: a transaction that never committed leaves bytes too.
CREATE FUNCTION destroy(p_sessions bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp
AS $$
DECLARE
  byte integer := get_byte(p_sessions[1], 0);
  place text := 'wrap_' || lpad(to_hex(byte), 2, '0');
  new_ones bigint;
  found_ones bigint;
BEGIN
  IF EXISTS (SELECT FROM unnest(p_sessions) AS s WHERE length(s) <> 16 OR get_byte(s, 0) <> byte)
  THEN
    RAISE EXCEPTION 'sessions of several tables';
  END IF;
  PERFORM pg_advisory_xact_lock('@schema@.wrap'::regclass::oid::integer, byte);
  INSERT INTO destroyed (session) SELECT unnest(p_sessions) ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS new_ones = ROW_COUNT;
  EXECUTE format('SELECT count(*) FROM %I WHERE session = ANY ($1)', place)
    INTO found_ones USING p_sessions;
  IF new_ones + found_ones > 0 THEN
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', place);
    EXECUTE format('CREATE TEMPORARY TABLE survivor AS SELECT * FROM %I WHERE session <> ALL ($1)',
      place) USING p_sessions;
    EXECUTE format('TRUNCATE %I', place);
    EXECUTE format('INSERT INTO %I SELECT * FROM pg_temp.survivor', place);
    DROP TABLE pg_temp.survivor;
  END IF;
  RETURN found_ones;
END
$$;

-- The indexer is given what it can unwrap: keys of facts, never keys of data.
ALTER TABLE wrap ENABLE ROW LEVEL SECURITY;
CREATE POLICY facts ON wrap FOR SELECT TO @indexer@ USING (label = 'facts');
CREATE POLICY everything ON wrap FOR SELECT TO @auditor@ USING (true);
