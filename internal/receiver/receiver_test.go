package receiver_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
	"deployhook/internal/store"
)

const (
	secret = "It's a Secret to Everybody"
	token  = "t0ken-0123456789abcdef"
	file   = `
hooks:
  github: { provider: github, secret: { environment: TEST_SECRET } }
  both: { provider: github, secret: { environment: TEST_SECRET }, token: { environment: TEST_TOKEN } }
  webhook: { provider: generic, token: { environment: TEST_TOKEN } }
pipelines:
  shop:
    repository: github.com/Codertocat/Hello-World
    hook: github
    on: { push: { branches: [main], tags: ["v*"], paths: ["src/**", "*.go"] } }
    jobs: { test: { steps: [ { run: "true" } ] } }
  pay:
    on: { hook: { name: webhook, if: 'payload.type == "payment.approved"' } }
    jobs: { enable: { steps: [ { run: "true" } ] } }
`
)

type fixture struct {
	*httptest.Server
	t     testing.TB
	cfg   atomic.Pointer[deploy.Config]
	store *store.Store
	rc    *receiver.Receiver
	log   *bytes.Buffer // written before each answer
	dir   string        // of the database
}

// start serves the config above from the real store. With the memory for
// bodies given, it is that many bytes.
func start(t testing.TB, memory ...int64) *fixture {
	t.Helper()
	t.Setenv("TEST_SECRET", secret)
	t.Setenv("TEST_TOKEN", token)
	x := &fixture{t: t, log: &bytes.Buffer{}, dir: t.TempDir()}
	x.use(file)
	log := slog.New(slog.NewTextHandler(x.log, nil))
	var err error
	if x.store, err = store.Open(t.Context(), x.dir, log); err != nil {
		t.Fatal(err)
	}
	x.rc = receiver.New(receiver.Options{
		Config: x.cfg.Load, Secret: config.Resolve, Store: x.store, Log: log, BodyMemory: append(memory, 64<<20)[0],
	})
	x.Server = httptest.NewServer(x.rc)
	t.Cleanup(func() {
		x.Server.Close()
		if err := x.store.Close(); err != nil {
			t.Error(err)
		}
		for _, word := range []string{secret, token, "Codertocat", "evil.example"} {
			if strings.Contains(x.log.String(), word) {
				t.Errorf("the log tells a secret or a body, %q:\n%s", word, x.log)
			}
		}
	})
	return x
}

