package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// batch is how many writes share a transaction, and so an fsync.
const batch = 128

// writer is the one goroutine that writes. It gathers what waits into one
// transaction; each write has a savepoint, so that one that fails does no harm
// to the others.
type writer struct {
	db     *sql.DB
	conn   *sql.Conn
	stmts  map[string]*sql.Stmt
	queue  chan *write
	done   chan struct{}
	notify func()
	order  int64 // the last accept number; only the writer's goroutine uses it

	mu     sync.RWMutex
	closed bool
}

type write struct {
	fn   func(*tx) error
	err  error
	done chan struct{}
}

// tx is one write's view of the transaction.
type tx struct {
	w    *writer
	wake bool // jobs were made or moved
}

var errClosed = errors.New("the database is closed")

func newWriter(ctx context.Context, db *sql.DB, notify func()) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db, conn: conn, stmts: map[string]*sql.Stmt{}, queue: make(chan *write, batch), done: make(chan struct{}), notify: notify}
	go w.run()
	return w, nil
}

// do hands fn to the writer and waits until its transaction is on disk. When
// ctx ends first, fn may still be carried out.
func (w *writer) do(ctx context.Context, fn func(*tx) error) error {
	wr := &write{fn: fn, done: make(chan struct{})}
	w.mu.RLock()
	if w.closed {
		w.mu.RUnlock()
		return errClosed
	}
	select {
	case w.queue <- wr:
		w.mu.RUnlock()
	case <-ctx.Done():
		w.mu.RUnlock()
		return ctx.Err()
	}
	select {
	case <-wr.done:
		return wr.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.queue)
	w.mu.Unlock()
	<-w.done
	for _, st := range w.stmts {
		st.Close()
	}
	return errors.Join(w.conn.Close(), w.db.Close())
}

func (w *writer) run() {
	defer close(w.done)
	list := make([]*write, 0, batch)
	for first := range w.queue {
		list = append(list[:0], first)
	gather:
		for len(list) < batch {
			select {
			case next, ok := <-w.queue:
				if !ok {
					break gather
				}
				list = append(list, next)
			default:
				break gather
			}
		}
		wake := w.commit(list)
		for i, wr := range list {
			close(wr.done)
			list[i] = nil
		}
		if wake {
			w.notify()
		}
	}
}

// commit carries out a batch in one transaction.
func (w *writer) commit(list []*write) (wake bool) {
	t := &tx{w: w}
	fail := func(err error) bool {
		for _, wr := range list {
			if wr.err == nil {
				wr.err = err
			}
		}
		_ = t.exec(`ROLLBACK`) // may have happened by itself
		return false
	}
	if err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return fail(err)
	}
	for _, wr := range list {
		if err := t.exec(`SAVEPOINT one`); err != nil {
			return fail(err)
		}
		before := t.wake
		if wr.err = wr.fn(t); wr.err != nil {
			t.wake = before
			// A full disk may have ended the whole transaction: then nothing
			// of this batch is on disk.
			if err := t.exec(`ROLLBACK TO one`); err != nil {
				return fail(wr.err)
			}
		}
		if err := t.exec(`RELEASE one`); err != nil {
			return fail(err)
		}
	}
	if err := t.exec(`COMMIT`); err != nil {
		return fail(fmt.Errorf("writing to disk: %w", err))
	}
	return t.wake
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if st := t.w.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.w.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.w.stmts[query] = st
	}
	return st, err
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.result(query, args...)
	return err
}

func (t *tx) result(query string, args ...any) (sql.Result, error) {
	st, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.Exec(args...)
}

// changed runs an UPDATE or DELETE and says how many rows it changed.
func (t *tx) changed(query string, args ...any) (int64, error) {
	res, err := t.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs an INSERT and gives the new row's id.
func (t *tx) insert(query string, args ...any) (int64, error) {
	res, err := t.result(query, args...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// row reads one row; found is false when there is none.
func (t *tx) row(query string, args []any, dest ...any) (found bool, err error) {
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
func (t *tx) each(scan func(*sql.Rows) error, query string, args ...any) error {
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
