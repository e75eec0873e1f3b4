package host_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// liar is an agent that a step has taken over: it says what the test wants.
func liar() {
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	what := os.Args[2]
	switch what {
	case "other protocol":
		fmt.Fprint(conn, "Welcome\ndeployhook-agent 99 1.3 abc\n")
	case "noise":
		for {
			if _, err := fmt.Fprintln(conn, strings.Repeat("noise", 100)); err != nil {
				os.Exit(0)
			}
		}
	case "silence":
	default:
		fmt.Fprint(conn, strings.Repeat("Welcome to \x1b[31mDebian\r\n", 100))
		_ = wire.Hello(conn, "1.2", strings.Repeat("0", 32))
	}
	gone := make(chan struct{})
	l := &oneConn{make(chan net.Conn, 1), gone}
	l.conn <- conn
	srv := &http.Server{Protocols: wire.Protocols(), HTTP2: wire.HTTP2(false), Handler: lies(what), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(gone)
		}
	}}
	if what == "silence" || what == "other protocol" {
		_, _ = io.Copy(io.Discard, conn)
		os.Exit(0)
	}
	_ = srv.Serve(l)
}

type oneConn struct {
	conn chan net.Conn
	gone chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.gone:
		return nil, io.EOF
	}
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

const goodID = "20260401T101500Z-3f2c1ab"

