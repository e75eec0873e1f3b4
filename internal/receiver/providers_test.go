package receiver_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

const (
	standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	azureSecret    = "deployhook:a password of the service hook"
)

// everyProvider has a hook for each, and one pipeline for each.
const everyProvider = `
secrets:
  old: { environment: OLD_SECRET }
  now: { environment: TEST_SECRET }
hooks:
  github: { provider: github, secret: now }
  gitea: { provider: gitea, secret: [ now, old ] }
  forgejo: { provider: forgejo, secret: now }
  gogs: { provider: gogs, secret: now }
  gitlab: { provider: gitlab, token: { environment: TEST_TOKEN } }
  bitbucket: { provider: bitbucket, secret: now }
  azure: { provider: azure, secret: { environment: AZURE_SECRET } }
  generic: { provider: generic, secret: now }
  base64: { provider: generic, secret: now, signature: { header: X-Signature, algorithm: sha512, encoding: base64, prefix: "v0:" } }
  sha1: { provider: generic, secret: now, signature: { header: X-Old, algorithm: sha1 } }
  standard: { provider: standard, secret: { environment: STANDARD_SECRET } }
  stripe: { provider: stripe, secret: now }
pipelines:
  github: { repository: github.com/codertocat/hello-world, hook: github, on: push, jobs: &jobs { test: { steps: [ { run: "true" } ] } } }
  gitea: { repository: localhost/example/example, hook: gitea, on: push, jobs: *jobs }
  forgejo: { repository: localhost/example/example, hook: forgejo, on: push, jobs: *jobs }
  gogs: { repository: localhost/unknwon/webhooks, hook: gogs, on: push, jobs: *jobs }
  gitlab: { repository: example.com/mike/diaspora, hook: gitlab, on: push, jobs: *jobs }
  bitbucket: { repository: bitbucket.org/acme/shop, hook: bitbucket, on: push, jobs: *jobs }
  azure: { repository: dev.azure.com/acme/web/_git/shop, hook: azure, on: push, jobs: *jobs }
  generic: { on: { hook: { name: generic } }, jobs: *jobs }
  base64: { on: { hook: { name: base64 } }, jobs: *jobs }
  sha1: { on: { hook: { name: sha1 } }, jobs: *jobs }
  standard: { on: { hook: { name: standard } }, jobs: *jobs }
  stripe: { on: { hook: { name: stripe } }, jobs: *jobs }
`

func startEvery(t *testing.T) *fixture {
	t.Helper()
	t.Setenv("OLD_SECRET", "the secret before this one")
	t.Setenv("STANDARD_SECRET", standardSecret)
	t.Setenv("AZURE_SECRET", azureSecret)
	x := start(t)
	x.use(everyProvider)
	return x
}

