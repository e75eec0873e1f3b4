package store

import (
	"database/sql"
	"testing"
)

// SetVersion makes a database look as if a later deployhook had made it.
func SetVersion(t *testing.T, path string, version int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)`, version); err != nil {
		t.Fatal(err)
	}
}

// DecodeLines is decodeLines, for its fuzz test.
func DecodeLines(b []byte) { _, _ = decodeLines(b) }