func sign(body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

type reply struct {
	status   int
	retry    string  // Retry-After
	Delivery int64   `json:"delivery"`
	Runs     []int64 `json:"runs"`
	Message  string  `json:"message"`
}

// use puts another config in force.
func (x *fixture) use(text string) {
	x.t.Helper()
	f, err := config.Parse("deploy.yaml", []byte(text))
	if err != nil {
		x.t.Fatal(err)
	}
	x.cfg.Store(f.Deploy)
}

// send posts a body; header pairs come over those of a GitHub delivery.
func (x *fixture) send(path string, body []byte, header ...string) reply {
	x.t.Helper()
	req, err := http.NewRequest(http.MethodPost, x.URL+path, bytes.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	return x.do(req, header...)
}

func (x *fixture) do(req *http.Request, header ...string) reply {
	x.t.Helper()
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer res.Body.Close()
	r := reply{status: res.StatusCode, retry: res.Header.Get("Retry-After")}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil || r.Message == "" || bytes.Count(b, []byte("\n")) != 1 {
		x.t.Errorf("the answer is %q (%v): one line of JSON with a message is wanted", b, err)
	}
	if strings.Contains(string(b), secret) || strings.Contains(string(b), token) {
		x.t.Errorf("the answer tells a secret: %s", b)
	}
	return r
}

// github sends a signed delivery.
func (x *fixture) github(event, id string, body []byte) reply {
	x.t.Helper()
	return x.send("/hooks/github", body, "X-GitHub-Event", event, "X-GitHub-Delivery", id, "X-Hub-Signature-256", sign(body))
}

// push is a push as GitHub sends it; change may alter it.
func push(change func(map[string]any)) []byte {
	head := strings.Repeat("a", 40)
	p := map[string]any{
		"ref": "refs/heads/main", "before": strings.Repeat("b", 40), "after": head,
		"created": false, "deleted": false, "forced": false,
		"repository":  map[string]any{"full_name": "Codertocat/Hello-World", "html_url": "https://github.com/Codertocat/Hello-World", "clone_url": "https://evil.example/x.git"},
		"sender":      map[string]any{"login": "Codertocat"},
		"head_commit": map[string]any{"id": head, "message": "change"},
		"commits":     []any{map[string]any{"id": head, "added": []any{"src/a.go"}, "modified": []any{}, "removed": []any{}}},
	}
	if change != nil {
		change(p)
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return b
}

func TestSignatureOfGitHubsOwnExample(t *testing.T) {
	x := start(t)
	const want = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	if got := sign([]byte("Hello, World!")); got != want {
		t.Fatalf("the test's own signature is %s", got)
	}
	r := x.send("/hooks/github", []byte("Hello, World!"), "X-Hub-Signature-256", want, "X-GitHub-Event", "ping")
	if r.status != http.StatusBadRequest || r.Message != "the body is not JSON" {
		t.Errorf("a right signature over what is no JSON: %+v", r)
	}
}

func TestNobodyStartsAnythingWithoutTheSecret(t *testing.T) {
	x := start(t)
	body := push(nil)
	good := sign(body)
	for name, header := range map[string][]string{
		"missing":         {},
		"empty":           {"X-Hub-Signature-256", "sha256="},
		"truncated":       {"X-Hub-Signature-256", good[:len(good)-1]},
		"too short":       {"X-Hub-Signature-256", "sha"},
		"of another body": {"X-Hub-Signature-256", sign([]byte("{}"))},
		"SHA-1 only":      {"X-Hub-Signature", "sha1=" + strings.Repeat("a", 40)},
		"upper case":      {"X-Hub-Signature-256", "sha256=" + strings.ToUpper(good[7:])},
		"no prefix":       {"X-Hub-Signature-256", good[7:]},
		"a token instead": {"X-Deployhook-Token", token},
	} {
		for _, event := range []string{"push", "ping", "no_such_event", ""} {
			if r := x.send("/hooks/github", body, append(header, "X-GitHub-Event", event)...); r.status != 401 {
				t.Errorf("signature %s, event %q: %+v, want 401", name, event, r)
			}
		}
	}
	if r := x.send("/hooks/both", body, "X-Hub-Signature-256", good); r.status != 401 {
		t.Errorf("only the signature where both are wanted: %+v", r)
	}
	if r := x.send("/hooks/both?token="+token, body, "X-GitHub-Event", "push"); r.status != 401 {
		t.Errorf("only the token where both are wanted: %+v", r)
	}
	if r := x.send("/hooks/both?token="+token, body, "X-Hub-Signature-256", good, "X-GitHub-Event", "ping"); r.status != 200 {
		t.Errorf("both: %+v", r)
	}
	if list, err := x.store.Runs(t.Context(), deploy.RunFilter{}); len(list) != 0 || err != nil {
		t.Errorf("there are %d runs, %v", len(list), err)
	}
}

func TestTokenInExactlyOnePlace(t *testing.T) {
	x := start(t)
	body := []byte(`{"type":"payment.approved"}`)
	for _, tt := range []struct {
		query  string
		header []string
		want   int
	}{
		{"?token=" + token, nil, 202},
		{"?secret=" + token, nil, 202},
		{"", []string{"Authorization", "Bearer " + token}, 202},
		{"", []string{"X-Deployhook-Token", token}, 202},
		{"", nil, 401},
		{"?token=", nil, 401},
		{"?token=wrong", nil, 401},
		{"?token=" + token + "&token=" + token, nil, 401},
		{"?token=" + token + "&secret=" + token, nil, 401},
		{"?token=" + token, []string{"Authorization", "Bearer " + token}, 401},
		{"", []string{"Authorization", "Basic " + token}, 401},
		{"?token=" + token, []string{"X-Deployhook-Token", ""}, 202},
		{"?token=" + token, []string{"X-Deployhook-Token", token}, 401},
		{"?token=" + token + "x", nil, 401},
		{"?token=" + token[1:], nil, 401},
		{"", []string{"X-Gitlab-Token", token}, 401},
	} {
		if r := x.send("/hooks/webhook"+tt.query, body, tt.header...); r.status != tt.want {
			t.Errorf("%q %q: %+v, want %d", tt.query, tt.header, r, tt.want)
		}
	}
	// A mistyped address has the token in its path.
	if r := x.send("/hooks/webhook&token="+token, body); r.status != 404 {
		t.Errorf("& for ?: %+v", r)
	}
	if strings.Contains(x.log.String(), token) || strings.Contains(x.log.String(), "/hooks/webhook?") {
		t.Errorf("the log tells the query:\n%s", x.log)
	}
}

func TestChecksComeInTheirOrder(t *testing.T) {
	x := start(t)
	for _, tt := range []struct {
		name, method, path string
		body               []byte
		header             []string
		want               int
	}{
		{"unknown hook", "GET", "/hooks/none", nil, nil, 404},
		{"no hook", "POST", "/hooks/", nil, nil, 404},
		{"deeper path", "POST", "/hooks/github/x", nil, nil, 404},
		{"other path", "POST", "/github", nil, nil, 404},
		{"too large for no hook", "POST", "/hooks/none", make([]byte, 26<<20), nil, 404},
		{"GET", "GET", "/hooks/github", nil, nil, 405},
		{"too large", "POST", "/hooks/github", make([]byte, 26<<20), nil, 413},
		{"empty and unsigned", "POST", "/hooks/github", nil, nil, 401},
		{"unsigned", "POST", "/hooks/github", []byte("{"), []string{"Content-Type", "text/plain"}, 401},
		{"content type", "POST", "/hooks/github", []byte("{"), []string{"Content-Type", "text/plain", "X-Hub-Signature-256", sign([]byte("{"))}, 415},
		{"JSON", "POST", "/hooks/github", []byte("{"), []string{"X-Hub-Signature-256", sign([]byte("{"))}, 400},
	} {
		req, err := http.NewRequest(tt.method, x.URL+tt.path, bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if r := x.do(req, tt.header...); r.status != tt.want {
			t.Errorf("%s: %+v, want %d", tt.name, r, tt.want)
		}
	}
}

func TestBodyOfWrongLengthOrChunked(t *testing.T) {
	x := start(t)
	body := push(nil)
	raw := func(text string) string {
		c, err := net.Dial("tcp", x.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		line, _, _ := strings.Cut(string(b), "\r\n")
		return line
	}
	head := "POST /hooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\nX-Hub-Signature-256: " + sign(body) + "\r\n"
	if got := raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body)+10, body)); !strings.Contains(got, "400") {
		t.Errorf("cut off: %q", got)
	}
	if got := raw(fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body)); !strings.Contains(got, "202") {
		t.Errorf("chunked: %q", got)
	}
	if got := raw(fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", head, len(body), body)); !strings.Contains(got, "400") {
		t.Errorf("chunked and cut off: %q", got)
	}
	if got := raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body)-10, body)); !strings.Contains(got, "401") {
		t.Errorf("longer than it says: %q", got)
	}
}

