// Package store is the only place with SQL: deliveries, runs, jobs, steps,
// logs, locks and holds, in SQLite.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"deployhook/internal/deploy"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many connections read beside the one that writes.
const readers = 4

// Store is a database of one daemon. Its methods may be called from several
// goroutines.
type Store struct {
	lock      *os.File
	writer    *writer
	read      *sql.DB
	snapshots chan struct{} // full while no more may be taken
	idle      []*session    // the last used one last
	idleLock  sync.Mutex
	daemon    string
	follow    atomic.Pointer[func(*deploy.Run) []deploy.NewRun]

	background sync.WaitGroup
	wake       chan struct{}
	path       string
	log        *slog.Logger
}

// Open opens the database in dir, makes it where it is not there, and brings
// it to this version. dir is locked until [Store.Close]: a second daemon on it
// is an error, as are a database of a newer version, a damaged one and one
// that cannot be written; each is one sentence.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Store, error) {
	// Timestamps of the database's files say nothing that counts, and need not
	// be on disk with each transaction: data and sizes are.
	if _, err := sqlite.Fdatasync(true); err != nil {
		log.Debug("fdatasync is not used", "err", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock, wake: make(chan struct{}, 1), path: filepath.Join(dir, "deployhook.db"), log: log}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, s.explain(err)
	}
	return s, nil
}

// lockWait is how long the lock is waited for: what a daemon was about to start
// when it was killed has it a moment longer.
const lockWait = 2 * time.Second

// flock takes a lock that nobody has, or has any more in a moment.
func flock(f *os.File) error {
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return err
		}
	}
}

// lockDir takes the flock that keeps a second daemon away. The file is never
// removed: two could hold locks on two files of the same name.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil, fmt.Errorf("the data directory %s cannot be written: %w", dir, errors.Unwrap(err))
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := flock(f); err != nil {
		pid := make([]byte, 32)
		n, _ := f.Read(pid)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another deployhook (pid %s) uses the data directory %s", strings.TrimSpace(string(pid[:n])), dir)
		}
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	_ = f.Truncate(0)
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		f.Close()
		if errors.Is(err, syscall.ENOSPC) {
			return nil, fmt.Errorf("no space left in the data directory %s", dir)
		}
		return nil, fmt.Errorf("the data directory %s cannot be written: %w", dir, err)
	}
	return f, nil
}

func (s *Store) open(ctx context.Context) error {
	db, err := sql.Open("sqlite", s.dsn("synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)", "cache_size(-4000)", "temp_store(MEMORY)", "wal_autocheckpoint(0)")+"&_txlock=immediate")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db); err != nil {
		db.Close()
		return err
	}
	if s.writer, err = newWriter(ctx, db, func() { signal(s.wake) }, &s.follow); err != nil {
		db.Close()
		return err
	}
	if s.read, err = sql.Open("sqlite", s.dsn("query_only(1)", "busy_timeout(10000)", "cache_size(-1000)")); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(2 * readers)
	s.snapshots = make(chan struct{}, readers)
	if err := s.identify(ctx); err != nil {
		return err
	}
	if err := s.loadOrder(ctx); err != nil {
		return err
	}
	s.background.Go(s.checkpoints)
	return nil
}

func (s *Store) dsn(pragmas ...string) string {
	q := url.Values{}
	for _, p := range append([]string{"journal_mode(WAL)"}, pragmas...) {
		q.Add("_pragma", p)
	}
	return "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?" + q.Encode()
}

func migrate(ctx context.Context, db *sql.DB) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > want {
		return fmt.Errorf("the database is of a newer deployhook (schema %d, this one knows %d): install that version again", have, want)
	}
	_, err = p.Up(ctx)
	return err
}

// identify reads the daemon's id, which is made once and stays with the
// database: journals of releases name it.
func (s *Store) identify(ctx context.Context) error {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	err := s.writer.do(ctx, func(t *tx) error {
		return t.exec(`INSERT OR IGNORE INTO meta (key, value) VALUES ('daemon', ?)`, hex.EncodeToString(id))
	})
	if err != nil {
		return err
	}
	return s.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'daemon'`).Scan(&s.daemon)
}

// loadOrder finds the last accept number.
func (s *Store) loadOrder(ctx context.Context) error {
	return s.read.QueryRowContext(ctx, `
		SELECT max(coalesce((SELECT max(ord) FROM runs), 0), coalesce((SELECT max(ord) FROM pushes), 0))`).Scan(&s.writer.order)
}

// Daemon is the id of this daemon: it is in the journal of every release that
// it makes.
func (s *Store) Daemon() string { return s.daemon }

// Wake is signaled after a commit that made or moved jobs.
func (s *Store) Wake() <-chan struct{} { return s.wake }

// signal fills a channel of one, unless it is full.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Check says whether the database can be written now.
func (s *Store) Check(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(`INSERT OR REPLACE INTO meta (key, value) VALUES ('checked', '')`)
	})
}

// Close ends the writer, after what it was given, and frees the directory.
func (s *Store) Close() error {
	var err error
	if s.writer != nil {
		err = s.writer.close()
	}
	s.background.Wait()
	s.idleLock.Lock()
	for _, t := range s.idle {
		err = errors.Join(err, t.close())
	}
	s.idleLock.Unlock()
	if s.read != nil {
		err = errors.Join(err, s.read.Close())
	}
	if s.writer != nil {
		err = errors.Join(err, s.writer.db.Close())
	}
	return errors.Join(err, s.lock.Close())
}

// write runs fn in the next transaction and waits until it is on disk.
func (s *Store) write(ctx context.Context, fn func(*tx) error) error {
	return s.explain(s.writer.do(ctx, fn))
}

// explain turns what SQLite says into what a person needs to know.
func (s *Store) explain(err error) error {
	var e *sqlite.Error
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w for the database %s", deploy.ErrFull, s.path)
	}
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w for the database %s", deploy.ErrFull, s.path)
	case sqlite3.SQLITE_IOERR:
		// SQLite hides what the system said; a full disk is the common case.
		if full(filepath.Dir(s.path)) {
			return fmt.Errorf("%w for the database %s", deploy.ErrFull, s.path)
		}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the database %s is damaged (%v): restore a copy of it, or move it away to begin anew", s.path, e)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("the database %s cannot be written (%v): check its owner and mode", s.path, e)
	}
	return err
}

// full says whether the file system of dir has no room for another page.
func full(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < 1<<20
}
