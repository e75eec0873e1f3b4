package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/store/storetest"
	"deployhook/internal/web"
)

// wasIn makes everything that is there look as if it had happened in another
// year: the clock was wrong then, and has jumped since.
func (s *site) wasIn(year string) {
	s.t.Helper()
	names, err := filepath.Glob(s.path("srv/releases/*"))
	if err != nil {
		s.t.Fatal(err)
	}
	journal, err := os.ReadFile(s.path("srv/.deployhook/releases.ndjson"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range names {
		id := filepath.Base(name)
		other := year + id[4:]
		if err := os.Rename(name, filepath.Join(filepath.Dir(name), other)); err != nil {
			s.t.Fatal(err)
		}
		journal = []byte(strings.ReplaceAll(string(journal), id, other))
		if target, err := os.Readlink(s.current()); err == nil && filepath.Base(target) == id {
			s.remove("srv/current")
			if err := os.Symlink("releases/"+other, s.current()); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	s.write("srv/.deployhook/releases.ndjson", strings.ReplaceAll(string(journal), `"time":"20`, `"time":"`+year[:2]))
	storetest.ShiftTimes(s.t, s.path("data"), 73*365*24*time.Hour)
}

func TestClockThatJumpedBackDisturbsNoOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	s.deployed("one", "two")
	s.hold("lock", "")
	waits := s.push("three")
	s.untilJob(waits, "deploy", "waiting")
	s.stop()
	s.wasIn("2099")
	s.start(s.config(""))
	four := s.push("four")
	s.untilJob(four, "deploy", "waiting")
	s.hold("unlock", "")
	s.want(four, "succeeded")
	if r := s.want(waits, "canceled"); why(r) != fmt.Sprintf("superseded by run %d; retry %d brings it back", four, waits) {
		t.Errorf("the older run: %q", why(r))
	}
	s.wantLive("four")
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 3 || list[0].ID[:4] == "2099" || list[1].ID[:4] != "2099" || list[2].ID[:4] != "2099" || !list[0].Current || list[1].Run <= list[2].Run {
		t.Errorf("the releases are not the newest first: %+v, %v", list, err)
	}
	runs, err := s.client.Runs(t.Context(), web.Query{Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(runs); i++ {
		if runs[i-1].ID <= runs[i].ID {
			t.Errorf("run %d is listed before run %d", runs[i-1].ID, runs[i].ID)
		}
	}
	// One step back is the one that was live before, not the one of another year.
	back := s.back("")
	if back.Target != list[1].ID {
		t.Errorf("the target is %s, want %s", back.Target, list[1].ID)
	}
	s.wantLive("two")
	// What is kept is what was made last: the oldest by its run goes first.
	s.stop()
	s.start(s.config(strings.Replace(`
      deploy:
        release: { path: SRV, keep: 2 }
        steps: [ { run: "cp index.txt built.txt" } ]
`, "SRV", s.path("srv"), 1)))
	s.want(s.push("five"), "succeeded")
	if list, err = s.client.Releases(t.Context(), "shop"); err != nil || !list[0].Current || list[0].ID[:4] == "2099" {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	if _, err := s.client.Rollback(t.Context(), rollback("")); err != nil {
		t.Errorf("the rollback target was removed: %v", err)
	}
}
