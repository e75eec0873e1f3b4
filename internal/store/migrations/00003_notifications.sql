-- +goose Up
-- What is told: changes of runs, and events of the application (run = 0). The
-- row of an event stays for a year, so that a second one of its key is known;
-- its body goes with its last notification.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    run        INTEGER NOT NULL,
    change     TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    config     TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    body_hash  TEXT    NOT NULL,
    body       BLOB,
    created_ms INTEGER NOT NULL
);
CREATE INDEX events_key ON events (key) WHERE key != '';

-- The outbox: one row for each target that is told. Its tries are JSON: they
-- are only ever read and written with it.
CREATE TABLE notifications (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT    NOT NULL,
    event      INTEGER NOT NULL,
    target     TEXT    NOT NULL,
    run        INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'canceled')),
    attempts   INTEGER NOT NULL DEFAULT 0,
    error      TEXT    NOT NULL DEFAULT '',
    tries      TEXT    NOT NULL DEFAULT '',
    since_ms   INTEGER NOT NULL,
    next_ms    INTEGER NOT NULL,
    ended_ms   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX notifications_due ON notifications (target, next_ms, id) WHERE state IN ('queued', 'waiting');
CREATE INDEX notifications_lane ON notifications (run, target, id) WHERE run != 0 AND state IN ('queued', 'waiting', 'running');
CREATE INDEX notifications_event ON notifications (event);

-- Targets that want nothing more, until the config is another.
CREATE TABLE gone (
    target TEXT PRIMARY KEY,
    config TEXT    NOT NULL,
    at_ms  INTEGER NOT NULL
) WITHOUT ROWID;
