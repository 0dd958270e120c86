-- Offsets begin anew on a bus that was cut off, so a place names one message no more: what is kept of
-- each goes by its bytes, and by whom it is about. A message that is read twice is one row still.
CREATE TABLE quarantined (
  topic TEXT NOT NULL, part INTEGER NOT NULL, bus_offset INTEGER NOT NULL,
  reason TEXT NOT NULL, session BLOB NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL,
  data BLOB NOT NULL, key TEXT NOT NULL, at_ns INTEGER NOT NULL,
  PRIMARY KEY (topic, part, bus_offset, sha256)
);
INSERT INTO quarantined SELECT * FROM quarantine;
DROP TABLE quarantine;
ALTER TABLE quarantined RENAME TO quarantine;

CREATE TABLE stated (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL, part INTEGER NOT NULL, bus_offset INTEGER NOT NULL,
  reason TEXT NOT NULL, detail TEXT NOT NULL,
  session BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
  UNIQUE (topic, part, bus_offset, reason, session, epoch, seq)
);
INSERT INTO stated SELECT * FROM incident;
DROP TABLE incident;
ALTER TABLE stated RENAME TO incident;
CREATE INDEX incident_session ON incident (session);
