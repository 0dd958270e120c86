-- Which processes of a role are at work; each says so again before its time is over.
CREATE TABLE worker (
  role TEXT NOT NULL, worker TEXT NOT NULL, expires_ns INTEGER NOT NULL,
  PRIMARY KEY (role, worker)
) WITHOUT ROWID;