// lies are the answers of a liar.
func lies(what string) http.Handler {
	texts := map[string]string{
		"bad release":     `{"intent":null,"foreign":"","current":"","lines":[{"release":"../../etc","state":"live"}]}`,
		"bad commit":      `{"intent":null,"foreign":"","current":"","lines":[{"release":"` + goodID + `","state":"live","commit":"--upload-pack=x"}]}`,
		"bad state":       `{"intent":null,"foreign":"","current":"","lines":[{"release":"` + goodID + `","state":"wonderful"}]}`,
		"many lines":      `{"intent":null,"foreign":"","current":"","lines":[` + strings.TrimSuffix(strings.Repeat(`{"release":"`+goodID+`","state":"live"},`, 1001), ",") + `]}`,
		"long current":    `{"intent":null,"foreign":"","current":"` + strings.Repeat("x", 5000) + `","lines":[]}`,
		"unknown key":     `{"intent":null,"foreign":"","current":"","lines":[],"more":1}`,
		"two answers":     `{"intent":null,"foreign":"","current":"","lines":[]} {}`,
		"not JSON":        "<html>",
		"5 MiB":           `{"foreign":"` + strings.Repeat("x", 5<<20) + `"}`,
		"bad from":        `{"from":"releases/../../etc"}`,
		"bad removed":     `{"removed":["../x"],"warning":""}`,
		"few bits":        `{"bits":"AA=="}`,
		"many bits":       `{"bits":"AAAA"}`,
		"bad workspace":   `{"dir":"relative"}`,
		"workspace lines": `{"dir":"/x\n/y"}`,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result := func(text string) { _ = wire.WriteFrame(w, wire.FrameResult, []byte(text)) }
		if r.URL.Path == wire.RouteCancel || r.URL.Path == wire.RouteBury || r.URL.Path == wire.RouteAlone {
			_, _ = io.WriteString(w, "{}")
			return
		}
		if strings.HasSuffix(what, "bits") {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		switch what {
		case "redirect":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "status":
			w.WriteHeader(http.StatusTeapot)
		case "headers":
			w.Header().Set("X-Big", strings.Repeat("x", 1<<20))
		case "error":
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"error":"first\n\u001b[2Jsecond`+strings.Repeat("x", 100_000)+`"}`)
		case "exit code":
			result(`{"exit_code":4000}`)
		case "signal":
			result(`{"signal":"\u001b[2J"}`)
		case "nothing":
			result(`{}`)
		case "left over":
			result(`{"exit_code":0,"left_over":["` + strings.Repeat(`a\nb","`, 10_000) + `c"]}`)
		case "long error":
			result(`{"exit_code":1,"error":"` + strings.Repeat(`x\n`, 100_000) + `"}`)
		case "frame":
			_, _ = w.Write([]byte{9, 0, 0, 0, 1, 'x'})
		case "big frame":
			_, _ = w.Write([]byte{1, 0xff, 0xff, 0xff, 0xff})
		case "tree":
			<-r.Context().Done()
		case "no end", "early answer":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, texts[what])
		}
	})
}

func lying(t *testing.T, what string) (*host.Conn, error) {
	t.Helper()
	h := host.New(host.Options{Command: []string{"/proc/self/exe", "liar", what}, State: t.TempDir(), Version: "1.2", Log: quiet()})
	t.Cleanup(h.Close)
	c, err := h.Open(t.Context(), nil, deploy.TestAgent)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestAgentThatIsNoneIsRefused(t *testing.T) {
	_, err := lying(t, "other protocol")
	if !errors.Is(err, host.ErrProtocol) || err.Error() != "restart deployhook: agent 1.3, daemon 1.2" {
		t.Errorf("an agent of another protocol: %v", err)
	}
	if _, err := lying(t, "noise"); err == nil || !strings.Contains(err.Error(), "64 KiB") {
		t.Errorf("a login that does not end: %v", err)
	}
}

func TestAgentThatSaysNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	if _, err := lying(t, "silence"); err == nil || !strings.Contains(err.Error(), "starting an agent: no agent answered") {
		t.Errorf("got %v", err)
	}
}

func TestNothingThatAnAgentSaysIsBelievedBlindly(t *testing.T) {
	for what, want := range map[string]string{
		"bad release": "the agent tells of a release that is none", "bad commit": "the agent tells of a release that is none",
		"bad state": "the agent tells of a release that is none", "many lines": "the agent tells of 1001 changes",
		"long current": "the agent names a current release that is none", "unknown key": "the agent's answer is not what was asked for",
		"two answers": "the agent's answer is not what was asked for", "not JSON": "the agent's answer is not what was asked for",
		"5 MiB": "the agent's answer is not what was asked for", "redirect": "the agent answered Found",
		"status": "the agent answered I'm a teapot", "headers": "the agent ended during the job", "error": "first??[2Jsecond",
	} {
		c, err := lying(t, what)
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.Look(t.Context(), "/srv/shop")
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 5000 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %+v, %.200v; want %q", what, f, err, want)
		}
	}
	for what, call := range map[string]func(c *host.Conn) error{
		"bad from":        func(c *host.Conn) error { _, err := c.Undo(t.Context()); return err },
		"bad removed":     func(c *host.Conn) error { _, err := c.Prune(t.Context(), 1, 1); return err },
		"bad workspace":   func(c *host.Conn) error { _, err := c.OpenWorkspace(t.Context(), "x"); return err },
		"workspace lines": func(c *host.Conn) error { _, err := c.OpenWorkspace(t.Context(), "x"); return err },
	} {
		c, err := lying(t, what)
		if err != nil {
			t.Fatal(err)
		}
		if err := call(c); err == nil || !strings.HasPrefix(err.Error(), "the agent names a ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestForgedResultsAreNoSuccess(t *testing.T) {
	for what, want := range map[string]string{
		"exit code": "its result of the step is not one", "signal": "its result of the step is not one",
		"frame": "the agent ended during the job", "big frame": "the agent ended during the job",
	} {
		c, err := lying(t, what)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Step(t.Context(), host.Step{ID: "1", Command: "true", Dir: "/"}, func(uint8, []byte) {})
		if !errors.Is(err, host.ErrGone) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", what, res, err, want)
		}
	}
	for what, ok := range map[string]func(host.StepResult) bool{
		"nothing":    func(r host.StepResult) bool { return r.ExitCode == nil && r.Error == "" && r.Signal == "" },
		"left over":  func(r host.StepResult) bool { return len(r.LeftOver) == wire.LeftOverMost && r.LeftOver[0] == "a?b" },
		"long error": func(r host.StepResult) bool { return len(r.Error) <= 4096 && !strings.Contains(r.Error, "\n") },
	} {
		c, err := lying(t, what)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Step(t.Context(), host.Step{ID: "1", Command: "true", Dir: "/"}, func(uint8, []byte) {})
		if err != nil || !ok(res) {
			t.Errorf("%s: %+v, %v", what, res, err)
		}
	}
}

func TestAgentThatDoesNotEndAStepInTimeIsEnded(t *testing.T) {
	t.Parallel()
	c, err := lying(t, "no end")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = c.Step(t.Context(), host.Step{ID: "1", Command: "true", Dir: "/", Timeout: time.Second}, func(uint8, []byte) {})
	if !errors.Is(err, host.ErrGone) {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

func TestAgentThatTakesNoTreeIsGivenUp(t *testing.T) {
	t.Parallel()
	c, err := lying(t, "tree")
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 8<<20)
	err = c.Put(t.Context(), tree("a", "file", big))
	if err == nil || err.Error() != "the agent stopped taking the files of the commit" {
		t.Errorf("got %v", err)
	}
}

func TestTreeThatWasNotTakenIsNotThere(t *testing.T) {
	c, err := lying(t, "early answer")
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 8<<20)
	if err := c.Put(t.Context(), tree("a", "file", big)); err == nil || !strings.Contains(err.Error(), "before it had all files") {
		t.Errorf("got %v", err)
	}
}

func TestAgentThatCannotStartSaysWhyItself(t *testing.T) {
	h := host.New(host.Options{State: "/dev/null/x", Log: quiet()})
	defer h.Close()
	if _, err := h.Open(t.Context(), nil, deploy.TestAgent); err == nil || !strings.Contains(err.Error(), "starting an agent: deployhook agent: making a directory to work in: ") {
		t.Errorf("got %v", err)
	}
}
