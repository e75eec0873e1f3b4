-- +goose Up
-- The last time of each schedule that was decided: it is written together with
-- the run that it makes, so that no time is taken twice.
CREATE TABLE schedules (
    pipeline TEXT    NOT NULL,
    schedule TEXT    NOT NULL,
    last_ms  INTEGER NOT NULL,
    PRIMARY KEY (pipeline, schedule)
) WITHOUT ROWID;

-- What brought a run about, where no delivery says so.
ALTER TABLE runs ADD COLUMN why TEXT NOT NULL DEFAULT '';

CREATE INDEX runs_scheduled ON runs (pipeline, id) WHERE event = 'schedule';
