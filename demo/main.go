// Command demo shows deployhook at work: a real repository, a real application,
// real pushes and signed webhooks, on loopback and in a temporary directory. It
// ends by itself and leaves nothing running.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait of the demo: with empty caches and other work on
// the machine, Go takes minutes for the tests.
const patience = 5 * time.Minute

// client asks the daemon and the application; a proxy is none of theirs.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	began := time.Now()
	d := &demo{}
	err := d.run(ctx)
	interrupted := ctx.Err() != nil
	d.cleanUp()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; nothing is left running")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nAll %d promises held, in %v; nothing is left running, and %s is removed.\n", d.held, time.Since(began).Round(time.Second), d.dir)
	fmt.Println("With your own repository: docs/vps.md")
}

// demo is what runs and must be ended.
type demo struct {
	dir, binary string
	env         []string
	hooks       string // address
	secret      string
	daemon      *exec.Cmd
	keeper      *keeper
	held        int
}

func (d *demo) run(ctx context.Context) error {
	for _, tool := range []string{"go", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is needed and was not found", tool)
		}
	}
	var err error
	if d.dir, err = directory(); err != nil {
		return err
	}
	d.env = environment(os.Environ())
	say("Building deployhook")
	d.binary = filepath.Join(d.dir, "deployhook")
	if err := d.command(ctx, "go", "build", "-buildvcs=false", "-o", d.binary, "./cmd/deployhook"); err != nil {
		return err
	}
	if err := d.prepare(ctx); err != nil {
		return err
	}
	say("Starting the daemon")
	if err := d.serve(ctx); err != nil {
		return err
	}
	for _, scene := range []func(context.Context) error{d.firstPush, d.secondPush, d.failingTest, d.rollback} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

// promise notes something that must be true.
func (d *demo) promise(ok bool, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if !ok {
		return errors.New("not as promised: " + text)
	}
	d.held++
	fmt.Println("   ✓", text)
	return nil
}

// application is what is deployed: it answers with its text on the socket that
// it is given, and asks the keeper for its own restart.
const application = `package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "restart" {
		res, err := http.Post("http://"+os.Args[2]+"/restart", "text/plain", nil)
		if err != nil || res.StatusCode != http.StatusOK {
			fmt.Println("the application did not come up", err)
			os.Exit(1)
		}
		return
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, Greeting()) }))
	}
	fmt.Println(err)
	os.Exit(1)
}
`

const applicationTest = `package main

import (
	"strings"
	"testing"
)

func TestGreeting(t *testing.T) {
	if !strings.HasPrefix(Greeting(), "Hello") {
		t.Errorf("Greeting() = %q, want it to greet", Greeting())
	}
}
`

func greeting(text string) string {
	return fmt.Sprintf("package main\n\nfunc Greeting() string { return %q }\n", text)
}

