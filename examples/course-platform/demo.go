package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait: with empty caches Go takes minutes to build.
const patience = 5 * time.Minute

//go:embed deploy.yaml
var config string

// scene is what the demo runs.
type scene struct {
	dir, hooks, app, stripe, told string
	env                           []string
	out                           io.Writer
	application                   *exec.Cmd
	held                          int
}

// demo plays what happens between a student, a payment service, deployhook and
// the application, with what goes wrong, and fails when anything is not as
// promised. It leaves nothing behind.
func demo(ctx context.Context, out io.Writer) error {
	began := time.Now()
	dir, err := os.MkdirTemp("", "courses-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := func() string {
		b := make([]byte, 24)
		_, _ = rand.Read(b) // never fails
		return "whsec_" + base64.StdEncoding.EncodeToString(b)
	}
	s := &scene{dir: dir, out: out, stripe: key(), told: key()}
	for _, address := range []*string{&s.hooks, &s.app} {
		if *address, err = free(); err != nil {
			return err
		}
	}
	s.env = append(os.Environ(), "STRIPE_WEBHOOK_SECRET="+s.stripe, "COURSES_TOLD_SECRET="+s.told, "COURSES_DB="+s.in("courses.db"))
	if err := s.prepare(ctx); err != nil {
		return err
	}
	daemon, err := s.start(ctx, s.in("bin/deployhook"), "msg=ready", "serve", "--config", s.in("deploy.yaml"))
	if err != nil {
		return err
	}
	defer end(daemon)
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer func() { end(s.application) }()
	for _, play := range []func(context.Context) error{s.paid, s.twice, s.forged, s.refunded, s.late, s.away} {
		if err := play(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nAll %d promises held, in %v; nothing is left running.\n", s.held, time.Since(began).Round(time.Second))
	return nil
}

func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *scene) in(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) say(text string) { fmt.Fprintf(s.out, "\n== %s\n", text) }

// promise notes something that must be true.
func (s *scene) promise(ok bool, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if !ok {
		return errors.New("not as promised: " + text)
	}
	s.held++
	fmt.Fprintln(s.out, "   ✓", text)
	return nil
}

// prepare builds both programs and puts deploy.yaml beside them, with this
// demo's places in it.
func (s *scene) prepare(ctx context.Context) error {
	s.say("Building deployhook and the application")
	if err := os.Mkdir(s.in("bin"), 0o755); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"deployhook": "deployhook/cmd/deployhook", "course-platform": "deployhook/examples/course-platform"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", s.in("bin/"+name), pkg)
		cmd.WaitDelay = 10 * time.Second
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", name, err, b)
		}
	}
	text := strings.NewReplacer("/var/lib/course-platform", s.dir, "127.0.0.1:8484", s.hooks, "127.0.0.1:8485", s.app).Replace(config)
	return os.WriteFile(s.in("deploy.yaml"), []byte(text), 0o644)
}

// start starts a program and waits until it says that it is ready.
func (s *scene) start(ctx context.Context, name, ready string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	said := make(chan error, 1)
	go func() {
		defer r.Close()
		var log bytes.Buffer
		for sc := bufio.NewScanner(r); sc.Scan(); {
			if log.Len() < 64<<10 {
				log.WriteString(sc.Text() + "\n")
			}
			if strings.Contains(sc.Text(), ready) {
				said <- nil
			}
		}
		select {
		case said <- fmt.Errorf("%s did not begin:\n%s", filepath.Base(name), log.Bytes()):
		default:
		}
	}()
	select {
	case err = <-said:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		end(cmd)
		return nil, err
	}
	return cmd, nil
}

// end ends a program, and waits for it.
func end(cmd *exec.Cmd) {
	if cmd == nil || cmd.Process == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	kill.Stop()
}

func (s *scene) begin(ctx context.Context) (err error) {
	s.application, err = s.start(ctx, s.in("bin/course-platform"), "listening on", "serve", "--listen", s.app)
	return err
}

// send sends an event as the payment service does.
func (s *scene) send(ctx context.Context, p payment, secret string, at time.Time) (int, string, error) {
	status, answer, err := p.send(ctx, "http://"+s.hooks+"/hooks/payments", secret, at)
	if err == nil {
		fmt.Fprintf(s.out, "   deployhook answers %d %s\n", status, answer)
	}
	return status, answer, err
}

// pay sends one that must start a run.
func (s *scene) pay(ctx context.Context, p payment) error {
	status, answer, err := s.send(ctx, p, s.stripe, time.Now())
	if err != nil {
		return err
	}
	return s.promise(status == http.StatusAccepted, "the event is taken: %d %s", status, answer)
}

// course asks the application about a student's course.
func (s *scene) course(ctx context.Context, student, course string) (enrollment, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.app+"/courses.json?student="+url.QueryEscape(student), nil)
	if err != nil {
		return enrollment{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return enrollment{}, err
	}
	defer res.Body.Close()
	var list []enrollment
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return enrollment{}, err
	}
	for _, e := range list {
		if e.ID == course {
			return e, nil
		}
	}
	return enrollment{}, fmt.Errorf("there is no course %s", course)
}

