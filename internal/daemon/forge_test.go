package daemon_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// forgeSecret signs what the forge sends; its recorded deliveries are verified
// with it.
const forgeSecret = "a-secret-for-the-real-forge"

// forge is a real Gitea on this machine with one user and one repository.
type forge struct {
	t        *testing.T
	url      string // without a slash at its end
	password string
	work     string // a clone of the repository
	hook     int64  // number of its webhook

	mu       sync.Mutex
	recorded []recording
}

// recording is one delivery as the forge sent it, and what it was answered.
type recording struct {
	Step    string            `json:"step"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	status  int
	answer  answer
}

func (r *recording) event() string { return r.Headers["X-Gitea-Event"] }

// newForge starts the Gitea whose program DEPLOYHOOK_FORGE names, with what it
// needs beside it in the directory static. It ends with the test.
func newForge(t *testing.T) *forge {
	t.Helper()
	program := os.Getenv("DEPLOYHOOK_FORGE")
	if program == "" {
		t.Skip("DEPLOYHOOK_FORGE names no Gitea: make test-forge builds one")
	}
	dir, err := os.MkdirTemp("", "forge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// It refuses to be root, and another user may not reach a cache below
	// root's home.
	for _, name := range []string{"gitea", "static"} {
		from := program
		if name != "gitea" {
			from = filepath.Join(filepath.Dir(program), name)
		}
		if out, err := exec.Command("cp", "-rL", from, filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("copying the forge: %v\n%s", err, out)
		}
	}
	address := free(t)
	_, port, _ := net.SplitHostPort(address)
	f := &forge{t: t, url: "http://" + address, password: "a-password-of-alice", work: filepath.Join(dir, "work")}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	ini := fmt.Sprintf(`RUN_MODE = prod
WORK_PATH = %[1]s
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[2]s
ROOT_URL = %[3]s/
DISABLE_SSH = true
OFFLINE_MODE = true
STATIC_ROOT_PATH = %[4]s
[database]
DB_TYPE = sqlite3
PATH = %[1]s/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = of-this-test-alone
PASSWORD_HASH_ALGO = pbkdf2
[webhook]
ALLOWED_HOST_LIST = loopback
[service]
DISABLE_REGISTRATION = true
[repository]
DEFAULT_BRANCH = main
[actions]
ENABLED = false
[packages]
ENABLED = false
[cron]
ENABLED = false
[log]
MODE = console
LEVEL = Warn
`, home, port, f.url, filepath.Join(dir, "static"))
	config := filepath.Join(home, "app.ini")
	if err := os.WriteFile(config, []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	var who *syscall.Credential
	if os.Geteuid() == 0 {
		who = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{home, config} {
			if err := os.Chown(path, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	gitea := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(dir, "gitea"), append([]string{"--config", config}, args...)...)
		cmd.Dir = home
		// It changes its user's git config: that must be one of its own.
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "USER=forge"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
		return cmd
	}
	for _, args := range [][]string{
		{"migrate"},
		{"admin", "user", "create", "--admin", "--username", "alice", "--password", f.password, "--email", "alice@example.com", "--must-change-password=false"},
	} {
		if out, err := gitea(args...).CombinedOutput(); err != nil {
			t.Fatalf("gitea %s: %v\n%s", args[0], err, out)
		}
	}
	web, log := gitea("web"), &output{}
	web.Stdout, web.Stderr = log, log
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = web.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = web.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = syscall.Kill(-web.Process.Pid, syscall.SIGKILL)
			<-exited
		}
		if t.Failed() {
			t.Logf("the forge's log:\n%s", log)
		}
	})
	for end := time.Now().Add(2 * time.Minute); ; {
		res, err := http.Get(f.url + "/api/healthz")
		if err == nil {
			res.Body.Close()
		}
		if err == nil && res.StatusCode == http.StatusOK {
			return f
		}
		select {
		case <-exited:
			t.Fatalf("the forge ended:\n%s", log)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("the forge did not start: %v\n%s", err, log)
		}
	}
}

// api asks the forge as alice; into may be nil.
func (f *forge) api(method, path string, send, into any) {
	f.t.Helper()
	body, err := json.Marshal(send)
	if err != nil {
		f.t.Fatal(err)
	}
	req, err := http.NewRequest(method, f.url+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.SetBasicAuth("alice", f.password)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		f.t.Fatalf("%s %s: %s %s, %v", method, path, res.Status, got, err)
	}
	if into != nil {
		if err := json.Unmarshal(got, into); err != nil {
			f.t.Fatalf("%s %s: %v: %s", method, path, err, got)
		}
	}
}

// record passes on what the forge sends to an address, and keeps it.
func (f *forge) record(address string, step func() string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			f.t.Error(err)
			return
		}
		rec := recording{Step: step(), Headers: map[string]string{}, Body: string(body)}
		for name, values := range r.Header {
			if strings.HasPrefix(name, "X-") || name == "Content-Type" || name == "User-Agent" {
				rec.Headers[name] = strings.Join(values, "\n")
			}
		}
		req, err := http.NewRequest(r.Method, "http://"+address+r.URL.Path, bytes.NewReader(body))
		if err != nil {
			f.t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		res, err := (&http.Client{Timeout: time.Minute}).Do(req)
		if err != nil {
			f.t.Error(err)
			return
		}
		defer res.Body.Close()
		answered, err := io.ReadAll(res.Body)
		if err == nil {
			err = json.Unmarshal(answered, &rec.answer)
		}
		if err != nil {
			f.t.Errorf("the answer to %s: %v: %s", rec.event(), err, answered)
		}
		rec.status = res.StatusCode
		f.mu.Lock()
		f.recorded = append(f.recorded, rec)
		f.mu.Unlock()
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(answered)
	}))
	f.t.Cleanup(srv.Close)
	return srv.URL
}

// git works in the clone as alice.
func (f *forge) git(args ...string) string {
	f.t.Helper()
	login := base64.StdEncoding.EncodeToString([]byte("alice:" + f.password))
	cmd := exec.Command("git", append([]string{"-C", f.work, "-c", "http.extraHeader=Authorization: Basic " + login}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(f.work), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=alice", "GIT_AUTHOR_EMAIL=alice@example.com",
		"GIT_COMMITTER_NAME=alice", "GIT_COMMITTER_EMAIL=alice@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit changes index.txt and gives the commit.
func (f *forge) commit(text string) string {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.work, "index.txt"), []byte(text+"\n"), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.git("add", "-A")
	f.git("commit", "-q", "-m", text)
	return f.git("rev-parse", "HEAD")
}

// got waits for the n-th delivery of a step whose event is one of a kind.
func (f *forge) got(s *site, step, event string) recording {
	f.t.Helper()
	var found recording
	s.until(fmt.Sprintf("the forge has sent %s for: %s", event, step), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range f.recorded {
			if r.Step == step && r.event() == event {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// shows waits until the forge has a status of a commit.
func (f *forge) shows(s *site, commit, want string) {
	s.t.Helper()
	s.until("the commit shows "+want, func() bool {
		var list []struct {
			State   string `json:"status"`
			Context string `json:"context"`
		}
		f.api("GET", "/repos/alice/shop/commits/"+commit+"/statuses?sort=recentupdate", nil, &list)
		for _, st := range list {
			if st.Context == "deployhook/shop" && st.State == want {
				return true
			}
		}
		return false
	})
}

// started wants a delivery that started one run, and gives the run.
func (f *forge) started(s *site, step, event string) int64 {
	f.t.Helper()
	r := f.got(s, step, event)
	if r.status != http.StatusAccepted || len(r.answer.Runs) != 1 {
		f.t.Fatalf("%s: %s was answered %d %+v", step, event, r.status, r.answer)
	}
	return r.answer.Runs[0]
}

// nothing wants a delivery that started nothing, and an answer that says why.
func (f *forge) nothing(s *site, step, event, why string) {
	f.t.Helper()
	r := f.got(s, step, event)
	if r.status != http.StatusOK || len(r.answer.Runs) != 0 || !strings.Contains(r.answer.Message, why) {
		f.t.Errorf("%s: %s was answered %d %+v, want 200 and %q", step, event, r.status, r.answer, why)
	}
}

// redeliver does what the button of that name does: there is no API for it.
func (f *forge) redeliver(r recording) {
	f.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, form := range []struct {
		path   string
		values url.Values
	}{
		{"/user/login", url.Values{"user_name": {"alice"}, "password": {f.password}}},
		{fmt.Sprintf("/alice/shop/settings/hooks/%d/replay/%s", f.hook, r.Headers["X-Gitea-Delivery"]), nil},
	} {
		res, err := c.PostForm(f.url+form.path, form.values)
		if err != nil {
			f.t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusSeeOther && res.StatusCode != http.StatusOK {
			f.t.Fatalf("%s: %s", form.path, res.Status)
		}
	}
}

// A real Gitea pushes, tags, forces, deletes and redelivers, and what it pushed
// is deployed. With DEPLOYHOOK_FORGE_RECORD its deliveries are written there,
// for the receiver's test of them.
func TestRealForgeIsDeployedFrom(t *testing.T) {
	f := newForge(t)
	s := newSite(t)
	step, mu := "", sync.Mutex{}
	to := f.record(s.addr, func() string { mu.Lock(); defer mu.Unlock(); return step })
	begin := func(name string) string { mu.Lock(); step = name; mu.Unlock(); return name }

	f.api("POST", "/user/repos", map[string]any{"name": "shop", "private": true, "default_branch": "main"}, nil)
	var token struct {
		SHA1 string `json:"sha1"`
	}
	f.api("POST", "/users/alice/tokens", map[string]any{"name": "deployhook", "scopes": []string{"write:repository"}}, &token)
	var hook struct {
		ID int64 `json:"id"`
	}
	f.api("POST", "/repos/alice/shop/hooks", map[string]any{
		"type": "gitea", "active": true, "branch_filter": "*",
		"events": []string{"push", "create", "delete", "pull_request", "release", "issues"},
		"config": map[string]string{"url": to + "/hooks/forge", "content_type": "json", "secret": forgeSecret},
	}, &hook)
	f.hook = hook.ID
	s.start(fmt.Sprintf(`
server: { listen: "%s", data: %s, socket: %s, shutdown_grace: 2s }
hooks:
  forge: { provider: gitea, secret: { environment: FORGE_SECRET } }
pipelines:
  shop:
    repository: 127.0.0.1/alice/shop
    clone_url: %s/alice/shop.git
    auth: { username: alice, token: { environment: FORGE_TOKEN } }
    on: { push: { branches: [main] } }
    notify: [ { status: true } ]
    jobs:
      test: { steps: [ { run: "! grep -q bad index.txt" } ] }
      deploy:
        release: %s
        steps: [ { run: "cp index.txt built.txt" } ]
  tags:
    repository: 127.0.0.1/alice/shop
    clone_url: %[4]s/alice/shop.git
    auth: { username: alice, token: { environment: FORGE_TOKEN } }
    on: { push: { tags: ["v*"] } }
    jobs: { test: { steps: [ { run: 'echo "$DEPLOYHOOK_TAG is $DEPLOYHOOK_SHA" && cat index.txt' } ] } }
`, s.addr, s.path("data"), s.path("sock"), f.url, s.path("srv")), "FORGE_SECRET="+forgeSecret, "FORGE_TOKEN="+token.SHA1)

	if err := os.Mkdir(f.work, 0o755); err != nil {
		t.Fatal(err)
	}
	f.git("init", "-q", "-b", "main")
	f.git("remote", "add", "origin", f.url+"/alice/shop.git")

	first := begin("the first push")
	one := f.commit("one")
	f.git("push", "-q", "origin", "main")
	run := s.want(f.started(s, first, "push"), "succeeded")
	if run.Commit == nil || *run.Commit != one || *run.Actor != "alice" {
		t.Errorf("the run of the first push is %+v", run)
	}
	s.wantLive("one")
	f.shows(s, one, "success")

	next := begin("three commits in one push")
	for _, text := range []string{"two", "three", "four"} {
		f.commit(text)
	}
	f.git("push", "-q", "origin", "main")
	s.want(f.started(s, next, "push"), "succeeded")
	s.wantLive("four")
	four := f.git("rev-parse", "HEAD")

	bad := begin("a push that its test refuses")
	f.commit("bad")
	f.git("push", "-q", "origin", "main")
	s.want(f.started(s, bad, "push"), "failed")
	f.shows(s, f.git("rev-parse", "HEAD"), "failure")
	s.wantLive("four")

	forced := begin("a forced push")
	f.git("reset", "-q", "--hard", four)
	forcedTo := f.commit("forced")
	f.git("push", "-q", "--force", "origin", "main")
	s.want(f.started(s, forced, "push"), "succeeded")
	s.wantLive("forced")

	for _, tag := range []struct{ step, name, flag string }{{"a tag", "v1", ""}, {"an annotated tag", "v2", "-m annotated"}} {
		begin(tag.step)
		f.git(append([]string{"tag", tag.name}, strings.SplitN(tag.flag, " ", 2)[:len(strings.Fields(tag.flag))]...)...)
		f.git("push", "-q", "origin", tag.name)
		run := s.want(f.started(s, tag.step, "push"), "succeeded")
		if run.Commit == nil || *run.Commit != forcedTo || !strings.Contains(s.logOf(run.ID), tag.name+" is "+forcedTo) {
			t.Errorf("%s: the run is %+v\n%s", tag.step, run, s.logOf(run.ID))
		}
		f.nothing(s, tag.step, "create", "no pipeline")
	}

	branch := begin("a branch that no pipeline wants")
	f.git("checkout", "-q", "-b", "feature")
	f.commit("feature")
	f.git("push", "-q", "origin", "feature")
	f.nothing(s, branch, "push", "branch feature")

	pull := begin("a pull request")
	f.api("POST", "/repos/alice/shop/pulls", map[string]any{"head": "feature", "base": "main", "title": "Please"}, nil)
	f.nothing(s, pull, "pull_request", "pull")

	gone := begin("a deleted branch")
	f.git("push", "-q", "origin", "--delete", "feature")
	f.nothing(s, gone, "delete", "")
	f.nothing(s, gone, "pull_request", "") // it is closed with its branch

	gone = begin("a deleted tag")
	f.git("push", "-q", "origin", "--delete", "v1")
	f.nothing(s, gone, "push", "tag v1")
	f.nothing(s, gone, "delete", "")

	again := begin("a redelivery")
	f.redeliver(f.got(s, forced, "push"))
	r := f.got(s, again, "push")
	if was := f.got(s, forced, "push"); r.status != http.StatusOK || len(r.answer.Runs) != 1 || r.answer.Runs[0] != was.answer.Runs[0] || r.Body != was.Body ||
		r.Headers["X-Gitea-Delivery"] == was.Headers["X-Gitea-Delivery"] {
		t.Errorf("the redelivery of run %v was answered %d %+v", was.answer.Runs, r.status, r.answer)
	}

	test := begin("its own test")
	f.api("POST", "/repos/alice/shop/hooks/"+strconv.FormatInt(f.hook, 10)+"/tests", nil, nil)
	f.nothing(s, test, "push", "")

	released := begin("a release")
	f.api("POST", "/repos/alice/shop/releases", map[string]any{"tag_name": "v2", "name": "Two"}, nil)
	f.got(s, released, "release")
	s.wantLive("forced")

	form := begin("a push as a form")
	f.api("PATCH", fmt.Sprintf("/repos/alice/shop/hooks/%d", f.hook), map[string]any{
		"config": map[string]string{"url": to + "/hooks/forge", "content_type": "form", "secret": forgeSecret},
	}, nil)
	f.git("checkout", "-q", "main")
	f.commit("form")
	f.git("push", "-q", "origin", "main")
	s.want(f.started(s, form, "push"), "succeeded")
	s.wantLive("form")

	if to := os.Getenv("DEPLOYHOOK_FORGE_RECORD"); to != "" {
		f.write(to)
	}
}

// write keeps the recorded deliveries in a file, without what is of this
// machine's moment only.
func (f *forge) write(path string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := json.MarshalIndent(f.recorded, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}
