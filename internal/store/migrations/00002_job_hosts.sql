-- +goose Up
-- How a job stands on each of its hosts; one without a row stands as the job does.
CREATE TABLE job_hosts (
    run     INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    job     TEXT    NOT NULL,
    attempt INTEGER NOT NULL,
    host    TEXT    NOT NULL,
    state   TEXT    NOT NULL CHECK (state IN ('queued', 'waiting', 'running', 'succeeded', 'failed', 'canceled', 'skipped', 'lost')),
    phase   TEXT    NOT NULL CHECK (phase IN ('', 'preparing', 'prepared', 'switching', 'switched', 'live', 'put_back')),
    error   TEXT    NOT NULL,
    PRIMARY KEY (run, job, attempt, host)
) WITHOUT ROWID;
