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

// ShiftTimes moves every time in the database by d, as if the clock had been
// wrong until now.
func ShiftTimes(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	db, conn := openSQLite(t, dir)
	for table, columns := range map[string][]string{
		"runs": {"created_ms", "started_ms", "ended_ms"}, "jobs": {"started_ms", "ended_ms"}, "steps": {"started_ms", "ended_ms"},
		"deliveries": {"received_ms"}, "holds": {"since_ms"}, "live": {"seen_ms"}, "schedules": {"last_ms"},
	} {
		for _, c := range columns {
			if _, err := conn.ExecContext(t.Context(), "UPDATE "+table+" SET "+c+" = "+c+" + ? WHERE "+c+" > 0", d.Milliseconds()); err != nil {
				t.Fatal(err)
			}
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
