package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// overHTTP serves the site's repository with git's own backend, to who has the
// password.
func (s *site) overHTTP(password string) *httptest.Server {
	s.t.Helper()
	at, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(at)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, p, _ := r.BasicAuth(); password != "" && (p != password || user != "x-access-token") {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, "no: %s, %s", p, r.Header.Get("Authorization"))
			return
		}
		backend.ServeHTTP(w, r)
	}))
	s.t.Cleanup(srv.Close)
	return srv
}

// fetchedFrom is the smallest config with another address.
func (s *site) fetchedFrom(address string) string {
	return strings.Replace(s.config(""), "clone_url: "+s.repo(), "clone_url: "+address, 1)
}

// withoutGit is a PATH that has what steps need, and no git.
func withoutGit(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bash", "sh", "cp", "grep", "cat", "mkdir", "rm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return "PATH=" + dir
}

func TestNoGitIsNeeded(t *testing.T) {
	for name, address := range map[string]func(s *site) string{
		"path": func(s *site) string { return s.repo() },
		"http": func(s *site) string { return s.overHTTP("").URL + "/repo/.git" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.start(strings.Replace(s.fetchedFrom(address(s)), `run: "! grep`, `run: "! command -v git && ! grep`, 1), withoutGit(t))
			for _, text := range []string{"one", "two"} {
				s.want(s.push(text), "succeeded")
				s.wantLive(text)
			}
		})
	}
}

func TestTokenStaysOutOfEverything(t *testing.T) {
	const token = "s3cr3t/t0ken-value+of-the-forge"
	s := newSite(t)
	right := s.overHTTP(token)
	config := strings.Replace(s.fetchedFrom(right.URL+"/repo/.git"), "    hook: github\n", "    hook: github\n    auth: { token: { environment: TEST_TOKEN } }\n", 1)
	s.start(config, "TEST_TOKEN="+token)
	s.want(s.push("one"), "succeeded")
	s.stop()
	log := s.log.String()
	const wrong = "wr0ng/t0ken-value+of-the-forge"
	s.start(config, "TEST_TOKEN="+wrong)
	r := s.want(s.push("two"), "failed")
	if !strings.Contains(why(r), "fetching github.com/acme/shop: the server asks for a login (401)") {
		t.Errorf("the run says %q", why(r))
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{log + s.log.String(), string(b), s.logOf(r.ID)} {
		for _, part := range []string{"t0ken-value", "eC1hY2Nlc3MtdG9rZW4", "x-access-token"} {
			if strings.Contains(text, part) {
				t.Errorf("%q is in %s", part, text)
			}
		}
	}
}

func TestDamagedMirrorDoesNotStopADeploy(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	s.want(s.push("one"), "succeeded")
	packs, err := filepath.Glob(s.path("data/git/*/objects/pack/*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("the mirror has %v, %v", packs, err)
	}
	for _, p := range packs {
		if err := os.Chmod(p, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.want(s.push("two"), "succeeded")
	s.wantLive("two")
}

// The commit that is live is not in a mirror that was fetched anew for an older
// one: then it is fetched too, before git is asked which of them is newer.
func TestLostMirrorNeverDeploysAnOlderCommit(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	first, second := s.commit("first"), s.commit("second")
	s.want(s.send(first, second).Runs[0], "succeeded")
	s.wantLive("second")
	s.stop()
	if err := os.RemoveAll(s.path("data/git")); err != nil {
		t.Fatal(err)
	}
	s.start(s.config(""))
	r := s.want(s.send(strings.Repeat("e", 40), first).Runs[0], "canceled")
	if !strings.Contains(why(r), "already live in") {
		t.Errorf("the late run: %q", why(r))
	}
	s.wantLive("second")
}

func TestCommitsThatCannotBeDeployedAreSaid(t *testing.T) {
	s := newSite(t)
	one := s.commit("one")
	tree := s.git("-C", s.repo(), "rev-parse", one+"^{tree}")
	s.start(s.config(""))
	for after, want := range map[string]string{
		strings.Repeat("1", 40): "commit " + strings.Repeat("1", 40) + " is not in github.com/acme/shop any more: it was removed, or the branch was forced since",
		tree:                    "github.com/acme/shop: " + tree + " is a directory, not a commit",
	} {
		r := s.want(s.send(one, after).Runs[0], "failed")
		if !strings.Contains(why(r), want) {
			t.Errorf("%s: %q, want %q", after, why(r), want)
		}
	}
}
