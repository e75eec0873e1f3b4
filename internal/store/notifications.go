package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// outboxMost is how many notifications may wait before events of the
// application are refused: a receiver that is away for days must not fill the
// disk.
const outboxMost = 1_000_000

// Tell has t asked at each change of a run from now on.
func (s *Store) Tell(ctx context.Context, t deploy.Teller) error {
	return s.write(ctx, func(tx *tx) error { tx.w.teller = t; return nil })
}

// Told is signaled after a commit that made notifications.
func (s *Store) Told() <-chan struct{} { return s.told }

// happened tells of a run that was in a state before, if anybody is to know.
func (t *tx) happened(id int64, before deploy.State, waited string, at time.Time) error {
	runs, err := readRuns(t.session, true, `WHERE id = ?`, id)
	if err != nil || len(runs) == 0 {
		return err
	}
	run := &runs[0]
	list := t.w.teller.Tell(&deploy.Happened{
		Before: before, Waited: waited, Run: run,
		Relapsed: func() (bool, error) {
			var last deploy.State
			_, err := t.row(`SELECT state FROM runs WHERE pipeline = ? AND ref = ? AND id < ? AND state IN ('succeeded', 'failed', 'lost') ORDER BY id DESC LIMIT 1`,
				[]any{run.Pipeline, run.Ref, run.ID}, &last)
			return last != "" && last != deploy.Succeeded, err
		},
		Delivery: func() (*deploy.Delivery, error) { return t.delivery(run.Delivery) },
	})
	for i := range list {
		list[i].Run, list[i].At = id, at
		if _, err := t.tell(&list[i], "", ""); err != nil {
			return err
		}
	}
	return nil
}

// delivery reads a delivery within the transaction that may have made it.
func (t *tx) delivery(id int64) (*deploy.Delivery, error) {
	d := &deploy.Delivery{ID: id}
	var body []byte
	found, err := t.row(`SELECT hook, event, body FROM deliveries WHERE id = ? AND body IS NOT NULL`, []any{id}, &d.Hook, &d.Event, &body)
	if err != nil || !found {
		return nil, err
	}
	d.Body, err = decompress(body)
	return d, err
}

// listened is what settle needs to know of a run before it writes.
type listened struct {
	state   deploy.State
	waiting string
	wanted  bool
}

func (t *tx) listened(run int64) (l listened, err error) {
	if t.w.teller == nil {
		return l, nil
	}
	var pipeline, config string
	_, err = t.row(`SELECT state, waiting_for, pipeline, config FROM runs WHERE id = ?`, []any{run}, &l.state, &l.waiting, &pipeline, &config)
	l.wanted = err == nil && t.w.teller.Listens(config, pipeline)
	return l, err
}