func TestPushesThatStartAndThatDoNot(t *testing.T) {
	x := start(t)
	set := func(key string, v any) func(map[string]any) { return func(p map[string]any) { p[key] = v } }
	for i, tt := range []struct {
		name   string
		event  string
		change func(map[string]any)
		status int
		want   string
	}{
		{"wanted", "push", nil, 202, "shop: run starts for aaaaaaa on branch main"},
		{"another branch", "push", set("ref", "refs/heads/docs"), 200, "no pipeline wants branch docs: shop wants main"},
		{"tag", "push", set("ref", "refs/tags/v1"), 202, "tag v1"},
		{"other tag", "push", set("ref", "refs/tags/x1"), 200, "no pipeline wants tag x1"},
		{"annotated tag", "push", func(p map[string]any) { p["ref"] = "refs/tags/v2"; p["after"] = strings.Repeat("c", 40) }, 202, "run starts for aaaaaaa on tag v2"},
		{"deleted", "push", func(p map[string]any) {
			p["deleted"] = true
			p["after"] = deploy.ZeroCommit
			p["head_commit"] = nil
		}, 200, "branch main was deleted: nothing to deploy"},
		{"paths", "push", set("commits", []any{map[string]any{"added": []any{"docs/x.md"}}}), 200, "no changed path is one that it wants"},
		{"list cut", "push", set("commits", []any{}), 202, "the diff decides"},
		{"skip", "push", set("head_commit", map[string]any{"id": strings.Repeat("a", 40), "message": "x [skip ci]"}), 200, "[skip ci]"},
		{"other repository", "push", set("repository", map[string]any{"html_url": "https://github.com/acme/other"}), 200, "no pipeline has repository github.com/acme/other"},
		{"other case", "push", set("repository", map[string]any{"html_url": "https://GITHUB.com/CODERTOCAT/hello-world"}), 202, "run starts"},
		{"no sha", "push", func(p map[string]any) { delete(p, "after"); delete(p, "head_commit") }, 200, "names no commit"},
		{"renamed", "push", set("repository", map[string]any{"html_url": "https://github.com/Codertocat/Hello-Moon"}), 200, "no pipeline has repository github.com/codertocat/hello-moon"},
		{"another host", "push", set("repository", map[string]any{"html_url": "https://evil.example/Codertocat/Hello-World"}), 200, "no pipeline has repository evil.example/"},
		{"host in the login", "push", set("repository", map[string]any{"html_url": "https://github.com@evil.example/Codertocat/Hello-World"}), 200, "no pipeline has repository evil.example/"},
		{"no repository", "push", set("repository", nil), 200, "no pipeline has repository (none)"},
		{"sha of zeros", "push", func(p map[string]any) { p["after"] = deploy.ZeroCommit }, 200, "was deleted"},
		{"head of zeros", "push", set("head_commit", map[string]any{"id": deploy.ZeroCommit, "message": "x"}), 202, "run starts for aaaaaaa"},
		{"sha that is none", "push", func(p map[string]any) { p["after"] = "--upload-pack=x"; delete(p, "head_commit") }, 200, "names no commit"},
		{"new branch", "push", func(p map[string]any) { p["before"] = deploy.ZeroCommit; p["created"] = true }, 202, "the diff decides"},
		{"forced", "push", set("forced", true), 202, "the diff decides"},
		{"did not move", "push", set("before", strings.Repeat("a", 40)), 200, "branch main did not move"},
		{"message of 1 MB", "push", set("head_commit", map[string]any{"id": strings.Repeat("a", 40), "message": strings.Repeat("m", 1<<20)}), 202, "run starts"},
		{"message with ANSI and NUL", "push", set("head_commit", map[string]any{"id": strings.Repeat("a", 40), "message": "\x1b[31mred\x00"}), 202, "run starts"},
		{"branch like a path", "push", set("ref", "refs/heads/../../etc"), 200, "no pipeline wants branch ../../etc"},
		{"branch like a flag", "push", set("ref", "refs/heads/-rf"), 200, "no pipeline wants branch -rf"},
		{"odd branch", "push", set("ref", "refs/heads/$(touch x)\n\"'../../etc"), 200, "no pipeline wants branch $(touch x)?"},
		{"long branch", "push", set("ref", "refs/heads/"+strings.Repeat("x", 1000)), 200, "no pipeline wants branch xxx"},
		{"ping", "ping", nil, 200, "pong"},
		{"pull request", "pull_request", nil, 200, "pull requests start nothing"},
		{"issue", "issues", nil, 200, "event issues: no pipeline wants it"},
		{"unknown", "no_such_event", nil, 200, "event no_such_event: no pipeline wants it"},
		{"wrong types", "push", func(p map[string]any) { p["ref"] = 1; p["repository"] = "x"; p["commits"] = "y" }, 200, "names no ref"},
	} {
		change := func(p map[string]any) {
			p["n"] = i // each body is another one
			if tt.change != nil {
				tt.change(p)
			}
		}
		r := x.github(tt.event, fmt.Sprint("id-", i), push(change))
		if r.status != tt.status || !strings.Contains(r.Message, tt.want) {
			t.Errorf("%s: %+v, want %d and %q", tt.name, r, tt.status, tt.want)
		}
	}
}

