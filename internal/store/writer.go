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
	*session
	db     *sql.DB
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
	*session
	w    *writer
	wake bool // jobs were made or moved
}

var errClosed = errors.New("the database is closed")

func newWriter(ctx context.Context, db *sql.DB, notify func()) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{session: newSession(conn), db: db, queue: make(chan *write, batch), done: make(chan struct{}), notify: notify}
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
	return errors.Join(w.session.close(), w.db.Close())
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
	t := &tx{session: w.session, w: w}
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
