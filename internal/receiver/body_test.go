package receiver_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

func TestOddBodies(t *testing.T) {
	x := start(t)
	const form = "application/x-www-form-urlencoded"
	encoded := func(b []byte) []byte { return []byte("payload=" + url.QueryEscape(string(b))) }
	for _, tt := range []struct {
		name, kind string
		body       []byte
		status     int
		want       string
	}{
		{"empty", "application/json", nil, 400, "the body is empty"},
		{"blank", "application/json", []byte(" \n"), 400, "the body is empty"},
		{"deep lists", "application/json", []byte(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)), 400, "levels deep"},
		{"deep objects", "application/json", []byte(strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)), 400, "levels deep"},
		{"deep and cut", "application/json", []byte(strings.Repeat("[", 100_000)), 400, "levels deep"},
		{"deep in a form", form, encoded([]byte(strings.Repeat("[", 100_000))), 400, "levels deep"},
		{"brackets in a string", "application/json", []byte(`{"zen":"` + strings.Repeat("[", 100_000) + `\"["}`), 200, "pong"},
		{"not UTF-8", "application/json", []byte("{\"a\":\"\xff\"}"), 400, "the body is not UTF-8"},
		{"not UTF-8 in a form", form, []byte("payload=%7B%22a%22%3A%22%ff%22%7D"), 400, "the body is not UTF-8"},
		{"array", "application/json", []byte("[]"), 400, "not an object"},
		{"null", "application/json", []byte("null"), 400, "not an object"},
		{"cut off", "application/json", []byte(`{"zen":`), 400, "the body is not JSON"},
		{"two objects", "application/json", []byte(`{} {}`), 400, "the body is not JSON"},
		{"form", form, encoded([]byte(`{"zen":"x"}`)), 200, "pong"},
		{"form with a charset", form + "; charset=utf-8", encoded([]byte(`{"zen":"a"}`)), 200, "pong"},
		{"empty form", form, nil, 400, "the body is empty"},
		{"form without payload", form, []byte("a=b"), 400, "the form has no payload"},
		{"JSON called a form", form, []byte(`{"zen":"x"}`), 400, "Content-Type: application/json missing"},
		{"form with an empty payload", form, []byte("payload="), 400, "the body is empty"},
		{"form with two payloads", form, []byte("payload=%7B%7D&payload=%7B%7D"), 400, "more than one payload"},
		{"form of nonsense", form, []byte("payload=%zz"), 400, "not encoded as forms are"},
		{"JSON with a charset", "application/json; charset=utf-8", []byte(`{"zen":"b"}`), 200, "pong"},
		{"JSON with half a charset", "Application/JSON; charset", []byte(`{"zen":"c"}`), 200, "pong"},
		{"JSON of a kind", "application/cloudevents+json", []byte(`{"zen":"d"}`), 200, "pong"},
		{"no content type", "", []byte(`{"zen":"e"}`), 200, "pong"},
		{"text", "text/plain", []byte(`{"zen":"f"}`), 415, "not text/plain"},
		{"files", "multipart/form-data; boundary=x", []byte("--x--"), 415, "not multipart/form-data"},
	} {
		r := x.send("/hooks/github", tt.body, "Content-Type", tt.kind, "X-GitHub-Event", "ping", "X-GitHub-Delivery", tt.name, "X-Hub-Signature-256", sign(tt.body))
		if r.status != tt.status || !strings.Contains(r.Message, tt.want) {
			t.Errorf("%s: %+v, want %d and %q", tt.name, r, tt.status, tt.want)
		}
	}
	for name, body := range map[string][]byte{"an array": []byte("[1]"), "a word": []byte(`"x"`)} {
		if r := x.send("/hooks/webhook?token="+token, body); r.status != 200 {
			t.Errorf("%s through a generic hook: %+v, want 200", name, r)
		}
	}
}

