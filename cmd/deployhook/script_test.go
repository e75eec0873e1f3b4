package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait of a script.
const patience = 30 * time.Second

// webhookSecret is the secret of the hook github in every script.
const webhookSecret = "a-secret-for-the-scripts"

func TestMain(m *testing.M) {
	// The daemon starts its agents as /proc/self/exe agent, which is this
	// binary under another name.
	if len(os.Args) == 2 && os.Args[1] == "agent" {
		main()
	}
	testscript.Main(m, map[string]func(){"deployhook": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WEBHOOK_SECRET", webhookSecret)
			e.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				e.Setenv("GIT_"+who+"_NAME", "alice")
				e.Setenv("GIT_"+who+"_EMAIL", "alice@example.com")
			}
			e.Setenv("NO_COLOR", "")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": startDaemon, "stop": stopDaemon, "push": push, "post": post, "await": await, "json": jsonIs, "github": startGitHub, "meta": serveMeta,
		},
	})
}

// serving is the daemon of a script.
type serving struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startDaemon starts deployhook serve with the script's environment and the
// given arguments, and waits until it is ready. $HOOKS is its address.
func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	log, err := os.Create(ts.MkAbs("daemon.log"))
	ts.Check(err)
	cmd := exec.Command("deployhook", append([]string{"serve", "--server-listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "WEBHOOK_SECRET", "HOME", "TMPDIR", "DEPLOYHOOK_CONFIG"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, "USER=daemon")
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	s := &serving{cmd: cmd, done: make(chan struct{})}
	ready := make(chan string, 1)
	go func() {
		defer close(s.done)
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			fmt.Fprintln(log, sc.Text())
			if _, rest, ok := strings.Cut(sc.Text(), "msg=ready listen="); ok {
				ready <- strings.Fields(rest)[0]
			}
		}
		_ = cmd.Wait()
		log.Close()
	}()
	ts.Defer(func() { s.end() })
	servings.Store(ts, s)
	ts.Defer(func() { servings.Delete(ts) })
	select {
	case address := <-ready:
		ts.Setenv("HOOKS", address)
	case <-s.done:
		b, _ := os.ReadFile(log.Name())
		ts.Fatalf("the daemon ended before it was ready:\n%s", b)
	case <-time.After(patience):
		ts.Fatalf("the daemon was not ready within %v", patience)
	}
}

// servings has the last daemon of each script; scripts run side by side.
var servings sync.Map

func (s *serving) end() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// stopDaemon ends the script's daemon.
func stopDaemon(ts *testscript.TestScript, neg bool, args []string) {
	s, ok := servings.Load(ts)
	if !ok {
		ts.Fatalf("no daemon runs")
	}
	s.(*serving).end()
}

// push commits what is in a directory, pushes it to DIR.git with the branch
// main, and sends the webhook that GitHub would send. The answer is its output.
func push(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: push DIR MESSAGE")
	}
	dir := ts.MkAbs(args[0])
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=alice", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=alice", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			ts.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	before := strings.Repeat("0", 40)
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		git("init", "-q", "-b", "main")
		git("init", "-q", "--bare", "-b", "main", dir+".git")
	} else {
		before = git("rev-parse", "HEAD")
	}
	message := strings.NewReplacer(`\n`, "\n", `\e`, "\x1b").Replace(args[1])
	git("add", "-A")
	git("commit", "-q", "--allow-empty", "-m", message)
	git("push", "-q", dir+".git", "main")
	after := git("rev-parse", "HEAD")
	body, err := json.Marshal(map[string]any{
		"ref": "refs/heads/main", "before": before, "after": after,
		"repository":  map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
		"sender":      map[string]any{"login": "alice"},
		"head_commit": map[string]any{"id": after, "message": message},
		"commits":     []any{map[string]any{"id": after, "modified": []string{"app"}}},
	})
	ts.Check(err)
	ts.Setenv("COMMIT", after)
	send(ts, "github", "push", after, body)
}

// post sends a file to a hook as an event, signed.
func post(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: post HOOK EVENT FILE")
	}
	send(ts, args[0], args[1], "", []byte(ts.ReadFile(args[2])))
}

func send(ts *testscript.TestScript, hook, event, id string, body []byte) {
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	mac.Write(body)
	req, err := http.NewRequest(http.MethodPost, "http://"+ts.Getenv("HOOKS")+"/hooks/"+hook, bytes.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", event)
	if id != "" {
		req.Header.Set("X-GitHub-Delivery", id)
	}
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := (&http.Client{Timeout: patience}).Do(req)
	ts.Check(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d %s", res.StatusCode, answer)
}

// await runs a command until its output has a text, or until it succeeds when
// no text is given (await TEXT COMMAND…).
func await(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: await TEXT COMMAND…")
	}
	var last []byte
	for end := time.Now().Add(patience); time.Now().Before(end); {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		out, err := cmd.CombinedOutput()
		if err == nil && strings.Contains(string(out), args[0]) {
			return
		}
		last = out
		wait := time.NewTimer(20 * time.Millisecond)
		<-wait.C
	}
	ts.Fatalf("%q did not come within %v; the last output:\n%s", args[0], patience, last)
}

// jsonIs compares a value in a JSON file with a text: json FILE PATH WANT. A
// path is like jobs.0.state; the value is compared as JSON.
func jsonIs(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH WANT")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	for _, key := range strings.Split(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[key]
			if !ok {
				ts.Fatalf("%s: there is no %s in %s", args[0], key, args[1])
			}
			v = next
		case []any:
			i := 0
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(at) {
				ts.Fatalf("%s: there is no %s in %s", args[0], key, args[1])
			}
			v = at[i]
		default:
			ts.Fatalf("%s: %s of %s is in no object", args[0], key, args[1])
		}
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	if (string(got) == args[2]) == neg {
		ts.Fatalf("%s: %s is %s, want %s", args[0], args[1], got, args[2])
	}
}

// startGitHub serves GitHub's API of the webhooks of acme/shop to the token in
// $GITHUB_TOKEN, at $GITHUB_API_URL. What is written to it stands in
// github.log, with the secret.
func startGitHub(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv("GITHUB_TOKEN", "ghp_of-the-scripts-alone")
	var hooks []json.RawMessage
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		known := r.Header.Get("Authorization") == "Bearer ghp_of-the-scripts-alone" && strings.HasPrefix(r.URL.Path, "/repos/acme/shop/hooks")
		switch {
		case err != nil || !known:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"Not Found"}`)
			return
		case r.Method == http.MethodGet:
			_ = json.NewEncoder(w).Encode(append([]json.RawMessage{}, hooks...))
			return
		}
		log, err := os.OpenFile(ts.MkAbs("github.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintf(log, "%s %s %s\n", r.Method, r.URL.Path, body)
			err = log.Close()
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		hook := append([]byte(`{"id":7,`), body[1:]...)
		hooks = []json.RawMessage{hook}
		_, _ = w.Write(hook)
	}))
	ts.Defer(srv.Close)
	ts.Setenv("GITHUB_API_URL", srv.URL)
}
