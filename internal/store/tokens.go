package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"deployhook/internal/deploy"
)

const (
	usedEvery    = time.Minute         // how exact it is known when a token was used last
	keepRevoked  = 1000                // revoked tokens that the list still shows, the newest
	keepRequests = 30 * 24 * time.Hour // how long an Idempotency-Key is known
)

// tokens are all that are not revoked, in memory: each request looks for one.
type tokens struct {
	mu     sync.Mutex
	writes int64                // counts changes, so that what was read before one is not kept
	known  map[string]*useToken // by hash; nil = read them again
}

type useToken struct {
	deploy.Token
	used atomic.Int64 // ms
}

// forget has the tokens read again.
func (k *tokens) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	k.known = nil
}

const tokenColumns = `id, name, hash, actions, pipelines, actor, created_ms, expires_ms, used_ms, revoked_ms`

func scanToken(rows *sql.Rows) (t deploy.Token, hash string, err error) {
	var actions, pipelines string
	var created, expires, used, revoked int64
	err = rows.Scan(&t.ID, &t.Name, &hash, &actions, &pipelines, &t.Actor, &created, &expires, &used, &revoked)
	for _, a := range list(actions) {
		t.Actions = append(t.Actions, deploy.Action(a))
	}
	t.Pipelines = list(pipelines)
	t.Created, t.Expires, t.Used, t.Revoked = timeOf(created), timeOf(expires), timeOf(used), timeOf(revoked)
	return t, hash, err
}

