package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"deployhook/internal/deploy"
)

// How long what was sent, and what could not be, is kept.
const (
	keepSent     = 30 * 24 * time.Hour
	keepSentMost = 100_000 // notifications that have arrived, the newest
	keepDead     = 90 * 24 * time.Hour
)

// trimNotifications ends notifications whose days are over, and removes old
// ones and what only they told. What is to go is looked for beside the writer,
// which has better things to do.
func (s *Store) trimNotifications(ctx context.Context, now time.Time) (more bool, err error) {
	if err := s.countOutbox(ctx); err != nil {
		return false, s.explain(err)
	}
	late, dead := ms(now.Add(-deploy.NotifyDays)), ms(now.Add(-keepDead))
	for _, q := range []struct {
		find string
		args []any
		do   string
		more []any
	}{
		{
			`SELECT id FROM notifications WHERE state IN ('queued', 'waiting') AND since_ms < ? LIMIT ?`, []any{late},
			`UPDATE notifications SET state = 'failed', ended_ms = ?, error = CASE WHEN error = '' THEN 'not sent within three days' ELSE error END
				WHERE state IN ('queued', 'waiting') AND id = ?`, []any{ms(now)},
		},
		{
			`SELECT id FROM notifications WHERE state = 'succeeded' AND (ended_ms < ? OR id <= (SELECT max(id) FROM notifications) - ?) LIMIT ?`,
			[]any{ms(now.Add(-keepSent)), keepSentMost}, `DELETE FROM notifications WHERE state = 'succeeded' AND id = ?`, nil,
		},
		{
			`SELECT id FROM notifications WHERE state IN ('failed', 'canceled') AND ended_ms < ? LIMIT ?`, []any{dead},
			`DELETE FROM notifications WHERE state IN ('failed', 'canceled') AND id = ?`, nil,
		},
		{
			`SELECT id FROM events WHERE body IS NOT NULL AND created_ms < ? AND NOT EXISTS (SELECT 1 FROM notifications WHERE event = events.id) LIMIT ?`,
			[]any{ms(now.Add(-time.Hour))}, `UPDATE events SET body = NULL WHERE id = ?`, nil,
		},
		{
			`SELECT id FROM events WHERE body IS NULL AND (created_ms < ? OR key = '') AND NOT EXISTS (SELECT 1 FROM notifications WHERE event = events.id)
				AND id < (SELECT max(id) FROM events) LIMIT ?`,
			[]any{ms(now.Add(-keepHashes))}, `DELETE FROM events WHERE id = ?`, nil,
		},
	} {
		n, err := s.trimEach(ctx, q.find, append(q.args, trimStep), q.do, q.more)
		if err != nil {
			return false, err
		}
		more = more || n > 0
	}
	return more, nil
}

// trimEach does something with each row that a query finds, by its id.
func (s *Store) trimEach(ctx context.Context, find string, args []any, do string, before []any) (int, error) {
	rows, err := s.read.QueryContext(ctx, find, args...)
	if err != nil {
		return 0, s.explain(err)
	}
	var ids []int64
	err = scanAll(rows, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("looking for what is too old: %w", s.explain(err))
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return len(ids), s.write(ctx, func(t *tx) error {
		for _, id := range ids {
			if err := t.exec(do, append(before[:len(before):len(before)], id)...); err != nil {
				return err
			}
		}
		return nil
	})
}
