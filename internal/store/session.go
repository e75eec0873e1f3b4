package store

import (
	"context"
	"database/sql"
	"errors"
)

// session is one connection with its prepared statements: preparing one costs
// more than running it.
type session struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func newSession(conn *sql.Conn) *session {
	return &session{conn: conn, stmts: map[string]*sql.Stmt{}}
}

func (t *session) close() error {
	for _, st := range t.stmts {
		st.Close()
	}
	return t.conn.Close()
}

// snapshot runs fn on a reading session: all that it reads is of one moment.
func (s *Store) snapshot(ctx context.Context, fn func(*session) error) error {
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t, err := s.session(ctx)
	if err != nil {
		return s.explain(err)
	}
	defer func() {
		s.idleLock.Lock()
		s.idle = append(s.idle, t)
		s.idleLock.Unlock()
	}()
	if err := t.exec(`BEGIN`); err != nil {
		return s.explain(err)
	}
	err = fn(t)
	return s.explain(errors.Join(err, t.exec(`COMMIT`)))
}

// session gives the one that was used last, or opens one: each costs memory,
// and most daemons never need the others.
func (s *Store) session(ctx context.Context) (*session, error) {
	s.idleLock.Lock()
	if n := len(s.idle); n > 0 {
		t := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.idleLock.Unlock()
		return t, nil
	}
	s.idleLock.Unlock()
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return newSession(conn), nil
}

func (t *session) stmt(query string) (*sql.Stmt, error) {
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.stmts[query] = st
	}
	return st, err
}

func (t *session) exec(query string, args ...any) error {
	_, err := t.result(query, args...)
	return err
}

func (t *session) result(query string, args ...any) (sql.Result, error) {
	st, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.Exec(args...)
}

// changed runs an UPDATE or DELETE and says how many rows it changed.
func (t *session) changed(query string, args ...any) (int64, error) {
	res, err := t.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs an INSERT and gives the new row's id.
func (t *session) insert(query string, args ...any) (int64, error) {
	res, err := t.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// row reads one row; found is false when there is none.
func (t *session) row(query string, args []any, dest ...any) (found bool, err error) {
	st, err := t.stmt(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRow(args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// each reads rows; scan is called once for each.
func (t *session) each(scan func(*sql.Rows) error, query string, args ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	rows, err := st.Query(args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

func scanAll(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