// prepare makes the repository, the config and the keeper.
func (d *demo) prepare(ctx context.Context) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	d.secret = hex.EncodeToString(key)
	say("Making a bare repository and a small application")
	if err := d.git(ctx, "init", "-q", "--bare", "-b", "main", filepath.Join(d.dir, "shop.git")); err != nil {
		return err
	}
	if err := d.git(ctx, "init", "-q", "-b", "main", d.work()); err != nil {
		return err
	}
	for name, text := range map[string]string{"go.mod": "module shop\n\ngo 1.21\n", "main.go": application, "main_test.go": applicationTest} {
		if err := os.WriteFile(filepath.Join(d.work(), name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	var err error
	if d.keeper, err = newKeeper(filepath.Join(d.dir, "srv", "current", "shop")); err != nil {
		return err
	}
	config := fmt.Sprintf(`server: { listen: "127.0.0.1:0", data: %q, socket: %q }

hooks:
  github: { provider: github, secret: { environment: DEMO_WEBHOOK_SECRET } }

pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: %q
    on:
      push: { branches: [main] }
    jobs:
      test:
        steps:
          - run: go vet ./... && go test ./...
      deploy:
        release: %q
        steps:
          - run: go build -v -o shop .
        restart: ./shop restart %s
`, d.in("data"), d.in("control.sock"), d.in("shop.git"), d.in("srv"), d.keeper.address)
	fmt.Println(indent(config))
	return os.WriteFile(d.config(), []byte(config), 0o644)
}

func (d *demo) in(name string) string { return filepath.Join(d.dir, name) }
func (d *demo) work() string          { return d.in("work") }
func (d *demo) config() string        { return d.in("deploy.yaml") }

func indent(s string) string {
	return "   | " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n   | ")
}

func (d *demo) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = d.env
	// Killed, Go would leave its temporary files behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *demo) git(ctx context.Context, args ...string) error {
	return d.command(ctx, "git", append([]string{"-c", "user.name=demo", "-c", "user.email=demo@example.com"}, args...)...)
}

// serve starts the daemon and waits until it says that it is ready, and where
// it listens.
func (d *demo) serve(ctx context.Context) error {
	d.daemon = exec.Command(d.binary, "serve", "--config", d.config())
	d.daemon.Env = append(d.env, "DEMO_WEBHOOK_SECRET="+d.secret)
	// A ctrl-C is for the demo, which then ends the daemon; so does its death.
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stderr, err := d.daemon.StderrPipe()
	if err != nil {
		return err
	}
	if err := start(d.daemon); err != nil {
		return err
	}
	ready := make(chan string, 1)
	go func() {
		defer close(ready)
		var log strings.Builder
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			fmt.Fprintln(&log, sc.Text())
			if _, rest, ok := strings.Cut(sc.Text(), "msg=ready listen="); ok {
				ready <- strings.Fields(rest)[0]
				log.Reset()
			}
		}
		if log.Len() > 0 {
			select {
			case ready <- log.String(): // it ended, and said why
			default:
			}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case d.hooks = <-ready:
	case <-ctx.Done():
		return fmt.Errorf("the daemon did not become ready: %w", ctx.Err())
	}
	if _, _, err := net.SplitHostPort(d.hooks); err != nil {
		return fmt.Errorf("the daemon did not become ready:\n%s", d.hooks)
	}
	fmt.Println("   it listens on", d.hooks)
	return nil
}

// until waits for something, within the demo's patience.
func until(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

type receipt struct {
	Delivery int64   `json:"delivery"`
	Runs     []int64 `json:"runs"`
	Message  string  `json:"message"`
}

// push commits a greeting, pushes it, and sends the webhook that GitHub would.
func (d *demo) push(ctx context.Context, text string) (commit string, run string, err error) {
	before, _ := d.head(ctx)
	if err := os.WriteFile(filepath.Join(d.work(), "greeting.go"), []byte(greeting(text)), 0o644); err != nil {
		return "", "", err
	}
	for _, args := range [][]string{
		{"-C", d.work(), "add", "-A"},
		{"-C", d.work(), "commit", "-q", "-m", "say " + text},
		{"-C", d.work(), "push", "-q", filepath.Join(d.dir, "shop.git"), "main"},
	} {
		if err := d.git(ctx, args...); err != nil {
			return "", "", err
		}
	}
	if commit, err = d.head(ctx); err != nil {
		return "", "", err
	}
	if before == "" {
		before = strings.Repeat("0", 40)
	}
	body, err := json.Marshal(map[string]any{
		"ref": "refs/heads/main", "before": before, "after": commit,
		"repository":  map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
		"sender":      map[string]any{"login": "demo"},
		"head_commit": map[string]any{"id": commit, "message": "say " + text},
		"commits":     []any{map[string]any{"id": commit, "modified": []string{"greeting.go"}}},
	})
	if err != nil {
		return "", "", err
	}
	mac := hmac.New(sha256.New, []byte(d.secret))
	mac.Write(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.hooks+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", commit)
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	began := time.Now()
	res, err := client.Do(req)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	var r receipt
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		return "", "", err
	}
	fmt.Printf("   %d after %v: %s\n", res.StatusCode, time.Since(began).Round(100*time.Microsecond), r.Message)
	if res.StatusCode != http.StatusAccepted || len(r.Runs) != 1 {
		return "", "", fmt.Errorf("the push was answered %d with runs %v", res.StatusCode, r.Runs)
	}
	return commit, fmt.Sprint(r.Runs[0]), nil
}

func (d *demo) head(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "-C", d.work(), "rev-parse", "--verify", "-q", "HEAD")
	cmd.Env = d.env
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// deployhook runs a command of deployhook and shows what it prints.
func (d *demo) deployhook(ctx context.Context, args ...string) error {
	fmt.Printf("   $ deployhook %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.binary, append(args, "--config", d.config())...)
	cmd.Env = d.env
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			fmt.Println("   |", sc.Text())
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	err := cmd.Run()
	w.Close()
	<-done
	return err
}

// follow shows a run's log as it grows, and gives the run's state at its end.
func (d *demo) follow(ctx context.Context, run string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.deployhook(ctx, "logs", run, "--follow"); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("run %s did not end within %v", run, patience)
		}
		return "", err
	}
	cmd := exec.CommandContext(ctx, d.binary, "run", run, "--json", "--config", d.config())
	cmd.Env = d.env
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	var r struct {
		State string `json:"state"`
	}
	return r.State, json.Unmarshal(out, &r)
}

// answer is what the application says now.
func (d *demo) answer() string {
	res, err := client.Get("http://" + d.keeper.app.Addr().String())
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
	return strings.TrimSpace(string(b))
}

// deployed pushes a greeting that must go live.
func (d *demo) deployed(ctx context.Context, text string) error {
	commit, run, err := d.push(ctx, text)
	if err != nil {
		return err
	}
	state, err := d.follow(ctx, run)
	if err != nil {
		return err
	}
	if err := d.promise(state == "succeeded", "run %s succeeded: first its test job, then its deploy job", run); err != nil {
		return err
	}
	target, err := os.Readlink(filepath.Join(d.dir, "srv", "current"))
	if err != nil {
		return err
	}
	if err := d.promise(strings.HasSuffix(target, commit[:7]), "current points to %s, the pushed commit", target); err != nil {
		return err
	}
	got := d.answer()
	return d.promise(got == text, "the application answers %q", got)
}

func (d *demo) firstPush(ctx context.Context) error {
	say("A push to main: the signed webhook arrives as GitHub sends it")
	return d.deployed(ctx, "Hello from the first commit")
}

func (d *demo) secondPush(ctx context.Context) error {
	say("A second push")
	return d.deployed(ctx, "Hello from the second commit")
}

func (d *demo) failingTest(ctx context.Context) error {
	say("A push whose test fails")
	_, run, err := d.push(ctx, "Goodbye")
	if err != nil {
		return err
	}
	state, err := d.follow(ctx, run)
	if err != nil {
		return err
	}
	if err := d.promise(state == "failed", "run %s failed", run); err != nil {
		return err
	}
	if err := d.deployhook(ctx, "run", run); err != nil {
		return err
	}
	got := d.answer()
	return d.promise(got == "Hello from the second commit", "it was not deployed: the application still answers %q", got)
}

func (d *demo) rollback(ctx context.Context) error {
	say("A rollback")
	if err := d.deployhook(ctx, "rollback", "shop", "--wait"); err != nil {
		return err
	}
	if err := d.deployhook(ctx, "releases", "shop"); err != nil {
		return err
	}
	got := d.answer()
	if err := d.promise(got == "Hello from the first commit", "the application answers %q again", got); err != nil {
		return err
	}
	return d.deployhook(ctx, "runs")
}

// cleanUp ends what was started and removes the directory.
func (d *demo) cleanUp() {
	if d.daemon != nil && d.daemon.Process != nil {
		_ = d.daemon.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = d.daemon.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(40 * time.Second):
			_ = d.daemon.Process.Kill()
			<-done
		}
	}
	if d.keeper != nil {
		d.keeper.close()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}
