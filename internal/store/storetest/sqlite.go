package storetest

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"
)

// LockSQLite takes the write lock of the database in a daemon's directory, as
// a stranger's process could, until unlock is called.
func LockSQLite(t *testing.T, dir string) (unlock func()) {
	t.Helper()
	db, conn := openSQLite(t, dir)
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		conn.Close()
		db.Close()
	}
}

// DropBodies removes the bodies of all deliveries, as Trim does in time.
func DropBodies(t *testing.T, dir string) {
	t.Helper()
	db, conn := openSQLite(t, dir)
	if _, err := conn.ExecContext(t.Context(), "UPDATE deliveries SET body = NULL"); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	db.Close()
}

// MoveTimes makes everything in the database look as if it had happened so much
// later.
func MoveTimes(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	db, conn := openSQLite(t, dir)
	for _, q := range []string{
		`UPDATE runs SET created_ms = created_ms + ?1, started_ms = started_ms + ?1, ended_ms = ended_ms + ?1`,
		`UPDATE jobs SET started_ms = started_ms + ?1, ended_ms = ended_ms + ?1`,
		`UPDATE steps SET started_ms = started_ms + ?1, ended_ms = ended_ms + ?1`,
		`UPDATE deliveries SET received_ms = received_ms + ?1`,
		`UPDATE holds SET since_ms = since_ms + ?1`,
		`UPDATE live SET seen_ms = seen_ms + ?1`,
	} {
		if _, err := conn.ExecContext(t.Context(), q, by.Milliseconds()); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	db.Close()
}

func openSQLite(t *testing.T, dir string) (*sql.DB, *sql.Conn) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "deployhook.db"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return db, conn
}