// tell writes what is told, and a notification for each target.
func (t *tx) tell(l *deploy.Telling, key, hash string) (int64, error) {
	var body []byte
	if len(l.Targets) > 0 {
		body = compress(l.Body)
	}
	id, err := t.insert(`INSERT INTO events (run, change, type, config, key, body_hash, body, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		l.Run, l.Change, l.Type, l.Config, key, hash, body, ms(l.At))
	if err != nil {
		return 0, err
	}
	const one = `INSERT INTO notifications (key, event, target, run, state, since_ms, next_ms) VALUES (?, ?, ?, ?, 'queued', ?, ?)`
	for _, target := range l.Targets {
		next := ms(l.At)
		if l.Run != 0 {
			// No sooner than what is to be sent before it: see endNotification.
			if _, err := t.row(`SELECT max(?, coalesce(max(next_ms), 0)) FROM notifications WHERE run != 0 AND state IN ('queued', 'waiting', 'running') AND run = ? AND target = ?`,
				[]any{next, l.Run, target}, &next); err != nil {
				return 0, err
			}
		}
		// Not made of the row's number: a database that was put back from a
		// copy would give it to another notification.
		if err := t.exec(one, "msg_"+rand.Text(), id, target, l.Run, ms(l.At), next); err != nil {
			return 0, err
		}
	}
	t.told = t.told || len(l.Targets) > 0
	t.w.outbox.Add(int64(len(l.Targets)))
	return id, nil
}

// AddEvent stores an event of the application and what its targets are told,
// on disk before it returns, and gives its number.
//
// An event with a key is known by it for a year: a second one changes nothing
// and gives the number of the first, with known. The same key with another type
// or data is [deploy.ErrConflict]. With a million notifications waiting, and on
// a full disk, it is [deploy.ErrFull].
func (s *Store) AddEvent(ctx context.Context, e *deploy.AppEvent, targets []string) (id int64, known bool, err error) {
	if len(targets) > 0 && s.writer.outbox.Load() > outboxMost {
		return 0, false, fmt.Errorf("%w: %d notifications wait to be sent: deployhook notifications shows for whom", deploy.ErrFull, s.writer.outbox.Load())
	}
	hash := ""
	if e.Key != "" {
		sum := sha256.Sum256(append([]byte(e.Type+"\x00"), e.Data...))
		hash = hex.EncodeToString(sum[:])
	}
	var got int64
	var again bool
	err = s.write(ctx, func(t *tx) error {
		got, again = 0, false
		var was string
		if e.Key != "" {
			found, err := t.row(`SELECT id, body_hash FROM events WHERE key = ? AND key != ''`, []any{e.Key}, &got, &was)
			if err != nil {
				return err
			}
			if found && was != hash {
				return deploy.ErrConflict
			}
			if again = found; found {
				return nil
			}
		}
		var err error
		got, err = t.tell(&deploy.Telling{Type: e.Type, Body: e.Data, Targets: targets, At: e.Received}, e.Key, hash)
		return err
	})
	if err != nil {
		return 0, false, err // the writer may still be at it
	}
	return got, again, nil
}

// NotificationsDue says which targets have something that waits, and from when.
func (s *Store) NotificationsDue(ctx context.Context) (list []deploy.NotifyDue, err error) {
	err = s.snapshot(ctx, func(t *session) error {
		list = list[:0]
		// A step from target to target: a scan would read all that waits.
		return t.each(func(rows *sql.Rows) error {
			var d deploy.NotifyDue
			var next int64
			err := rows.Scan(&d.Target, &next, &d.Gone)
			d.Next = timeOf(next)
			list = append(list, d)
			return err
		}, `WITH RECURSIVE due (name) AS (
				SELECT min(target) FROM notifications WHERE state IN ('queued', 'waiting')
				UNION ALL
				SELECT (SELECT min(target) FROM notifications WHERE state IN ('queued', 'waiting') AND target > name) FROM due WHERE name IS NOT NULL
			)
			SELECT name, (SELECT min(next_ms) FROM notifications WHERE state IN ('queued', 'waiting') AND target = name),
				coalesce((SELECT config FROM gone WHERE gone.target = name), '')
			FROM due WHERE name IS NOT NULL`)
	})
	return list, err
}

// ClaimNotifications takes notifications that are due, the oldest first: they
// are running then. Of one run and target it takes only the first that has not
// ended.
func (s *Store) ClaimNotifications(ctx context.Context, claims []deploy.NotifyClaim, at time.Time) ([]deploy.Notification, error) {
	var list []deploy.Notification
	err := s.write(ctx, func(t *tx) error {
		list = nil
		for _, c := range claims {
			err := t.each(func(rows *sql.Rows) error {
				n, err := scanNotification(rows)
				list = append(list, n)
				return err
			}, `UPDATE notifications SET state = 'running' WHERE state IN ('queued', 'waiting') AND id IN (
					SELECT id FROM notifications AS n WHERE state IN ('queued', 'waiting') AND target = ? AND next_ms <= ?
						AND (run = 0 OR NOT EXISTS (SELECT 1 FROM notifications AS o
							WHERE o.run != 0 AND o.state IN ('queued', 'waiting', 'running') AND o.run = n.run AND o.target = n.target AND o.id < n.id))
					ORDER BY next_ms, id LIMIT ?)
				RETURNING `+notificationColumns, c.Target, ms(at), c.Most)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err // the writer may still be at it
	}
	return list, nil
}

// EndNotifications writes down what became of claimed notifications. One that
// is not running at its attempts any more is left as it is.
func (s *Store) EndNotifications(ctx context.Context, ends []deploy.NotifyEnd) error {
	return s.write(ctx, func(t *tx) error {
		for i := range ends {
			if err := t.endNotification(&ends[i]); err != nil {
				return err
			}
		}
		t.told = true // what comes after one of the same run may be sent now
		return nil
	})
}

func (t *tx) endNotification(e *deploy.NotifyEnd) error {
	tries, err := json.Marshal(e.Tries)
	if err != nil {
		return err
	}
	var ended int64
	if e.To.Terminal() {
		ended = ms(e.At)
	}
	n, err := t.changed(`UPDATE notifications SET state = ?, attempts = attempts + ?, error = ?, tries = ?, next_ms = ?, ended_ms = ?
		WHERE id = ? AND state = 'running' AND attempts = ?`, e.To, e.Tried, e.Error, string(tries), ms(e.Next), ended, e.ID, e.Attempts)
	if err != nil {
		return err
	}
	if e.To.Terminal() {
		t.w.outbox.Add(-n)
	} else if e.Run != 0 {
		// Those behind it wait as long: so the first of those that are due is
		// always one that may be sent.
		err := t.exec(`UPDATE notifications SET next_ms = max(next_ms, ?)
			WHERE run != 0 AND state IN ('queued', 'waiting', 'running') AND run = ? AND target = ? AND id > ?`, ms(e.Next), e.Run, e.Target, e.ID)
		if err != nil {
			return err
		}
	}
	if e.Gone != "" {
		return t.exec(`INSERT OR REPLACE INTO gone (target, config, at_ms) VALUES (?, ?, ?)`, e.Target, e.Gone, ms(e.At))
	}
	return nil
}

// recoverNotifications gives back what was being sent when the daemon ended:
// nobody knows whether it arrived, and so it is sent again.
func (s *Store) recoverNotifications(ctx context.Context) error {
	err := s.writer.do(ctx, func(t *tx) error {
		return t.exec(`UPDATE notifications SET state = 'queued' WHERE state = 'running'`)
	})
	if err != nil {
		return err
	}
	return s.countOutbox(ctx)
}

// countOutbox counts what waits.
func (s *Store) countOutbox(ctx context.Context) error {
	var n int64
	err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM notifications WHERE state IN ('queued', 'waiting')`).Scan(&n)
	s.writer.outbox.Store(n)
	return err
}