// until waits until the application says something of a course.
func (s *scene) until(ctx context.Context, student, course, what string, ok func(enrollment) bool) (e enrollment, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if e, err = s.course(ctx, student, course); err == nil && ok(e) {
			return e, s.promise(true, "%s (run %d)", what, e.Run)
		}
		select {
		case <-ctx.Done():
			return e, fmt.Errorf("not as promised: %s; it is %+v", what, e)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// runs gives all runs, newest first.
func (s *scene) runs(ctx context.Context) (list []struct {
	ID    int64  `json:"id"`
	State string `json:"state"`
}, err error) {
	b, err := exec.CommandContext(ctx, s.in("bin/deployhook"), "runs", "--json", "--config", s.in("deploy.yaml")).Output()
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	return list, err
}

// settled waits until no run is under way, and says how many there are.
func (s *scene) settled(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		list, err := s.runs(ctx)
		if err != nil {
			return 0, err
		}
		going := 0
		for _, r := range list {
			if r.State == "queued" || r.State == "waiting" || r.State == "running" {
				going++
			}
		}
		if going == 0 {
			return len(list), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func enabled(e enrollment) bool  { return e.State == "enabled" && e.Told == 1 }
func disabled(e enrollment) bool { return e.State == "disabled" && e.Told == 1 }

func (s *scene) paid(ctx context.Context) error {
	s.say("Ann buys go-101, and her payment is approved")
	res, err := http.PostForm("http://"+s.app+"/buy", url.Values{"student": {"ann"}, "course": {"go-101"}})
	if err != nil {
		return err
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return err
	}
	if err := s.promise(strings.Contains(string(b), "waits for the payment"), "the page says that the course waits for the payment"); err != nil {
		return err
	}
	if err := s.pay(ctx, newPayment("ann", "go-101", false, time.Now().Add(-time.Minute))); err != nil {
		return err
	}
	_, err = s.until(ctx, "ann", "go-101", "the pipeline has enabled the course, and the application was told", enabled)
	return err
}

func (s *scene) twice(ctx context.Context) error {
	s.say("Bob's payment is told of twice")
	p := newPayment("bob", "go-101", false, time.Now())
	if err := s.pay(ctx, p); err != nil {
		return err
	}
	if _, err := s.until(ctx, "bob", "go-101", "the course is enabled", enabled); err != nil {
		return err
	}
	before, err := s.settled(ctx)
	if err != nil {
		return err
	}
	status, _, err := s.send(ctx, p, s.stripe, time.Now())
	if err != nil {
		return err
	}
	after, err := s.settled(ctx)
	if err != nil {
		return err
	}
	if err := s.promise(status == http.StatusOK && before == after, "the second time it is known, and starts nothing: %d", status); err != nil {
		return err
	}
	other := payment{bytes.Replace(p.body, []byte(`"bob"`), []byte(`"eve"`), 1)}
	if status, _, err = s.send(ctx, other, s.stripe, time.Now()); err != nil {
		return err
	}
	return s.promise(status == http.StatusConflict, "the same id with another body is refused: %d", status)
}

func (s *scene) forged(ctx context.Context) error {
	s.say("Eve sends payments that nobody made")
	before, err := s.settled(ctx)
	if err != nil {
		return err
	}
	p := newPayment("eve", "go-101", false, time.Now())
	for _, try := range []struct {
		what, secret string
		at           time.Time
	}{
		{"signed with another secret", "whsec_" + rand.Text(), time.Now()},
		{"signed rightly, an hour ago", s.stripe, time.Now().Add(-time.Hour)},
		{"signed rightly, an hour from now", s.stripe, time.Now().Add(time.Hour)},
	} {
		status, _, err := s.send(ctx, p, try.secret, try.at)
		if err != nil {
			return err
		}
		if err := s.promise(status == http.StatusUnauthorized, "what is %s is refused: %d", try.what, status); err != nil {
			return err
		}
	}
	after, err := s.settled(ctx)
	if err != nil {
		return err
	}
	e, err := s.course(ctx, "eve", "go-101")
	if err != nil {
		return err
	}
	return s.promise(before == after && e.State == "", "no run began, and Eve has no course")
}

func (s *scene) refunded(ctx context.Context) error {
	s.say("Ann gets her money back")
	if err := s.pay(ctx, newPayment("ann", "go-101", true, time.Now())); err != nil {
		return err
	}
	_, err := s.until(ctx, "ann", "go-101", "the course is disabled, and the application was told", disabled)
	return err
}

func (s *scene) late(ctx context.Context) error {
	s.say("An event of before the refund comes after it")
	if err := s.pay(ctx, newPayment("ann", "go-101", false, time.Now().Add(-30*time.Second))); err != nil {
		return err
	}
	if _, err := s.settled(ctx); err != nil {
		return err
	}
	e, err := s.course(ctx, "ann", "go-101")
	if err != nil {
		return err
	}
	return s.promise(e.State == "disabled" && e.Changes == 2, "the course stays disabled: what is older than what is known changes nothing")
}

func (s *scene) away(ctx context.Context) error {
	s.say("The application is away while Cid pays")
	end(s.application)
	s.application = nil
	if err := s.pay(ctx, newPayment("cid", "sql-201", false, time.Now())); err != nil {
		return err
	}
	if _, err := s.settled(ctx); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	_, err := s.until(ctx, "cid", "sql-201", "the run waited for nobody, and the application is told once it is back", enabled)
	return err
}