func mac(form func() hash.Hash, key string, parts ...string) []byte {
	m := hmac.New(form, []byte(key))
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

// sender is how a provider's deliveries are made.
type sender struct {
	hook   string
	body   func(id string) []byte // that a pipeline wants; ids that stand in it differ
	header string                 // that proves it
	prove  func(secret string, body []byte, id string, at time.Time) string
	rest   func(id string, at time.Time) []string // other headers
	own    string                                 // the right secret
	timed  bool
	// garbled is a proof in the wrong encoding.
	garbled func(right string) string
	sameID  bool // a second body can have the id of the first
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "forges", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// moved is a push of one branch to another commit, in a forge's payload.
func moved(t testing.TB, name string, change func(p map[string]any)) []byte {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(testdata(t, name), &p); err != nil {
		t.Fatal(err)
	}
	change(p)
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// commitOf is a commit that a word stands for.
func commitOf(word string) string { return hex.EncodeToString(mac(sha1.New, "", word)) }

func bitbucketChange(kind, name, from, to string) map[string]any {
	at := func(commit string) any {
		if commit == "" {
			return nil
		}
		return map[string]any{"type": kind, "name": name, "target": map[string]any{"hash": commit, "message": "change " + name}}
	}
	return map[string]any{"old": at(from), "new": at(to), "created": from == "", "closed": to == "", "forced": false}
}

func bitbucketPush(changes ...any) []byte {
	b, err := json.Marshal(map[string]any{
		"actor":      map[string]any{"nickname": "alice"},
		"repository": map[string]any{"links": map[string]any{"html": map[string]any{"href": "https://bitbucket.org/Acme/shop"}}},
		"push":       map[string]any{"changes": changes},
	})
	if err != nil {
		panic(err)
	}
	return b
}

func azurePush(id string, updates ...any) []byte {
	b, err := json.Marshal(map[string]any{"id": id, "eventType": "git.push", "resource": map[string]any{
		"refUpdates": updates, "commits": []any{map[string]any{"commitId": commitOf("azure one"), "comment": "Fix it"}},
		"repository": map[string]any{"remoteUrl": "https://acme@dev.azure.com/acme/Web/_git/shop"}, "pushedBy": map[string]any{"uniqueName": "alice@example.com"},
	}})
	if err != nil {
		panic(err)
	}
	return b
}

func azureUpdate(ref, from, to string) map[string]any {
	return map[string]any{"name": ref, "oldObjectId": from, "newObjectId": to}
}

func hexOf(prefix string) func(string, []byte, string, time.Time) string {
	return func(key string, body []byte, _ string, _ time.Time) string {
		return prefix + hex.EncodeToString(mac(sha256.New, key, string(body)))
	}
}

func inBase64(right string) string {
	prefix, digits, ok := strings.Cut(right, "=")
	if !ok {
		prefix, digits = "", right
	} else {
		prefix += "="
	}
	b, _ := hex.DecodeString(digits)
	return prefix + base64.StdEncoding.EncodeToString(b)
}

func senders(t testing.TB) []sender {
	id := func(name string, more ...string) func(string, time.Time) []string {
		return func(id string, _ time.Time) []string { return append([]string{name, id}, more...) }
	}
	forge := func(name string) func(string) []byte {
		return func(id string) []byte {
			return moved(t, name, func(p map[string]any) {
				p["before"], p["after"] = commitOf(id+"before"), commitOf(id)
				delete(p, "checkout_sha")
			})
		}
	}
	json := func(id string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"type":"payment.approved","n":%q}`, id, id)
	}
	return []sender{
		{hook: "github", own: secret, header: "X-Hub-Signature-256", prove: hexOf("sha256="), rest: id("X-GitHub-Delivery", "X-GitHub-Event", "push"), garbled: inBase64, sameID: true,
			body: func(id string) []byte { return push(func(p map[string]any) { p["after"] = commitOf(id) }) }},
		{hook: "gitea", own: secret, header: "X-Gitea-Signature", prove: hexOf(""), rest: id("X-Gitea-Delivery", "X-Gitea-Event", "push"), garbled: inBase64, sameID: true, body: forge("gitea-push-event")},
		{hook: "forgejo", own: secret, header: "X-Gitea-Signature", prove: hexOf(""), rest: id("X-Gitea-Delivery", "X-Gitea-Event", "push"), garbled: inBase64, sameID: true, body: forge("gitea-push-event")},
		{hook: "gogs", own: secret, header: "X-Gogs-Signature", prove: hexOf(""), rest: id("X-Gogs-Delivery", "X-Gogs-Event", "push"), garbled: inBase64, sameID: true, body: forge("gogs-push-event")},
		{hook: "gitlab", own: token, header: "X-Gitlab-Token", prove: func(key string, _ []byte, _ string, _ time.Time) string { return key },
			rest: id("Idempotency-Key", "X-Gitlab-Event", "Push Hook"), garbled: func(s string) string { return hex.EncodeToString([]byte(s)) }, sameID: true, body: forge("gitlab-push-event")},
		{hook: "bitbucket", own: secret, header: "X-Hub-Signature", prove: hexOf("sha256="), rest: id("X-Request-UUID", "X-Event-Key", "repo:push"), garbled: inBase64, sameID: true,
			body: func(id string) []byte {
				return bitbucketPush(bitbucketChange("branch", "main", commitOf(id+"before"), commitOf(id)))
			}},
		{hook: "azure", own: azureSecret, header: "Authorization", garbled: func(s string) string { return strings.Replace(s, "Basic ", "Basic %", 1) },
			prove: func(key string, _ []byte, _ string, _ time.Time) string {
				return "Basic " + base64.StdEncoding.EncodeToString([]byte(key))
			},
			rest: func(string, time.Time) []string { return nil },
			body: func(id string) []byte {
				return azurePush(id, azureUpdate("refs/heads/main", commitOf(id+"before"), commitOf(id)))
			}},
		{hook: "generic", own: secret, header: "X-Hub-Signature-256", prove: hexOf("sha256="), rest: id("Idempotency-Key"), garbled: inBase64, sameID: true, body: json},
		{hook: "base64", own: secret, header: "X-Signature", rest: id("Webhook-Id"), sameID: true, body: json,
			prove: func(key string, body []byte, _ string, _ time.Time) string {
				return "v0:" + base64.StdEncoding.EncodeToString(mac(sha512.New, key, string(body)))
			},
			garbled: func(s string) string {
				b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "v0:"))
				return "v0:" + hex.EncodeToString(b)
			}},
		{hook: "sha1", own: secret, header: "X-Old", rest: id("Idempotency-Key"), sameID: true, body: json, garbled: inBase64,
			prove: func(key string, body []byte, _ string, _ time.Time) string {
				return hex.EncodeToString(mac(sha1.New, key, string(body)))
			}},
		{hook: "standard", own: standardSecret, header: "webhook-signature", timed: true, sameID: true, body: json,
			rest: func(id string, at time.Time) []string {
				return []string{"webhook-id", id, "webhook-timestamp", fmt.Sprint(at.Unix())}
			},
			prove: func(key string, body []byte, id string, at time.Time) string {
				lib, err := standardwebhooks.NewWebhook(key)
				if err != nil {
					lib, _ = standardwebhooks.NewWebhookRaw([]byte(key))
				}
				s, _ := lib.Sign(id, at, body)
				return s
			},
			garbled: func(s string) string {
				b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "v1,"))
				return "v1," + hex.EncodeToString(b)
			}},
		{hook: "stripe", own: secret, header: "Stripe-Signature", timed: true, body: json, rest: func(string, time.Time) []string { return nil },
			prove: func(key string, body []byte, _ string, at time.Time) string {
				return fmt.Sprintf("t=%d,v1=%x", at.Unix(), mac(sha256.New, key, fmt.Sprint(at.Unix()), ".", string(body)))
			},
			garbled: func(s string) string {
				head, digits, _ := strings.Cut(s, ",v1=")
				b, _ := hex.DecodeString(digits)
				return head + ",v1=" + base64.StdEncoding.EncodeToString(b)
			}},
	}
}

// request is a delivery of a sender.
func (s *sender) request(x *fixture, id string, body []byte, at time.Time, proofs ...string) *http.Request {
	x.t.Helper()
	req, err := http.NewRequest(http.MethodPost, x.URL+"/hooks/"+s.hook, bytes.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	rest := s.rest(id, at)
	for i := 0; i < len(rest); i += 2 {
		req.Header.Set(rest[i], rest[i+1])
	}
	for _, p := range proofs {
		req.Header.Add(s.header, p)
	}
	return req
}

// serveAnew puts a new receiver before the same store, for a test of its own.
func (x *fixture) serveAnew(t *testing.T) (back func()) {
	t.Helper()
	before, own := x.Server, x.t
	x.Server, x.t = httptest.NewServer(receiver.New(receiver.Options{
		Config: x.cfg.Load, Secret: config.Resolve, Store: x.store, Log: slog.New(slog.NewTextHandler(x.log, nil)), BodyMemory: 64 << 20,
	})), t
	return func() {
		x.Server.Close()
		x.Server, x.t = before, own
	}
}

// Whatever is wrong with the proof of a delivery, it is 401 and one sentence,
// and nothing of it is kept; the right one starts its pipeline once.
func TestEveryProviderRefusesWhatItsServiceDidNotSign(t *testing.T) {
	x := startEvery(t)
	now := time.Now()
	for _, s := range senders(t) {
		t.Run(s.hook, func(t *testing.T) {
			// Each with limits of its own.
			defer x.serveAnew(t)()
			one, two := s.body(s.hook+" one"), s.body(s.hook+" two")
			right := s.prove(s.own, one, "1", now)
			refused := func(what, want string, proofs ...string) {
				t.Helper()
				got := x.do(s.request(x, "1", one, now, proofs...))
				if got.status != 401 || len(got.Runs) > 0 || !strings.Contains(got.Message, want) {
					t.Errorf("%s: %+v, want 401 and %q", what, got, want)
				}
			}
			refused("no signature", "no ")
			if s.hook != "azure" && s.hook != "gitlab" {
				refused("an empty signature", "no signature: ", "")
				refused("the signature of another body", "wrong signature: ", s.prove(s.own, two, "1", now))
			}
			refused("another's signature", "wrong ", s.prove("somebody's other secret", one, "1", now))
			refused("a wrong encoding", "", s.garbled(right))
			refused("two signatures", "more than one", right, right)
			refused("two signatures, one of them another's", "more than one", right, s.prove("somebody's other secret", one, "1", now))
			refused("a signature of 1 MB", "", strings.Repeat("a", 1<<20-4096))
			refused("a signature of 1 MB after the right prefix", "", right+strings.Repeat(",v1=0 v1,0", 50_000))
			if s.timed {
				for off, want := range map[time.Duration]string{
					-10 * time.Minute: "the timestamp is 10m", 10 * time.Minute: "in the future, ", -1000000 * time.Hour: " old, ",
				} {
					at := now.Add(off)
					got := x.do(s.request(x, "1", one, at, s.prove(s.own, one, "1", at)))
					if got.status != 401 || !strings.Contains(got.Message, want) && at.Unix() >= 0 || at.Unix() < 0 && !strings.Contains(got.Message, "timestamp") {
						t.Errorf("%v off: %+v, want %q", off, got, want)
					}
					if got := x.do(s.request(x, "1", one, at, s.prove("somebody's other secret", one, "1", at))); at.Unix() >= 0 && !strings.Contains(got.Message, "wrong signature") {
						t.Errorf("%v off and another's: %+v: who has no secret learns nothing of the clock", off, got)
					}
				}
				at := now.Add(-4 * time.Minute)
				if got := x.do(s.request(x, "early", s.body(s.hook+" early"), at, s.prove(s.own, s.body(s.hook+" early"), "early", at))); got.status != 202 {
					t.Errorf("4 minutes old: %+v", got)
				}
			}
			first := x.do(s.request(x, "1", one, now, right))
			if first.status != 202 || len(first.Runs) != 1 {
				t.Fatalf("the right signature: %+v", first)
			}
			if run, err := x.store.Run(t.Context(), first.Runs[0]); err != nil || run.Pipeline != s.hook {
				t.Errorf("it started %v, %v", run, err)
			}
			again := x.do(s.request(x, "1", one, now, right))
			if again.status != 200 || !slices.Equal(again.Runs, first.Runs) || !strings.HasPrefix(again.Message, "this delivery is known: ") {
				t.Errorf("the same once more: %+v", again)
			}
			other := two
			if !s.sameID { // the id stands in the body
				other = bytes.Replace(one, []byte("{"), []byte(`{"more":1,`), 1)
			}
			if got := x.do(s.request(x, "1", other, now, s.prove(s.own, other, "1", now))); got.status != 409 || len(got.Runs) > 0 {
				t.Errorf("its id with another body: %+v, want 409", got)
			}
			if got := x.do(s.request(x, "2", two, now, s.prove(s.own, two, "2", now))); got.status != 202 {
				t.Errorf("the next one: %+v", got)
			}
		})
	}
	list, err := x.store.Deliveries(t.Context(), deploy.DeliveryFilter{Limit: 1000})
	if want := 2*len(senders(t)) + 2; err != nil || len(list) != want {
		t.Errorf("%d deliveries are kept, want %d: %v", len(list), want, err)
	}
}

func TestEachSecretOfARotationVerifies(t *testing.T) {
	x := startEvery(t)
	for i, key := range []string{secret, "the secret before this one"} {
		id := fmt.Sprint("rotated", i)
		body := moved(t, "gitea-push-event", func(p map[string]any) { p["after"] = commitOf(id) })
		got := x.send("/hooks/gitea", body, "X-Gitea-Event", "push", "X-Gitea-Delivery", id, "X-Gitea-Signature", hex.EncodeToString(mac(sha256.New, key, string(body))))
		if got.status != 202 {
			t.Errorf("secret %d: %+v", i+1, got)
		}
	}
	// One that cannot be read keeps nobody out who has the other, and lets nobody in.
	if err := os.Unsetenv("OLD_SECRET"); err != nil {
		t.Fatal(err)
	}
	body := moved(t, "gitea-push-event", func(p map[string]any) { p["after"] = commitOf("after") })
	for key, want := range map[string]int{secret: 202, "the secret before this one": 503, "": 401} {
		signature := ""
		if key != "" {
			signature = hex.EncodeToString(mac(sha256.New, key, string(body)))
		}
		got := x.send("/hooks/gitea", body, "X-Gitea-Event", "push", "X-Gitea-Delivery", "after", "X-Gitea-Signature", signature)
		if got.status != want {
			t.Errorf("with the old secret gone, signed with %q: %+v, want %d", key, got, want)
		}
	}
}

// Two signatures in one header are how Standard Webhooks and Stripe rotate.
func TestOneOfSeveralSignaturesIsEnough(t *testing.T) {
	x := startEvery(t)
	now := time.Now()
	for _, s := range senders(t) {
		if !s.timed {
			continue
		}
		body := s.body("listed")
		wrong, right := s.prove("somebody's other secret", body, "listed", now), s.prove(s.own, body, "listed", now)
		list := wrong + " v1a,AAAA " + right
		if s.hook == "stripe" {
			_, digits, _ := strings.Cut(right, ",")
			list = wrong + ",v0=00," + digits
		}
		if got := x.do(s.request(x, "listed", body, now, list)); got.status != 202 {
			t.Errorf("%s, a wrong and a right one: %+v", s.hook, got)
		}
	}
}

// The specification's own example, whose secret and signature are published.
func TestStandardWebhooksVector(t *testing.T) {
	h := http.Header{}
	h.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	h.Set("webhook-timestamp", "1614265330")
	h.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	err := receiver.CheckSignature(h, &deploy.Hook{Provider: "standard"}, standardSecret, []byte(`{"test": 2432232314}`))
	if err == nil || !strings.Contains(err.Error(), "old, ") {
		t.Errorf("got %v: only its age is wrong", err)
	}
	h.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=")
	if err := receiver.CheckSignature(h, &deploy.Hook{Provider: "standard"}, standardSecret, []byte(`{"test": 2432232314}`)); err == nil || !strings.Contains(err.Error(), "wrong signature") {
		t.Errorf("got %v for another signature", err)
	}
}

// A form is signed as GitHub signs it by none of these: the JSON in it is.
func TestGiteaSignsTheJSONOfAForm(t *testing.T) {
	x := startEvery(t)
	for i, s := range []string{"gitea", "forgejo", "gogs"} {
		name := s
		if s == "forgejo" {
			name = "gitea"
		}
		title := strings.ToUpper(name[:1]) + name[1:]
		payload := moved(t, name+"-push-event", func(p map[string]any) { p["after"] = commitOf("form") })
		form := []byte("payload=" + url.QueryEscape(string(payload)))
		headers := func(over []byte) []string {
			return []string{"Content-Type", "application/x-www-form-urlencoded", "X-" + title + "-Event", "push", "X-" + title + "-Delivery", fmt.Sprint("form", i),
				"X-" + title + "-Signature", hex.EncodeToString(mac(sha256.New, secret, string(over)))}
		}
		if got := x.send("/hooks/"+s, form, headers(form)...); got.status != 401 {
			t.Errorf("%s, the form signed: %+v", s, got)
		}
		if got := x.send("/hooks/"+s, []byte("a=b"), headers(payload)...); got.status != 401 {
			t.Errorf("%s, a form without a payload: %+v", s, got)
		}
		if got := x.send("/hooks/"+s, form, headers(payload)...); got.status != 202 {
			t.Errorf("%s, its JSON signed: %+v", s, got)
		}
	}
}

func TestPushesOfEveryForgeAreReadAsTheyAre(t *testing.T) {
	const zero = deploy.ZeroCommit
	for _, tt := range []struct {
		provider, name string
		payload        []byte
		want           deploy.Event
	}{
		{"gitlab", "push", testdata(t, "gitlab-push-event"), deploy.Event{Kind: "push", Repository: "example.com/mike/diaspora", Ref: "refs/heads/master", Branch: "master",
			Before: "95790bf891e76fee5e1747ab589903a6a1f80f22", After: "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", Commit: "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", Actor: "John Smith", Message: "fixed readme", Paths: []string{"CHANGELOG", "app/controller/application.rb"}, PathsCut: true}},
		{"gitlab", "tag_push", moved(t, "gitlab-tag-event", func(p map[string]any) { p["after"] = commitOf("tag object") }), deploy.Event{Kind: "push", Repository: "example.com/jsmith/example", Ref: "refs/tags/v1.0.0", Tag: "v1.0.0",
			Before: zero, After: commitOf("tag object"), Commit: "82b3d5ae55f7080f1e6022629cdb57bfae7cccc7", Actor: "John Smith", Created: true, PathsCut: true}},
		{"gitlab", "push", moved(t, "gitlab-push-event", func(p map[string]any) { p["after"], p["checkout_sha"], p["commits"] = zero, nil, nil }), deploy.Event{Kind: "push", Repository: "example.com/mike/diaspora", Ref: "refs/heads/master", Branch: "master",
			Before: "95790bf891e76fee5e1747ab589903a6a1f80f22", After: zero, Commit: zero, Actor: "John Smith", Deleted: true, PathsCut: true}},
		{"gitea", "delete", testdata(t, "gitea-delete-event"), deploy.Event{Kind: "push", Repository: "localhost/example/example", Ref: "refs/heads/example3", Branch: "example3", After: zero, Commit: zero, Actor: "example", Deleted: true}},
		{"gitea", "create", testdata(t, "gitea-create-event"), deploy.Event{Repository: "localhost/example/example", Actor: "example"}},
		{"forgejo", "release", testdata(t, "gitea-release-event"), deploy.Event{Kind: "release", Action: "published", Repository: "localhost/example/example", Ref: "refs/tags/example", Tag: "example", Actor: "example"}},
		{"gogs", "create", []byte(`{"ref":"v1","ref_type":"tag","sha":"` + commitOf("gogs tag") + `","repository":{"html_url":"https://gogs.example.com/User/repo"},"sender":{"login":"bob"}}`),
			deploy.Event{Kind: "push", Repository: "gogs.example.com/user/repo", Ref: "refs/tags/v1", Tag: "v1", Before: zero, After: commitOf("gogs tag"), Actor: "bob", Created: true, PathsCut: true}},
		{"gogs", "delete", testdata(t, "gogs-delete-event"), deploy.Event{Kind: "push", Repository: "gogs.example.com/user/repo", Ref: "refs/heads/obsolete-branch", Branch: "obsolete-branch", After: zero, Commit: zero, Deleted: true}},
		{"bitbucket", "repo:push", bitbucketPush(bitbucketChange("tag", "v2", "", commitOf("v2"))), deploy.Event{Kind: "push", Repository: "bitbucket.org/acme/shop", Ref: "refs/tags/v2", Tag: "v2", Before: zero, After: commitOf("v2"), Commit: commitOf("v2"), Actor: "alice", Message: "change v2", Created: true, PathsCut: true}},
		{"bitbucket", "repo:push", bitbucketPush(bitbucketChange("branch", "old", commitOf("old"), "")), deploy.Event{Kind: "push", Repository: "bitbucket.org/acme/shop", Ref: "refs/heads/old", Branch: "old", Before: commitOf("old"), After: zero, Commit: zero, Actor: "alice", Deleted: true, PathsCut: true}},
		{"azure", "git.push", azurePush("1", azureUpdate("refs/heads/main", commitOf("x"), commitOf("azure one"))), deploy.Event{Kind: "push", Repository: "dev.azure.com/acme/web/_git/shop", Ref: "refs/heads/main", Branch: "main", Before: commitOf("x"), After: commitOf("azure one"), Commit: commitOf("azure one"), Actor: "alice@example.com", Message: "Fix it", PathsCut: true}},
		{"azure", "git.push", azurePush("1", azureUpdate("refs/tags/v1", zero, commitOf("object"))), deploy.Event{Kind: "push", Repository: "dev.azure.com/acme/web/_git/shop", Ref: "refs/tags/v1", Tag: "v1", Before: zero, After: commitOf("object"), Actor: "alice@example.com", Created: true, PathsCut: true}},
		{"azure", "git.push", testdata(t, "azuredevops-git.push"), deploy.Event{Kind: "push", Repository: "dev.azure.com/fabrikam-fiber-inc/defaultcollection/_git/fabrikam-fiber-git", Ref: "refs/heads/main", Branch: "main",
			Before: "aad331d8d3b131fa9ae03cf5e53965b51942618a", After: "33b55f7cb7e7e245323987634f960cf4a6e6bc74", Commit: "33b55f7cb7e7e245323987634f960cf4a6e6bc74", Actor: `Windows Live ID\fabrikamfiber4@hotmail.com`, Message: "Fixed bug in web.config file", PathsCut: true}},
	} {
		ev, err := receiver.Read(tt.provider, tt.name, tt.payload)
		if err != nil {
			t.Errorf("%s %s: %v", tt.provider, tt.name, err)
			continue
		}
		tt.want.Name, tt.want.Payload = tt.name, nil
		got := *ev
		got.Payload = nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
			t.Errorf("%s %s:\n got %+v\nwant %+v", tt.provider, tt.name, got, tt.want)
		}
	}
}

func TestReleasesAndWorkflowRunsOfGitHub(t *testing.T) {
	run := func(change string) *deploy.Event {
		t.Helper()
		ev, err := receiver.Read("github", "workflow_run", []byte(`{"action":"completed","repository":{"full_name":"Acme/Shop","html_url":"https://github.com/Acme/Shop"},
			"workflow":{"name":"CI"},"workflow_run":{"name":"CI","head_branch":"main","head_sha":"`+commitOf("green")+`","conclusion":"success","event":"push","head_repository":`+change+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	ev := run(`{"full_name":"acme/shop"}`)
	if ev.Kind != deploy.Workflow || ev.Action != "completed" || ev.Workflow != "CI" || ev.Conclusion != "success" || ev.Trigger != "push" || ev.Fork || ev.Branch != "main" || ev.Commit != commitOf("green") || ev.Repository != "github.com/acme/shop" {
		t.Errorf("%+v", ev)
	}
	for _, head := range []string{`{"full_name":"mallory/shop"}`, `null`, `{}`, `"acme/shop"`} {
		if !run(head).Fork {
			t.Errorf("head_repository %s is taken for the repository's own", head)
		}
	}
	ev, err := receiver.Read("github", "release", []byte(`{"action":"published","repository":{"html_url":"https://github.com/Acme/Shop"},"release":{"tag_name":"v2","prerelease":true,"draft":false}}`))
	if err != nil || ev.Kind != deploy.ReleaseEvent || ev.Tag != "v2" || !ev.Prerelease || ev.Draft || ev.Action != "published" || ev.Commit != "" {
		t.Errorf("%+v, %v", ev, err)
	}
}

// What starts nothing says why.
func TestPullRequestsAndTestDeliveriesOfForgesStartNothing(t *testing.T) {
	cfg, err := config.Parse("deploy.yaml", []byte(everyProvider))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		provider, name string
		payload        []byte
		want           string
	}{
		{"gitlab", "merge_request", testdata(t, "gitlab-merge-request-event"), "pull requests start nothing"},
		{"bitbucket", "pullrequest:created", testdata(t, "bitbucket-pull-request-created"), "pull requests start nothing"},
		{"azure", "git.pullrequest.created", testdata(t, "azuredevops-git.pullrequest.created"), "pull requests start nothing"},
		{"gitea", "push", moved(t, "gitea-push-event", func(p map[string]any) { p["after"] = p["before"] }), "pong: "},
		{"gitea", "delete", testdata(t, "gitea-delete-event"), "branch example3 was deleted"},
	} {
		ev, err := receiver.Read(tt.provider, tt.name, tt.payload)
		if err != nil {
			t.Fatal(err)
		}
		ev.Hook = tt.provider
		if d := deploy.Plan(cfg.Deploy, ev); len(d.Runs) > 0 || !strings.HasPrefix(d.Message, tt.want) {
			t.Errorf("%s %s: %+v, want %q", tt.provider, tt.name, d, tt.want)
		}
	}
}

// A push that moves several refs at once is one delivery for each: wanted or
// not, known again, and replayed by itself.
func TestEveryMoveOfADeliveryIsPlanned(t *testing.T) {
	x := startEvery(t)
	body := bitbucketPush(bitbucketChange("branch", "main", commitOf("a"), commitOf("b")), bitbucketChange("branch", "old", commitOf("c"), ""), bitbucketChange("tag", "v1", "", commitOf("b")))
	send := func(id string, body []byte) reply {
		return x.send("/hooks/bitbucket", body, "X-Event-Key", "repo:push", "X-Request-UUID", id, "X-Hub-Signature", sign(body))
	}
	got := send("three", body)
	if got.status != 202 || len(got.Runs) != 2 || !strings.Contains(got.Message, "branch main") || !strings.Contains(got.Message, "branch old was deleted") || !strings.Contains(got.Message, "tag v1") {
		t.Fatalf("%+v", got)
	}
	for i, want := range []string{"refs/heads/main", "refs/tags/v1"} {
		run, err := x.store.Run(t.Context(), got.Runs[i])
		if err != nil || run.Ref != want || run.Commit != commitOf("b") {
			t.Fatalf("run %d: %+v, %v", got.Runs[i], run, err)
		}
		d, err := x.store.Event(t.Context(), run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := receiver.Read("bitbucket", d.Event, d.Body); err != nil || ev.Ref != want {
			t.Errorf("its stored delivery is read as %+v, %v", ev, err)
		}
	}
	for _, id := range []string{"three", "sent again"} {
		if again := send(id, body); again.status != 200 || !slices.Equal(again.Runs, got.Runs) {
			t.Errorf("as %s: %+v, want the runs %v", id, again, got.Runs)
		}
	}
	if other := send("three", bitbucketPush(bitbucketChange("branch", "main", commitOf("b"), commitOf("d")))); other.status != 409 {
		t.Errorf("the id with another body: %+v", other)
	}
	many := []any{}
	for i := range 101 {
		many = append(many, azureUpdate(fmt.Sprintf("refs/tags/v%d", i), deploy.ZeroCommit, commitOf(fmt.Sprint(i))))
	}
	azure := func(body []byte) reply {
		return x.send("/hooks/azure", body, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(azureSecret)))
	}
	if got := azure(azurePush("many", many...)); got.status != 200 || len(got.Runs) > 0 {
		t.Errorf("101 moves at once: %+v, want none of them planned", got)
	}
	if got := azure(azurePush("few", many[:100]...)); got.status != 202 || len(got.Runs) != 100 {
		t.Errorf("100 moves at once: %+v", got)
	}
}

func TestOnlyAllowedNetworksMaySend(t *testing.T) {
	x := start(t)
	x.use(strings.Replace(file, "github: { provider: github,", "github: { provider: github, allow: [ 203.0.113.0/24, '2001:db8::1', github ],", 1))
	var ranges []netip.Prefix
	var broken error
	rc := receiver.New(receiver.Options{
		Config: x.cfg.Load, Secret: config.Resolve, Store: x.store, Log: slog.New(slog.NewTextHandler(x.log, nil)), BodyMemory: 64 << 20,
		Proxies: networks("127.0.0.0/8"), Ranges: func(string) ([]netip.Prefix, error) { return ranges, broken },
	})
	from := func(method, path, peer, forwarded string) int {
		body := push(nil)
		r := httptest.NewRequest(method, path, bytes.NewReader(body)).WithContext(context.Background())
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", forwarded)
		r.Header.Set("X-GitHub-Event", "push")
		r.Header.Set("X-Hub-Signature-256", sign(body))
		w := httptest.NewRecorder()
		rc.ServeHTTP(w, r)
		return w.Code
	}
	ranges = networks("192.30.252.0/22")
	for _, tt := range []struct {
		peer, forwarded string
		want            int
	}{
		{"203.0.113.9:1", "", 202}, {"[2001:db8::1]:1", "", 200}, {"192.30.252.1:1", "", 200}, {"127.0.0.1:1", "192.30.255.255", 200},
		{"198.51.100.1:1", "", 403}, {"[2001:db8::2]:1", "", 403}, {"198.51.100.1:1", "203.0.113.9", 403}, {"127.0.0.1:1", "", 403}, {"127.0.0.1:1", "203.0.113.9, 198.51.100.1", 403}, {"@", "", 403},
	} {
		if got := from(http.MethodPost, "/hooks/github", tt.peer, tt.forwarded); got != tt.want {
			t.Errorf("peer %s, forwarded for %q: %d, want %d", tt.peer, tt.forwarded, got, tt.want)
		}
	}
	if got := from(http.MethodGet, "/hooks/github", "198.51.100.1:1", ""); got != 405 {
		t.Errorf("a GET from elsewhere: %d", got)
	}
	if got := from(http.MethodPost, "/hooks/nothing", "198.51.100.1:1", ""); got != 404 {
		t.Errorf("no such hook, from elsewhere: %d", got)
	}
	broken = errors.New("ranges.json is damaged")
	if got := from(http.MethodPost, "/hooks/github", "192.30.252.1:1", ""); got != 503 {
		t.Errorf("a list that cannot be read: %d", got)
	}
	if got := from(http.MethodPost, "/hooks/github", "203.0.113.9:1", ""); got != 200 {
		t.Errorf("one of the file's own networks, while the list cannot be read: %d", got)
	}
	if log := x.log.String(); !strings.Contains(log, "ranges.json is damaged") || strings.Count(log, "status=403") != 1 {
		t.Errorf("the log does not say why, or says each refusal:\n%s", log)
	}
}

// FuzzProviders lets a stranger and a signed sender say whatever they like to
// each provider: no panic, no success for who has no secret, and only sentences.
func FuzzProviders(f *testing.F) {
	for i, s := range senders(f) {
		body := s.body("seed")
		f.Add(uint8(i), s.prove(s.own, body, "1", time.Now()), "1", "push", "1700000000", body)
	}
	f.Add(uint8(0), "sha256=", "", "", "", []byte("payload=%7B"))
	f.Add(uint8(10), "v1,AAAA v1,", "a.b", "", "-1", []byte("[]"))
	f.Add(uint8(5), "sha256=x", "1", "repo:push", "", []byte(`{"push":{"changes":[null,{"new":{"type":1}}]}}`))
	f.Add(uint8(6), "Basic :", "1", "", "", []byte(`{"id":1,"eventType":"git.push","resource":{"refUpdates":[{"name":"x"},1],"repository":{"remoteUrl":"http://[::1"}}}`))
	list := senders(f)
	hooks := map[string]*deploy.Hook{}
	cfg, err := config.Parse("deploy.yaml", []byte(everyProvider))
	if err != nil {
		f.Fatal(err)
	}
	for i := range cfg.Deploy.Hooks {
		hooks[cfg.Deploy.Hooks[i].Name] = &cfg.Deploy.Hooks[i]
	}
	f.Fuzz(func(t *testing.T, which uint8, proof, id, event, at string, body []byte) {
		s := list[int(which)%len(list)]
		hook := hooks[s.hook]
		h := http.Header{}
		h.Set(s.header, proof)
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", at)
		if hook.Provider != "gitlab" {
			// No secret that is made after the signature was written.
			if err := receiver.CheckSignature(h, hook, "a secret that nobody signs with"+id, body); err == nil {
				t.Fatalf("%s: %q verifies", s.hook, proof)
			} else if strings.Contains(err.Error(), "a secret that nobody") || strings.ContainsAny(err.Error(), "\n") {
				t.Fatalf("%s: %v", s.hook, err)
			}
		}
		for _, part := range receiver.Parts(hook.Provider, body) {
			ev, err := receiver.Read(hook.Provider, event, part)
			if err != nil {
				continue
			}
			ev.Hook = hook.Name
			d := deploy.Plan(cfg.Deploy, ev)
			for _, c := range d.Message {
				if c < ' ' || c == 0x7f {
					t.Fatalf("%s: the answer has control characters: %q", s.hook, d.Message)
				}
			}
			if hook.BringsPushes() && len(d.Runs) > 0 && len(d.Runs[0].Commit) != 40 {
				t.Fatalf("%s: it deploys %q", s.hook, d.Runs[0].Commit)
			}
			if ev.Payload != nil {
				ev.Payload()
			}
		}
	})
}