// Telling gives what is told, by the number of its event.
func (s *Store) Telling(ctx context.Context, event int64) (*deploy.Telling, error) {
	l := &deploy.Telling{}
	var body []byte
	var created int64
	err := s.read.QueryRowContext(ctx, `SELECT run, change, type, config, body, created_ms FROM events WHERE id = ?`, event).
		Scan(&l.Run, &l.Change, &l.Type, &l.Config, &body, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("event %d: %w", event, deploy.ErrNotFound)
	}
	if err != nil {
		return nil, s.explain(err)
	}
	l.At = timeOf(created)
	if l.Body, err = decompress(body); err != nil {
		return nil, fmt.Errorf("reading the body of event %d: %w", event, err)
	}
	return l, nil
}

const notificationColumns = `id, key, event, target, run, state, attempts, error, tries, since_ms, next_ms, ended_ms`

func scanNotification(rows interface{ Scan(...any) error }, more ...any) (deploy.Notification, error) {
	var n deploy.Notification
	var event, since, next, ended int64
	var tries string
	err := rows.Scan(append([]any{&n.ID, &n.Key, &event, &n.Target, &n.Run, &n.State, &n.Attempts, &n.Error, &tries, &since, &next, &ended}, more...)...)
	if err != nil {
		return n, err
	}
	n.Event, n.Since, n.Next, n.Ended = event, timeOf(since), timeOf(next), timeOf(ended)
	if tries != "" {
		err = json.Unmarshal([]byte(tries), &n.Tries)
	}
	return n, err
}