func TestSecondDeliveryReturnsFirstReceipt(t *testing.T) {
	x := start(t)
	body := push(nil)
	one := x.github("push", "first", body)
	if one.status != 202 || len(one.Runs) != 1 {
		t.Fatalf("got %+v", one)
	}
	for _, id := range []string{"first", "another-id-of-the-same-body"} {
		if again := x.github("push", id, body); again.status != 200 || again.Delivery != one.Delivery || len(again.Runs) != 1 || again.Runs[0] != one.Runs[0] {
			t.Errorf("id %s: %+v, want the receipt of %+v", id, again, one)
		}
	}
	if r := x.github("push", "first", push(func(p map[string]any) { p["x"] = 1 })); r.status != 409 {
		t.Errorf("the same id with another body: %+v", r)
	}
	pay := []byte(`{"type":"payment.approved"}`)
	a := x.send("/hooks/webhook?token="+token, pay)
	b := x.send("/hooks/webhook?token="+token, pay)
	if a.status != 202 || b.status != 202 || a.Runs[0] == b.Runs[0] {
		t.Errorf("two payments of the same amount are two: %+v, %+v", a, b)
	}
	c := x.send("/hooks/webhook?token="+token, pay, "Idempotency-Key", "k1")
	if d := x.send("/hooks/webhook?token="+token, pay, "Idempotency-Key", "k1"); d.status != 200 || d.Runs[0] != c.Runs[0] {
		t.Errorf("the same key again: %+v, %+v", c, d)
	}
}