// CreateToken stores a token under the hash of its value, and gives it its
// number. [deploy.ErrRefused]: the name is in use, or there are
// [deploy.TokensMost].
func (s *Store) CreateToken(ctx context.Context, t deploy.Token, hash string) (int64, error) {
	var id int64
	var actions []string
	for _, a := range t.Actions {
		actions = append(actions, string(a))
	}
	err := s.write(ctx, func(x *tx) error {
		var there, living int64
		_, err := x.row(`SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM tokens WHERE revoked_ms = 0`, []any{t.Name}, &living, &there)
		if err != nil {
			return err
		}
		switch {
		case there > 0:
			return fmt.Errorf("%w: there is a token %s already: revoke it first, or take another name", deploy.ErrRefused, t.Name)
		case living >= deploy.TokensMost:
			return fmt.Errorf("%w: there are %d tokens already: revoke one first", deploy.ErrRefused, living)
		}
		id, err = x.insert(`INSERT INTO tokens (name, hash, actions, pipelines, actor, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.Name, hash, strings.Join(actions, ","), strings.Join(t.Pipelines, ","), t.Actor, ms(t.Created), ms(t.Expires))
		return err
	})
	s.tokens.forget()
	if err != nil {
		return 0, err // the writer may still be at it
	}
	return id, nil
}

// RevokeToken ends a token, by its name or its number, and gives it;
// [deploy.ErrNotFound] when there is none that is not revoked.
func (s *Store) RevokeToken(ctx context.Context, which string, now time.Time) (deploy.Token, error) {
	var t deploy.Token
	number, nerr := strconv.ParseInt(which, 10, 64)
	if nerr != nil {
		number = 0
	}
	err := s.write(ctx, func(x *tx) error {
		t = deploy.Token{}
		err := x.each(func(rows *sql.Rows) (err error) {
			t, _, err = scanToken(rows)
			return err
		}, `SELECT `+tokenColumns+` FROM tokens WHERE revoked_ms = 0 AND (name = ? OR id = ?)`, which, number)
		if err != nil {
			return err
		}
		if t.ID == 0 {
			return deploy.ErrNotFound
		}
		t.Revoked = now
		if err := x.exec(`UPDATE tokens SET revoked_ms = ? WHERE id = ?`, ms(now), t.ID); err != nil {
			return err
		}
		return x.exec(`DELETE FROM tokens WHERE revoked_ms != 0 AND id NOT IN (SELECT id FROM tokens WHERE revoked_ms != 0 ORDER BY revoked_ms DESC, id DESC LIMIT ?)`, keepRevoked)
	})
	s.tokens.forget()
	if err != nil {
		return deploy.Token{}, err // the writer may still be at it
	}
	return t, nil
}

// Tokens lists all tokens, the newest first, and the last ones that were
// revoked among them.
func (s *Store) Tokens(ctx context.Context) ([]deploy.Token, error) {
	all := []deploy.Token{}
	err := s.snapshot(ctx, func(t *session) error {
		return t.each(func(rows *sql.Rows) error {
			one, _, err := scanToken(rows)
			all = append(all, one)
			return err
		}, `SELECT `+tokenColumns+` FROM tokens ORDER BY id DESC`)
	})
	if err != nil {
		return nil, err
	}
	known, err := s.usable(ctx)
	for i := range all {
		for _, k := range known {
			if k.ID == all[i].ID {
				all[i].Used = timeOf(max(k.used.Load(), ms(all[i].Used)))
			}
		}
	}
	return all, err
}

// usable gives the tokens that are not revoked, by their hashes.
func (s *Store) usable(ctx context.Context) (map[string]*useToken, error) {
	k := &s.tokens
	k.mu.Lock()
	known, writes := k.known, k.writes
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	known = map[string]*useToken{}
	err := s.snapshot(ctx, func(t *session) error {
		return t.each(func(rows *sql.Rows) error {
			one, hash, err := scanToken(rows)
			u := &useToken{Token: one}
			u.used.Store(ms(one.Used))
			known[hash] = u
			return err
		}, `SELECT `+tokenColumns+` FROM tokens WHERE revoked_ms = 0`)
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writes == writes {
		k.known = known
	}
	return known, nil
}

// UseToken gives the token whose value has a hash, and notes that it was used;
// [deploy.ErrNotFound] for one that there is not, that has expired or is revoked.
func (s *Store) UseToken(ctx context.Context, hash string, now time.Time) (*deploy.Token, error) {
	known, err := s.usable(ctx)
	if err != nil {
		return nil, err
	}
	u := known[hash]
	if u == nil || !u.Valid(now) {
		return nil, deploy.ErrNotFound
	}
	last := u.used.Load()
	if t := ms(now); t-last >= usedEvery.Milliseconds() && u.used.CompareAndSwap(last, t) {
		err := s.write(ctx, func(x *tx) error {
			return x.exec(`UPDATE tokens SET used_ms = max(used_ms, ?) WHERE id = ?`, t, u.ID)
		})
		if err != nil {
			// Who may come in does so on a full disk too, to read.
			s.log.Warn("noting that a token was used", "err", err)
		}
	}
	t := u.Token
	return &t, nil
}

// once gives the run that a request made before; 0 = none.
func (t *tx) once(o *deploy.Once) (run int64, err error) {
	var hash string
	found, err := t.row(`SELECT run, hash FROM requests WHERE token = ? AND key = ?`, []any{o.Token, o.Key}, &run, &hash)
	if err != nil || !found {
		return 0, err
	}
	if hash != o.Hash {
		return 0, deploy.ErrOther
	}
	return run, nil
}

func (t *tx) keepOnce(o *deploy.Once, run int64, now time.Time) error {
	return t.exec(`INSERT INTO requests (token, key, hash, run, made_ms) VALUES (?, ?, ?, ?, ?)`, o.Token, o.Key, o.Hash, run, ms(now))
}

// MadeBefore gives the run that a request made before; 0 = it made none.
// [deploy.ErrOther]: it asked for something else then.
func (s *Store) MadeBefore(ctx context.Context, o *deploy.Once) (run int64, err error) {
	err = s.snapshot(ctx, func(t *session) (err error) {
		run, err = (&tx{session: t}).once(o)
		return err
	})
	return run, err
}
