package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"

	"deployhook/internal/deploy"
)

// batch is how many writes share a transaction, and so an fsync.
const batch = 128

// writer is the one goroutine that writes. It gathers what waits into one
// transaction, so that they share an fsync.
type writer struct {
	*session
	db      *sql.DB
	queue   chan *write
	done    chan struct{}
	notify  func()
	follow  *atomic.Pointer[func(*deploy.Run) []deploy.NewRun]
	order   int64             // the last accept number; only the writer's goroutine uses it
	held    map[string]string // by pipeline: the sentence of its hold by hand; nil = read it again
	written chan struct{}     // has one when something was committed
	pages   atomic.Int64      // written to the write-ahead log since the start
	restart atomic.Bool       // the write-ahead log is nearly all in the database

	mu     sync.RWMutex
	closed bool
}

// write is one change. fn may be called twice: see [writer.commit].
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

func newWriter(ctx context.Context, db *sql.DB, notify func(), follow *atomic.Pointer[func(*deploy.Run) []deploy.NewRun]) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{session: newSession(conn), db: db, queue: make(chan *write, batch), done: make(chan struct{}), notify: notify, follow: follow, written: make(chan struct{}, 1)}
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
	close(w.written)
	return w.session.close()
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
		w.count()
		signal(w.written)
		if w.restart.Swap(false) {
			// The rest of the log is short: with it in the database too, the
			// next transaction begins the log anew.
			_ = w.exec(`PRAGMA wal_checkpoint(PASSIVE)`)
		}
	}
}

// count adds what the last transaction wrote to pages.
func (w *writer) count() {
	_ = w.conn.Raw(func(c any) error {
		n, _, err := c.(sqlite.DBStatus).Status(sqlite.DBStatusCacheWrite, true)
		w.pages.Add(int64(n))
		return err
	})
}

// commit carries out a batch in one transaction. When one of its writes
// fails, none has happened, and all are carried out again, each behind a
// savepoint: so that one that fails does no harm to the others, and those that
// do not fail do not pay for it.
func (w *writer) commit(list []*write) (wake bool) {
	wake, err := w.transaction(list, false)
	if err != nil && len(list) > 1 {
		wake, err = w.transaction(list, true)
	}
	if err != nil {
		for _, wr := range list {
			if wr.err == nil {
				wr.err = err
			}
		}
	}
	return wake
}

// transaction carries out writes, or none of them when it returns an error.
// With savepoints the error of a write is its own affair.
func (w *writer) transaction(list []*write, savepoints bool) (wake bool, err error) {
	t := &tx{session: w.session, w: w}
	defer func() {
		if err != nil {
			w.held = nil
			_ = t.exec(`ROLLBACK`) // may have happened by itself
		}
	}()
	if err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return false, err
	}
	for _, wr := range list {
		if !savepoints {
			if err := wr.fn(t); err != nil {
				return false, err
			}
			continue
		}
		if err := t.exec(`SAVEPOINT one`); err != nil {
			return false, err
		}
		before := t.wake
		if wr.err = wr.fn(t); wr.err != nil {
			t.wake, w.held = before, nil
			// A full disk may have ended the whole transaction: then nothing
			// of this batch is on disk.
			if err := t.exec(`ROLLBACK TO one`); err != nil {
				return false, wr.err
			}
		}
		if err := t.exec(`RELEASE one`); err != nil {
			return false, err
		}
	}
	if err := t.exec(`COMMIT`); err != nil {
		return false, fmt.Errorf("writing to disk: %w", err)
	}
	return t.wake, nil
}
