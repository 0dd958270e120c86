-- Names are stored folded (indexer/tokens.py): what is shown comes from `body`, the document.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    session TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL,          -- the largest integer while it has not ended
    user TEXT NOT NULL,
    groups TEXT NOT NULL,               -- JSON array
    target TEXT NOT NULL,
    agent TEXT NOT NULL,
    run TEXT NOT NULL,
    protocol TEXT NOT NULL,
    source BLOB NOT NULL,               -- family and address; empty if unknown
    body TEXT NOT NULL
);

CREATE INDEX sessions_by_start ON sessions (started_ns, id);

CREATE TABLE commands (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL,
    version INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    n INTEGER NOT NULL,
    user TEXT NOT NULL,                 -- of its own: a refusal in a journal names its client
    groups TEXT NOT NULL,
    target TEXT NOT NULL,
    agent TEXT NOT NULL,
    run TEXT NOT NULL,
    protocol TEXT NOT NULL,
    source BLOB NOT NULL,
    effect TEXT NOT NULL,
    error TEXT NOT NULL,
    failed INTEGER NOT NULL,
    tables TEXT NOT NULL,               -- JSON array
    body TEXT NOT NULL
);

CREATE INDEX commands_by_time ON commands (time_ns, n, id);
CREATE INDEX commands_by_session ON commands (session, time_ns, n, id);

-- Words come cut already and joined by spaces. The tokenizer `ascii` keeps every other character in
-- its word, so it cuts exactly there again.
CREATE VIRTUAL TABLE words USING fts5 (text, tables, message, tokenize = 'ascii');

CREATE TABLE progress (session TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dropped (session TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
