package daemon_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

// caching is a pipeline of every branch and tag whose test job prints what the
// one before it left in kept, and leaves its commit's text there; lint is
// another job beside it, with a directory of its own.
func (s *site) caching(more, test string) string {
	config := s.config(`
      test: { steps: [ { name: cached, run: '` + test + `' } ] }
      lint:
        needs: []
        steps: [ { name: cached, run: "cat lint/text || echo nothing; mkdir -p lint; cp index.txt lint/text" } ]
`)
	config = strings.Replace(config, "on: { push: { branches: [main] } }", "on: push\n    cache: [kept, lint]"+more, 1)
	return config
}

const keepsText = `cat kept/text || echo nothing; mkdir -p kept; cp index.txt kept/text; ! grep -q bad index.txt`

// pushTo commits a text and sends the webhook of a ref; it gives the run.
func (s *site) pushTo(ref, text string, change ...func(map[string]any)) int64 {
	s.t.Helper()
	commit := s.commit(text)
	if tag, is := strings.CutPrefix(ref, "refs/tags/"); is {
		s.git("-C", s.repo(), "tag", tag)
	}
	a := s.send(zeros(), commit, append(change, func(p map[string]any) { p["ref"] = ref })...)
	if a.status != 202 || len(a.Runs) != 1 {
		s.t.Fatalf("the push was answered %+v", a)
	}
	return a.Runs[0]
}

// defaults names the default branch as a forge does.
func defaults(name string) func(map[string]any) {
	return func(p map[string]any) { p["repository"].(map[string]any)["default_branch"] = name }
}

func (s *site) wantCached(id int64, job, want string) {
	s.t.Helper()
	if got := strings.TrimSpace(s.printed(id, job, "cached")); got != want {
		s.t.Errorf("job %s of run %d found %q, want %q\n%s", job, id, got, want, s.logOf(id))
	}
}

func TestTestJobsFindWhatThoseBeforeThemLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.caching("", keepsText))
	branch := func(text, found string) {
		t.Helper()
		id := s.want(s.pushTo("refs/heads/main", text, defaults("main")), "succeeded").ID
		s.wantCached(id, "test", found)
	}
	branch("one", "nothing")
	branch("two", "one")
	// Nobody says which branch is the default one: git does.
	id := s.want(s.pushTo("refs/heads/main", "three"), "succeeded").ID
	s.wantCached(id, "test", "two")
	s.wantCached(id, "lint", "two")
	if log := s.logOf(id); !strings.Contains(log, "kept is taken from the cache of the branch: 1 files") {
		t.Errorf("the log does not say where it comes from:\n%s", log)
	}

	// Another branch begins with a copy, and keeps what is its own.
	s.git("-C", s.repo(), "checkout", "-q", "-b", "side")
	id = s.want(s.pushTo("refs/heads/side", "poison", defaults("main")), "succeeded").ID
	s.wantCached(id, "test", "three")
	s.wantCached(id, "lint", "three")
	id = s.want(s.pushTo("refs/tags/v1", "tagged", defaults("main")), "succeeded").ID
	s.wantCached(id, "test", "poison")
	s.git("-C", s.repo(), "checkout", "-q", "main")
	branch("four", "three")

	// So is a commit of another branch that somebody asks for by itself.
	side, err := s.client.Trigger(t.Context(), deploy.TriggerCommand{Pipeline: "shop", SHA: s.git("-C", s.repo(), "rev-parse", "side~1")})
	if err != nil {
		t.Fatal(err)
	}
	s.wantCached(s.want(side, "succeeded").ID, "test", "tagged")
	again, err := s.client.Trigger(t.Context(), deploy.TriggerCommand{Pipeline: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	s.wantCached(s.want(again, "succeeded").ID, "test", "four")

	// A job that fails keeps nothing.
	s.wantCached(s.want(s.pushTo("refs/heads/main", "bad", defaults("main")), "failed").ID, "test", "four")
	branch("five", "four")

	r, err := s.client.Caches(t.Context(), "shop")
	if err != nil || len(r.Sets) != 2 || len(r.Silent) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, kind := range []string{"branch", "others"} {
		set := r.Sets[i]
		if string(set.Kind) != kind || set.Host != "local" || set.User == "" || set.Pipeline != "shop" || strings.Join(set.Dirs, " ") != "kept lint" || set.Files != 2 || time.Since(set.Used) > time.Hour {
			t.Errorf("the set is %+v", set)
		}
	}
	// The branch is the one that is written, whatever the forge calls default.
	s.stop()
	s.start(s.caching("\n    branch: side", keepsText))
	branch("six", "poison") // main is another ref now
	if r, err := s.client.ClearCaches(t.Context(), ""); err != nil || len(r.Sets) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	branch("seven", "nothing")
}

// However a daemon ends while a cache is kept, the next job finds what one job
// left, all of it.
func TestCacheIsWholeAfterTheDaemonWasKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const files = 200
	config := s.caching("\n    branch: main", fmt.Sprintf(`mkdir -p kept; ls kept | wc -l; find kept -type f -exec cat {} + | sort -u; rm -rf kept; mkdir kept; t=$(cat index.txt); for i in $(seq %d); do echo "$t" >kept/$i; done; touch "%s/done-$t"`, files, s.dir))
	s.start(config)
	whole := func(id int64) {
		t.Helper()
		got := strings.Fields(s.printed(id, "test", "cached")) // of each attempt, how many files with which text
		if len(got) == 0 || len(got)%2 != 0 {
			t.Fatalf("run %d found %q\n%s", id, got, s.logOf(id))
		}
		for i := 0; i < len(got); i += 2 {
			if got[i] != fmt.Sprint(files) {
				t.Errorf("run %d found %q", id, got)
			}
		}
	}
	s.want(s.pushTo("refs/heads/main", "first"), "succeeded")
	for i := range 3 {
		text := fmt.Sprint("n", i)
		id := s.pushTo("refs/heads/main", text)
		s.until("the step is done", func() bool { _, err := os.Stat(s.path("done-" + text)); return err == nil })
		<-time.After(rand.N(20 * time.Millisecond))
		s.kill()
		s.start(config)
		whole(s.want(id, "succeeded").ID)
	}
	whole(s.want(s.pushTo("refs/heads/main", "last"), "succeeded").ID)
	// Nothing is left over of those that were cut short.
	kept, err := filepath.Glob(s.path("data/agent/caches/shop.*/*"))
	if err != nil || len(kept) != 3 { // the set, kept and lint
		t.Errorf("there are %q, %v", kept, err)
	}
}
