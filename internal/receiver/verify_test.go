package receiver_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

func TestOneAddressDoesNotLimitAnother(t *testing.T) {
	x := start(t)
	from := func(addr string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/hooks/github", strings.NewReader("{}"))
		r.RemoteAddr = addr
		r.Header.Set("X-Forwarded-For", "198.51.100.7") // anybody can write it
		x.rc.ServeHTTP(w, r)
		if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		return w.Code
	}
	last := 0
	for range 61 {
		last = from("192.0.2.1:1000")
	}
	if last != 429 {
		t.Errorf("the 61st wrong request: %d, want 429", last)
	}
	if got := from("192.0.2.2:1000"); got != 401 {
		t.Errorf("another address: %d, want 401", got)
	}
}

func TestStrangersFillNeitherLogNorTable(t *testing.T) {
	x := start(t)
	for range 500 {
		x.send("/hooks/none", nil)
	}
	if n := strings.Count(x.log.String(), "request refused"); n == 0 || n > 100 {
		t.Errorf("500 refused requests made %d log lines", n)
	}
}

func TestStrangersHideNothingFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		cfg := &deploy.Config{Hooks: []deploy.Hook{{Name: "github", Provider: "github", Secrets: []deploy.Secret{{Name: "github"}}}}}
		rc := receiver.New(receiver.Options{
			Config:     func() *deploy.Config { return cfg },
			Secret:     func(context.Context, deploy.Secret) (string, error) { return "another secret of sixteen", nil },
			Store:      fullStore{},
			Log:        slog.New(slog.NewTextHandler(&log, nil)),
			BodyMemory: 1 << 20,
		})
		post := func(path string) {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
			r.Header.Set("X-Hub-Signature-256", sign([]byte("{}")))
			rc.ServeHTTP(httptest.NewRecorder(), r)
		}
		post("/hooks/none")
		post("/hooks/none")
		post("/hooks/github")
		if strings.Count(log.String(), "status=404") != 1 || !strings.Contains(log.String(), "hook=github status=401") {
			t.Errorf("after two requests for no hook, a wrong signature is not in the log:\n%s", log.String())
		}
		time.Sleep(time.Second)
		post("/hooks/none")
		if !strings.Contains(log.String(), "unlogged=1") {
			t.Errorf("the request that was not logged is not counted:\n%s", log.String())
		}
	})
}

// A secret that cannot be read is said beside another answer of the same number.
func TestTooManyBodiesDoNotHideASecretThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		cfg := &deploy.Config{Hooks: []deploy.Hook{{Name: "github", Provider: "github", Secrets: []deploy.Secret{{Name: "github"}}}}}
		rc := receiver.New(receiver.Options{
			Config:     func() *deploy.Config { return cfg },
			Secret:     func(context.Context, deploy.Secret) (string, error) { return "", errors.New("/etc/x is not there") },
			Store:      fullStore{},
			Log:        slog.New(slog.NewTextHandler(&log, nil)),
			BodyMemory: 1 << 20,
		})
		post := func(body io.Reader) int {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "/hooks/github", body)
			r.Header.Set("X-Hub-Signature-256", sign(nil))
			rc.ServeHTTP(w, r)
			return w.Code
		}
		large := strings.Repeat("x", 900<<10)
		slow, rest := io.Pipe()
		ended := make(chan int)
		go func() { ended <- post(io.MultiReader(strings.NewReader(large), slow)) }()
		synctest.Wait() // it holds its room, and waits for the rest
		if status := post(strings.NewReader(large)); status != 503 || !strings.Contains(log.String(), "too many bodies") {
			t.Errorf("a second body: %d\n%s", status, log.String())
		}
		rest.Close()
		if status := <-ended; status != 503 || !strings.Contains(log.String(), "/etc/x is not there") {
			t.Errorf("a secret that cannot be read: %d\n%s", status, log.String())
		}
	})
}

// without makes a receiver of one hook whose secret is read by a function.
func without(t *testing.T, s deploy.Secret, read func(context.Context, deploy.Secret) (string, error)) func() *httptest.ResponseRecorder {
	t.Helper()
	cfg := &deploy.Config{Hooks: []deploy.Hook{{Name: "github", Provider: "github", Secrets: []deploy.Secret{s}}, {Name: "open", Provider: "github"}}}
	rc := receiver.New(receiver.Options{Config: func() *deploy.Config { return cfg }, Secret: read, Store: fullStore{}, Log: slog.New(slog.DiscardHandler), BodyMemory: 1 << 20})
	return func() *httptest.ResponseRecorder {
		body := push(nil)
		r := httptest.NewRequest(http.MethodPost, "/hooks/github", strings.NewReader(string(body)))
		r.Header.Set("X-GitHub-Event", "push")
		r.Header.Set("X-Hub-Signature-256", sign(body))
		w := httptest.NewRecorder()
		rc.ServeHTTP(w, r)
		return w
	}
}

func TestSecretThatCannotBeReadLetsNobodyIn(t *testing.T) {
	for name, read := range map[string]func(context.Context, deploy.Secret) (string, error){
		"error": func(context.Context, deploy.Secret) (string, error) { return "", errors.New("/etc/x is not there") },
		"empty": func(context.Context, deploy.Secret) (string, error) { return "", nil },
	} {
		w := without(t, deploy.Secret{Name: "github", File: "/etc/x"}, read)()
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "/etc/x") || !strings.Contains(w.Body.String(), "secret cannot be read") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestHookWithoutAnySecretLetsNobodyIn(t *testing.T) {
	cfg := &deploy.Config{Hooks: []deploy.Hook{{Name: "open", Provider: "github"}}}
	rc := receiver.New(receiver.Options{Config: func() *deploy.Config { return cfg }, Secret: config.Resolve, Store: fullStore{}, Log: slog.New(slog.DiscardHandler), BodyMemory: 1 << 20})
	w := httptest.NewRecorder()
	rc.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/hooks/open", strings.NewReader("{}")))
	if w.Code != 401 {
		t.Errorf("%d %s, want 401", w.Code, w.Body)
	}
}

func TestCommandOfASecretRunsOnceForManyRequests(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	send := without(t, deploy.Secret{Name: "github", Command: "echo x >> " + ran + `; echo "It's a Secret to Everybody"`}, config.Resolve)
	for range 20 {
		if w := send(); w.Code != 503 || !strings.Contains(w.Body.String(), "no space left") {
			t.Fatalf("the signature is not taken for right: %d %s", w.Code, w.Body)
		}
	}
	if b, err := os.ReadFile(ran); err != nil || string(b) != "x\n" {
		t.Errorf("the command ran %d times, %v", len(b)/2, err)
	}
}

func FuzzSignature(f *testing.F) {
	body := []byte("Hello, World!")
	f.Add("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", body)
	f.Add(sign(push(nil)), push(nil))
	f.Add("sha256=", body)
	f.Add("sha1=", []byte{})
	f.Add(sign(nil), []byte{})
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		h := http.Header{"X-Hub-Signature-256": {header}}
		if got, want := receiver.CheckGitHub(h, secret, body) == nil, header == sign(body); got != want {
			t.Errorf("signature %q over %q: taken %t, want %t", header, body, got, want)
		}
		h.Set("X-Hub-Signature-256", sign(body))
		if err := receiver.CheckGitHub(h, secret, body); err != nil {
			t.Errorf("the right signature over %q: %v", body, err)
		}
	})
}
