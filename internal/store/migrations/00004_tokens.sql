-- +goose Up
-- Whom the API lets in. What is kept of a token's value is its SHA-256: the
-- value is random, so that nobody finds it by trying.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    hash       TEXT    NOT NULL UNIQUE,
    actions    TEXT    NOT NULL,
    pipelines  TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms    INTEGER NOT NULL DEFAULT 0,
    revoked_ms INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked_ms = 0;

-- Requests with an Idempotency-Key, and the runs that they made.
CREATE TABLE requests (
    token   INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    hash    TEXT    NOT NULL,
    run     INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) WITHOUT ROWID;
CREATE INDEX requests_made ON requests (made_ms);
CREATE INDEX requests_run ON requests (run);

-- What steps wrote for later jobs: JSON of names and values. The attempt is the
-- last one that ran the job's steps on that host.
CREATE TABLE outputs (
    run     INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job     TEXT    NOT NULL,
    host    TEXT    NOT NULL,
    idx     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    content TEXT    NOT NULL,
    PRIMARY KEY (run, job, host, idx)
) WITHOUT ROWID;
