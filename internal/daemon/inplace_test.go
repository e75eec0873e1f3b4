package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inPlace is a config that deploys in place to the directory www.
func (s *site) inPlace(more string) string {
	return s.config(`
      test: { steps: [ { run: "! grep -q bad index.txt" } ] }
      deploy:
        release: { path: ` + s.path("www") + `, strategy: in_place }
        steps: [ { run: "cp index.txt built.txt; ! grep -q broken index.txt" } ]
        restart: "! grep -q crash index.txt"
` + more)
}

// wantFiles compares the tracked files of www with those of a commit, as git sees them.
func (s *site) wantFiles(commit string) {
	s.t.Helper()
	for _, name := range strings.Split(s.git("-C", s.repo(), "ls-tree", "-r", "-z", "--name-only", commit), "\x00") {
		if name == "" {
			continue
		}
		want := s.git("-C", s.repo(), "rev-parse", commit+":"+name)
		at := filepath.Join(s.path("www"), name)
		if st, err := os.Lstat(at); err != nil || st.Mode()&os.ModeSymlink == 0 {
			if got := s.git("hash-object", "--no-filters", at); got != want {
				s.t.Errorf("%s is not that of commit %s", name, commit)
			}
		}
	}
}

// put writes a file with the directories on the way to it.
func (s *site) put(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write(name, text)
}

// rev is the newest commit of the repository.
func (s *site) rev() string { return s.git("-C", s.repo(), "rev-parse", "HEAD") }

func TestPushIsDeployedInPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.inPlace(""))
	s.put("repo/lib/old.txt", "old\n")
	r := s.want(s.push("one"), "succeeded")
	if got := s.file("www/built.txt"); got != "one" {
		t.Errorf("the step made %q", got)
	}
	if st := r.Jobs[1].Hosts[0].Steps; len(st) != 3 || st[0].Name != "files" || st[2].Name != "restart" {
		t.Errorf("the steps are %+v", st)
	}
	s.put("www/uploads/photo.jpg", "a photo")
	s.put("www/lib/mine.txt", "mine")
	s.remove("repo/lib/old.txt")
	two := s.push("two")
	s.want(two, "succeeded")
	s.wantFiles(s.rev())
	if s.exists("www/lib/old.txt") || s.file("www/uploads/photo.jpg") != "a photo" || s.file("www/lib/mine.txt") != "mine" {
		t.Error("a removed file is there, or an untracked one is not")
	}
	if !strings.Contains(s.logOf(two), "1 written, 1 removed, 0 as they were") {
		t.Errorf("the log does not say what changed:\n%s", s.logOf(two))
	}
	for _, name := range []string{"releases", "shared", "current", ".deployhook"} {
		if s.exists("www/" + name) {
			t.Errorf("%s is among the site's files", name)
		}
	}
	list, err := s.client.Releases(t.Context(), "shop")
	if err != nil || len(list) != 2 || !list[0].Current || list[0].State != "live" || list[0].Commit != s.rev() || list[1].Current || list[1].State != "live" {
		t.Errorf("the releases are %+v, %v", list, err)
	}
	// Changed by hand: it stops, by name, and nothing has changed.
	s.put("www/index.txt", "by hand\n")
	bad := s.want(s.push("three"), "failed")
	if w := why(bad); !strings.Contains(w, "changed by hand: index.txt;") || !strings.Contains(w, "nothing was deployed") || !strings.Contains(w, "release.overwrite: true") {
		t.Errorf("the error is %q", w)
	}
	if got := s.file("www/index.txt"); got != "by hand" {
		t.Errorf("what was changed by hand is %q", got)
	}
	s.stop()
	s.start(strings.Replace(s.inPlace(""), "strategy: in_place", "strategy: in_place, overwrite: true", 1))
	s.want(s.push("four"), "succeeded")
	s.wantFiles(s.rev())
}
