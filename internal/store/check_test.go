package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func TestSchemaTakesNoOtherState(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	id, err := s.Create(t.Context(), deploy.NewRun{Pipeline: "shop", Event: deploy.Manual, Jobs: []deploy.NewJob{{Name: "test", Ready: true}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveStep(t.Context(), deploy.StepAt{Run: id, Job: "test", Host: "local"}, deploy.RunStep{Name: "x", State: deploy.Running}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "deployhook.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range []string{"runs", "jobs", "steps"} {
		if _, err := db.Exec(`UPDATE ` + table + ` SET state = 'done'`); err == nil || !strings.Contains(err.Error(), "CHECK constraint failed") {
			t.Errorf("%s: %v", table, err)
		}
		for _, state := range []deploy.State{deploy.Queued, deploy.Waiting, deploy.Running, deploy.Succeeded, deploy.Failed, deploy.Canceled, deploy.Skipped, deploy.Lost} {
			if _, err := db.Exec(`UPDATE `+table+` SET state = ?`, state); err != nil {
				t.Errorf("%s: %s: %v", table, state, err)
			}
		}
	}
}