// listedNotification reads a notification with what its event says.
func listedNotification(rows interface{ Scan(...any) error }) (deploy.Notification, error) {
	var change, kind, config string
	var created int64
	n, err := scanNotification(rows, &change, &kind, &config, &created)
	n.Change, n.Type, n.Config, n.Created = deploy.Change(change), kind, config, timeOf(created)
	return n, err
}

const listedColumns = `n.id, n.key, n.event, n.target, n.run, n.state, n.attempts, n.error, n.tries, n.since_ms, n.next_ms, n.ended_ms,
	e.change, e.type, e.config, e.created_ms FROM notifications AS n JOIN events AS e ON e.id = n.event`

// Notifications lists notifications without their bodies, the newest first.
func (s *Store) Notifications(ctx context.Context, f deploy.NotificationFilter) ([]deploy.Notification, error) {
	where, args := []string{"1"}, []any{}
	for _, c := range []struct {
		text  string
		value any
		given bool
	}{
		{"n.state = ?", string(f.State), f.State != ""}, {"n.target = ?", f.Target, f.Target != ""},
		{"n.run = ?", f.Run, f.Run != 0}, {"n.id < ?", f.Before, f.Before > 0},
	} {
		if c.given {
			where, args = append(where, c.text), append(args, c.value)
		}
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+listedColumns+` WHERE `+strings.Join(where, " AND ")+` ORDER BY n.id DESC LIMIT ?`,
		append(args, limit(f.Limit))...)
	if err != nil {
		return nil, s.explain(err)
	}
	list := []deploy.Notification{}
	err = scanAll(rows, func(rows *sql.Rows) error {
		n, err := listedNotification(rows)
		list = append(list, n)
		return err
	})
	return list, s.explain(err)
}

// Notification gives a notification; [deploy.ErrNotFound] when there is none.
func (s *Store) Notification(ctx context.Context, id int64) (*deploy.Notification, error) {
	n, err := listedNotification(s.read.QueryRowContext(ctx, `SELECT `+listedColumns+` WHERE n.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, deploy.ErrNotFound
	}
	return &n, s.explain(err)
}

// Resend has a notification sent now, under the key that it has: one that waits
// before its time, one that has ended once more, for three days again.
// [deploy.ErrNotFound]: there is none, [deploy.ErrStale]: it is being sent,
// [deploy.ErrRefused]: what it told is not kept any more.
func (s *Store) Resend(ctx context.Context, id int64, at time.Time) error {
	return s.write(ctx, func(t *tx) error {
		var state deploy.State
		var body bool
		var target string
		var run int64
		found, err := t.row(`SELECT n.state, e.body IS NOT NULL, n.target, n.run FROM notifications AS n JOIN events AS e ON e.id = n.event WHERE n.id = ?`, []any{id}, &state, &body, &target, &run)
		switch {
		case err != nil:
			return err
		case !found:
			return deploy.ErrNotFound
		case state == deploy.Running:
			return fmt.Errorf("notification %d is being sent: %w", id, deploy.ErrStale)
		case !body:
			return fmt.Errorf("%w: what notification %d told is not kept any more", deploy.ErrRefused, id)
		}
		if state.Terminal() {
			t.w.outbox.Add(1)
		}
		t.told = true
		if err := t.exec(`DELETE FROM gone WHERE target = ?`, target); err != nil {
			return err
		}
		err = t.exec(`UPDATE notifications SET state = 'queued', since_ms = ?, next_ms = ?, ended_ms = 0 WHERE id = ?`, ms(at), ms(at), id)
		if err != nil || run == 0 {
			return err
		}
		// Those behind it may follow.
		return t.exec(`UPDATE notifications SET next_ms = ? WHERE run != 0 AND state IN ('queued', 'waiting', 'running') AND run = ? AND target = ? AND id > ?`,
			ms(at), run, target, id)
	})
}