func TestPayloadIsWantedByItsIf(t *testing.T) {
	x := start(t)
	r := x.send("/hooks/webhook?token="+token, []byte(`{"type":{"a":1}}`))
	if r.status != 200 || !strings.Contains(r.Message, "its if is false") {
		t.Errorf("got %+v", r)
	}
}

type fullStore struct{ receiver.Store }

func (fullStore) Accept(context.Context, *deploy.Delivery, []deploy.NewRun) (deploy.Receipt, error) {
	return deploy.Receipt{}, fmt.Errorf("%w for the database", deploy.ErrFull)
}

func TestWhatCannotBeStoredIsNeverAnswered2xx(t *testing.T) {
	t.Setenv("TEST_SECRET", secret)
	f, err := config.Parse("deploy.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	rc := receiver.New(receiver.Options{Config: func() *deploy.Config { return f.Deploy }, Secret: config.Resolve, Store: fullStore{}, Log: slog.New(slog.DiscardHandler), BodyMemory: 1 << 20})
	for _, body := range [][]byte{push(nil), bytes.Repeat([]byte(" "), 2<<20)} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/hooks/github", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-GitHub-Event", "push")
		r.Header.Set("X-Hub-Signature-256", sign(body))
		rc.ServeHTTP(w, r)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d bytes: %d %s, want 503 with Retry-After", len(body), w.Code, w.Body)
		}
	}
}

func TestWrongSecretsAreLimitedAndRightOnesNever(t *testing.T) {
	x := start(t)
	limited := false
	for range 100 {
		r := x.send("/hooks/github", push(nil))
		limited = limited || r.status == 429
		if r.status != 401 && r.status != 429 {
			t.Fatalf("got %+v", r)
		}
	}
	if !limited {
		t.Error("a hundred wrong signatures were never limited")
	}
	if r := x.github("push", "1", push(nil)); r.status != 202 {
		t.Errorf("the right secret from that address: %+v", r)
	}
}

func TestAllExamplesOfGitHubAreGoodDeliveries(t *testing.T) {
	x := start(t)
	f, err := os.Open("testdata/octokit-examples.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var examples []struct {
		Name    string
		Payload json.RawMessage
	}
	if err := json.NewDecoder(z).Decode(&examples); err != nil {
		t.Fatal(err)
	}
	if len(examples) != 329 {
		t.Fatalf("there are %d examples, want 329", len(examples))
	}
	for i, e := range examples {
		r := x.github(e.Name, fmt.Sprint("example-", i), e.Payload)
		if r.status != 200 && r.status != 202 {
			t.Errorf("%s: %+v", e.Name, r)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("push", push(nil))
	f.Add("push", []byte(`{"ref":1,"commits":[1,{"added":[2]}]}`))
	f.Add("push", []byte(`{"ref":"refs/tags/v1","after":"0000000000000000000000000000000000000000","repository":{"html_url":"https://[::1/x"}}`))
	f.Add("", []byte(`{"repository":{"html_url":"//a/b.git"},"sender":{"login":7}}`))
	f.Add("ping", []byte(`[]`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		for _, provider := range []string{"github", "generic"} {
			ev, err := receiver.Read(provider, name, body)
			if err != nil {
				continue
			}
			for _, c := range []string{ev.Commit, ev.Before, ev.After} {
				if c != "" && (len(c) != 40 || strings.Trim(c, "0123456789abcdef") != "") {
					t.Errorf("%q is taken for a commit", c)
				}
			}
			if ev.Repository != "" && (strings.ToLower(ev.Repository) != ev.Repository || !strings.Contains(ev.Repository, "/")) {
				t.Errorf("repository %q", ev.Repository)
			}
		}
	})
}

func BenchmarkAccept(b *testing.B) {
	x := start(b)
	pad := strings.Repeat("x", 7000)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			body := push(func(p map[string]any) {
				p["pad"] = fmt.Sprintf("%s%d-%p", pad, n, pb)
				p["ref"] = fmt.Sprintf("refs/tags/v%d-%p", n, pb)
			})
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "/hooks/github", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-GitHub-Event", "push")
			r.Header.Set("X-Hub-Signature-256", sign(body))
			x.rc.ServeHTTP(w, r)
			if w.Code != 202 {
				b.Fatal(w.Body)
			}
		}
	})
}
