-- +goose Up
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- The text of every config under which a run was accepted.
CREATE TABLE configs (
    digest TEXT PRIMARY KEY,
    text   TEXT NOT NULL
) WITHOUT ROWID;

-- A row stays for a year, so that a redelivery is known; its body goes earlier.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    hook        TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    body_hash   TEXT    NOT NULL,
    same_body   INTEGER NOT NULL,
    event       TEXT    NOT NULL,
    received_ms INTEGER NOT NULL,
    message     TEXT    NOT NULL,
    why         TEXT    NOT NULL,
    body        BLOB
);

-- What deliveries are known by: a 64-bit hash of hook and id, and of hook and
-- body. Both are random, so every accept writes other pages of an index of
-- them: hashes make it a quarter of what the ids themselves need.
CREATE TABLE known (
    hash     INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    PRIMARY KEY (hash, delivery)
) WITHOUT ROWID;

-- Every verified push, wanted or not: what lanes are ordered by. Its id is
-- its delivery's.
CREATE TABLE pushes (
    id         INTEGER PRIMARY KEY REFERENCES deliveries (id) ON DELETE CASCADE,
    repository TEXT    NOT NULL,
    ref        TEXT    NOT NULL,
    before_sha TEXT    NOT NULL,
    after_sha  TEXT    NOT NULL,
    ord        INTEGER NOT NULL
);
CREATE INDEX pushes_lane ON pushes (repository, ref, ord);
CREATE INDEX pushes_before ON pushes (repository, ref, before_sha);

CREATE TABLE runs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery    INTEGER NOT NULL,
    pipeline    TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    event       TEXT    NOT NULL,
    hook        TEXT    NOT NULL,
    repository  TEXT    NOT NULL,
    ref         TEXT    NOT NULL,
    before_sha  TEXT    NOT NULL,
    commit_sha  TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    inputs      TEXT    NOT NULL,
    queue       TEXT    NOT NULL,
    deferred    INTEGER NOT NULL,
    forced      INTEGER NOT NULL,
    force       INTEGER NOT NULL,
    retry_of    INTEGER NOT NULL,
    keep_order  INTEGER NOT NULL,
    target      TEXT    NOT NULL,
    pops        INTEGER NOT NULL,
    ord         INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'canceled', 'skipped', 'lost')),
    cause       TEXT    NOT NULL DEFAULT '',
    error       TEXT    NOT NULL DEFAULT '',
    waiting_for TEXT    NOT NULL DEFAULT '',
    created_ms  INTEGER NOT NULL,
    started_ms  INTEGER NOT NULL DEFAULT 0,
    ended_ms    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_active ON runs (id) WHERE state IN ('queued', 'waiting', 'running');
CREATE INDEX runs_lane ON runs (pipeline, ref) WHERE state IN ('queued', 'waiting');
CREATE INDEX runs_delivery ON runs (delivery) WHERE delivery != 0;
CREATE INDEX runs_pipeline ON runs (pipeline, id);

CREATE TABLE jobs (
    run         INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name        TEXT    NOT NULL,
    position    INTEGER NOT NULL,
    needs       TEXT    NOT NULL,
    hosts       TEXT    NOT NULL,
    deploys     INTEGER NOT NULL,
    path        TEXT    NOT NULL,
    grp         TEXT    NOT NULL,
    ready       INTEGER NOT NULL,
    begun       INTEGER NOT NULL DEFAULT 0,
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'canceled', 'skipped', 'lost')),
    cause       TEXT    NOT NULL DEFAULT '',
    error       TEXT    NOT NULL DEFAULT '',
    attempt     INTEGER NOT NULL DEFAULT 0,
    release     TEXT    NOT NULL DEFAULT '',
    waiting_for TEXT    NOT NULL DEFAULT '',
    started_ms  INTEGER NOT NULL DEFAULT 0,
    ended_ms    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;

CREATE TABLE steps (
    run        INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job        TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    host       TEXT    NOT NULL,
    idx        INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'canceled', 'skipped', 'lost')),
    exit_code  INTEGER,
    signal     TEXT    NOT NULL,
    error      TEXT    NOT NULL,
    tries      INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER NOT NULL,
    PRIMARY KEY (run, job, attempt, host, idx)
) WITHOUT ROWID;

-- Output of steps: lines, compressed, a few hundred KiB a row at most.
CREATE TABLE logs (
    id      INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job     TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    host    TEXT    NOT NULL,
    idx     INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    lines   BLOB    NOT NULL
);
CREATE UNIQUE INDEX logs_place ON logs (run, job, attempt, host, idx, seq);
-- A run's log is read in the order of its ids, which the index has beside run.
CREATE INDEX logs_run ON logs (run);

-- Groups and paths in use. A row is taken with the claim, or the claim is not made.
CREATE TABLE locks (
    name    TEXT PRIMARY KEY,
    run     INTEGER NOT NULL,
    job     TEXT    NOT NULL,
    blocked TEXT    NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX locks_job ON locks (run, job);

CREATE TABLE holds (
    pipeline   TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    commit_sha TEXT    NOT NULL,
    target_sha TEXT    NOT NULL,
    run        INTEGER NOT NULL,
    ord        INTEGER NOT NULL,
    since_ms   INTEGER NOT NULL,
    PRIMARY KEY (pipeline, kind, run)
) WITHOUT ROWID;

CREATE TABLE live (
    host       TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    release    TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    commit_sha TEXT    NOT NULL,
    run        INTEGER NOT NULL,
    seen_ms    INTEGER NOT NULL,
    PRIMARY KEY (host, path)
) WITHOUT ROWID;