func TestFormIsAPushLikeAnyOther(t *testing.T) {
	x := start(t)
	raw := push(nil)
	body := []byte("payload=" + url.QueryEscape(string(raw)))
	r := x.send("/hooks/github", body, "Content-Type", "application/x-www-form-urlencoded", "X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Hub-Signature-256", sign(body))
	if r.status != 202 {
		t.Fatalf("got %+v", r)
	}
	if d, err := x.store.Delivery(t.Context(), r.Delivery); err != nil || !bytes.Equal(d.Body, raw) {
		t.Errorf("the body that is kept is not the form's JSON: %v", err)
	}
	// The signature covers the raw form: one over the JSON inside is Gitea's.
	if r := x.send("/hooks/github", body, "Content-Type", "application/x-www-form-urlencoded", "X-GitHub-Event", "push", "X-Hub-Signature-256", sign(raw)); r.status != 401 {
		t.Errorf("a signature over the JSON inside: %+v, want 401", r)
	}
}

func TestIdThatIsNoIdIsRefused(t *testing.T) {
	x := start(t)
	for name, id := range map[string]string{"long": strings.Repeat("x", 257), "not printable": "a\tb", "not ASCII": "ä"} {
		if r := x.github("push", id, push(nil)); r.status != 400 || !strings.Contains(r.Message, "id is over 256 bytes or not printable") {
			t.Errorf("%s: %+v, want 400", name, r)
		}
	}
	if r := x.github("", "1", push(nil)); r.status != 400 || !strings.Contains(r.Message, "header that names the event is missing") {
		t.Errorf("no event: %+v, want 400", r)
	}
}

func TestTooLargeIsSeenBeforeAndWhileReading(t *testing.T) {
	x := start(t)
	for _, length := range []int64{26 << 20, -1} { // -1: chunked
		req, err := http.NewRequest(http.MethodPost, x.URL+"/hooks/github", io.LimitReader(zeros{}, 26<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		if r := x.do(req); r.status != 413 || r.Message != "the body is over 25 MiB" {
			t.Errorf("length %d: %+v, want 413", length, r)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestLargePushIsTaken(t *testing.T) {
	x := start(t)
	const mib = 24 << 20
	body := push(func(p map[string]any) { p["pad"] = strings.Repeat("x", mib) })
	if r := x.github("push", "1", body); r.status != 202 {
		t.Errorf("got %+v", r)
	}
}

// half opens a request that says one length, sends less, and stays.
func (x *fixture) half(says, sends int) net.Conn {
	x.t.Helper()
	c, err := net.Dial("tcp", x.Listener.Addr().String())
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", says, strings.Repeat("x", sends)); err != nil {
		x.t.Fatal(err)
	}
	return c
}

// waitFor waits until something is so, at most 10 s.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func TestPromisedBodiesKeepNobodyOut(t *testing.T) {
	x := start(t)
	for range 20 {
		x.half(24<<20, 100)
	}
	waitFor(t, "the requests to be read", func() bool { return receiver.Held(x.rc) >= 20*100 })
	if r := x.github("push", "1", push(nil)); r.status != 202 {
		t.Errorf("beside twenty large bodies that do not come: %+v", r)
	}
}

func TestMemoryOfBodiesIsBoundedAndGivenBack(t *testing.T) {
	const most = 1 << 20
	x := start(t, most)
	stalled := x.half(700<<10, 600<<10)
	waitFor(t, "the stalled body", func() bool { return receiver.Held(x.rc) >= 600<<10 })
	body := push(func(p map[string]any) { p["pad"] = strings.Repeat("x", 400<<10) })
	for _, length := range []int64{int64(len(body)), -1} {
		req, err := http.NewRequest(http.MethodPost, x.URL+"/hooks/github", io.MultiReader(bytes.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		if r := x.do(req, "X-GitHub-Event", "push", "X-Hub-Signature-256", sign(body)); r.status != 503 || !strings.Contains(r.Message, "too many bodies") {
			t.Errorf("length %d, more than the memory: %+v, want 503", length, r)
		}
	}
	if r := x.github("push", "small", push(nil)); r.status != 202 {
		t.Errorf("a small one has room: %+v", r)
	}
	stalled.Close()
	waitFor(t, "the memory to be given back", func() bool { return receiver.Held(x.rc) == 0 })
	if r := x.github("push", "large", body); r.status != 202 {
		t.Errorf("with the memory free again: %+v", r)
	}
}

func TestBodyAloneHasAllTheRoomThereIs(t *testing.T) {
	const most = 1 << 20
	x := start(t, most)
	for i, size := range []int{most - 300_000, most, most + 100, 2 * most} {
		body := push(func(p map[string]any) { p["pad"] = "" })
		body = push(func(p map[string]any) { p["pad"] = strings.Repeat("x", size-len(body)) })
		for _, length := range []int64{int64(len(body)), -1} {
			req, err := http.NewRequest(http.MethodPost, x.URL+"/hooks/github", io.MultiReader(bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			r := x.do(req, "X-GitHub-Event", "push", "X-GitHub-Delivery", fmt.Sprint(i, length), "X-Hub-Signature-256", sign(body))
			if fits := len(body) <= most; fits != (r.status == 202 || r.status == 200) || !fits && r.status != 503 {
				t.Errorf("%d bytes of %d, length %d: %+v", len(body), most, length, r)
			}
			if length > most && !strings.Contains(r.Message, "server.limits.body_memory") {
				t.Errorf("%d bytes of %d: %q does not say which bound it is", len(body), most, r.Message)
			}
		}
	}
}

// listener gives one connection.
type listener struct{ conns chan net.Conn }

func (l listener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l listener) Close() error { return nil }

func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

func TestSlowBodyIsCutWithAnAnswer(t *testing.T) {
	for _, path := range []string{"/hooks/github", "/hooks/none"} {
		synctest.Test(t, func(t *testing.T) {
			cfg := &deploy.Config{Hooks: []deploy.Hook{{Name: "github", Provider: "github", Secrets: []deploy.Secret{{Environment: "X"}}}}}
			rc := receiver.New(receiver.Options{Config: func() *deploy.Config { return cfg }, Secret: config.Resolve, Store: fullStore{}, Log: slog.New(slog.DiscardHandler), BodyMemory: 1 << 20})
			near, far := net.Pipe()
			l := listener{make(chan net.Conn, 1)}
			l.conns <- far
			srv := &http.Server{Handler: rc}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(l) }()
			began := time.Now()
			wrote := make(chan struct{})
			go func() { // one byte a second, until nobody reads it
				defer close(wrote)
				_, err := fmt.Fprintf(near, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", path)
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for ; err == nil; _, err = io.WriteString(near, "x") {
					<-tick.C
				}
			}()
			res, err := http.ReadResponse(bufio.NewReader(near), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if path == "/hooks/github" && (res.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(b), "did not come within 30s")) {
				t.Errorf("%d %s, want 408", res.StatusCode, b)
			}
			// The connection ends too, also where the body is not wanted.
			if _, err := io.Copy(io.Discard, near); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
			if took := time.Since(began); took > receiver.BodyTime+10*time.Second {
				t.Errorf("%s: the connection was kept for %v", path, took)
			}
			near.Close()
			close(l.conns)
			_ = srv.Close()
			<-served
			<-wrote
		})
	}
}

func FuzzFormPayload(f *testing.F) {
	f.Add(string(push(nil)), []byte("payload=%7B%7D"))
	f.Add("a&b=c+d%", []byte("payload=%zz&x"))
	f.Add("", []byte("a=b&payload=1&payload=2"))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		const form = "application/x-www-form-urlencoded"
		for _, around := range []string{"payload=%s", "a=b&payload=%s", "payload=%s&c=payload"} {
			got, err := receiver.PayloadOf(form, fmt.Appendf(nil, around, url.QueryEscape(text)))
			if err != nil || string(got) != text {
				t.Errorf("%q comes out of its form as %q, %v", text, got, err)
			}
		}
		if got, err := receiver.PayloadOf(form, body); err == nil && len(got) > len(body) {
			t.Errorf("%q gives %q", body, got)
		}
	})
}
