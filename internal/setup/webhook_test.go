package setup

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const (
	githubToken   = "ghp_of-this-test-alone"
	webhookSecret = "a-secret-of-many-characters"
)

// fakeGitHub behaves as GitHub's API of webhooks does: a config that is changed
// is replaced as a whole, and a secret is never shown.
type fakeGitHub struct {
	t      *testing.T
	hooks  []map[string]any
	writes []string
	secret string // the last that was set
}

func (g *fakeGitHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const base = "/repos/acme/shop/hooks"
	if r.Header.Get("Authorization") != "Bearer "+githubToken || r.Header.Get("X-GitHub-Api-Version") == "" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"message":"Bad credentials"}`)
		return
	}
	var q struct {
		Name   string         `json:"name"`
		Active *bool          `json:"active"`
		Events []string       `json:"events"`
		Config map[string]any `json:"config"`
	}
	if r.Method != http.MethodGet {
		g.writes = append(g.writes, r.Method+" "+r.URL.Path)
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			g.t.Error(err)
		}
		g.secret, _ = q.Config["secret"].(string)
		q.Config["secret"] = "********"
	}
	h := map[string]any{"id": 100 + len(g.hooks), "name": "web", "active": q.Active, "events": q.Events, "config": q.Config}
	switch {
	case r.Method == http.MethodGet && r.URL.Path == base:
		page := g.hooks
		if r.URL.Query().Get("page") != "1" {
			page = nil
		}
		_ = json.NewEncoder(w).Encode(page)
	case r.Method == http.MethodPost && r.URL.Path == base && q.Name == "web":
		g.hooks = append(g.hooks, h)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(h)
	case r.Method == http.MethodPatch && len(g.hooks) > 0 && r.URL.Path == base+"/100":
		h["id"] = 100
		g.hooks[0] = h
		_ = json.NewEncoder(w).Encode(h)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
	}
}

func (c Change) String() string { return c.Setting + ": " + c.Have + " -> " + c.Want }

func TestWebhookIsMadeThenRepairedThenLeftAlone(t *testing.T) {
	t.Parallel()
	fake := &fakeGitHub{t: t, hooks: []map[string]any{}}
	srv := httptest.NewServer(fake)
	defer srv.Close()
	g := GitHub{API: srv.URL, Token: githubToken}
	w := &Webhook{URL: "https://deploy.example.com/hooks/github?token=t0ken", Secret: webhookSecret, Events: []string{"push", "release"}}

	p, err := g.Plan(t.Context(), "acme/shop", w)
	if err != nil || p.ID != 0 || len(p.Changes) != 6 || len(fake.writes) != 0 {
		t.Fatalf("the plan is %+v, %v; written was %q", p, err, fake.writes)
	}
	if b, _ := json.Marshal(p); strings.Contains(string(b), "t0ken") || strings.Contains(string(b), webhookSecret) {
		t.Errorf("the plan tells a secret: %s", b)
	}
	if id, err := g.Apply(t.Context(), p, w); err != nil || id != 100 || fake.secret != webhookSecret {
		t.Fatalf("made %d, %v, with the secret %q", id, err, fake.secret)
	}
	// Again: nothing but the secret, which cannot be compared, to the same one.
	p, err = g.Plan(t.Context(), "acme/shop", w)
	if err != nil || p.ID != 100 || len(p.Changes) != 1 || p.Changes[0].Setting != "secret" {
		t.Fatalf("a second time: %+v, %v", p, err)
	}
	before, _ := json.Marshal(fake.hooks)
	if _, err := g.Apply(t.Context(), p, w); err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(fake.hooks); string(after) != string(before) {
		t.Errorf("it was changed from %s to %s", before, after)
	}
	// All that can be wrong with it. Somebody's own event stays.
	fake.hooks[0]["active"] = false
	fake.hooks[0]["events"] = []string{"issues", "push"}
	fake.hooks[0]["config"] = map[string]any{"url": "https://DEPLOY.example.com/hooks/github?token=old", "content_type": "form", "insecure_ssl": 1}
	fake.hooks = append(fake.hooks, map[string]any{"id": 7, "config": map[string]any{"url": "https://deploy.example.com/hooks/github/"}})
	p, err = g.Plan(t.Context(), "acme/shop", w)
	want := "[url: https://DEPLOY.example.com/hooks/github -> https://deploy.example.com/hooks/github content_type: form -> json events: issues, push -> issues, push, release " +
		"ssl_verification: no -> yes active: no -> yes secret:  -> set anew]"
	if err != nil || fmt.Sprint(p.Changes) != want || !slices.Equal(p.Others, []int64{7}) {
		t.Fatalf("got %v, others %v, %v\nwant %s", p.Changes, p.Others, err, want)
	}
	if _, err := g.Apply(t.Context(), p, w); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(fake.hooks[0])
	if want := `{"active":true,"config":{"content_type":"json","insecure_ssl":"0","secret":"********","url":"https://deploy.example.com/hooks/github?token=t0ken"},` +
		`"events":["issues","push","release"],"id":100,"name":"web"}`; string(got) != want {
		t.Errorf("it is now %s\nwant %s", got, want)
	}
}

func TestGitHubsRefusalsSayWhatTheTokenNeeds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status       int
		header, body string
		want         string
	}{
		{401, "", `{"message":"Bad credentials"}`, "has expired or was revoked"},
		{403, "X-OAuth-Scopes: repo", `{}`, "admin:repo_hook, a fine-grained one this repository and the permission Webhooks: read and write; it has the scopes repo"},
		{404, "", `{"message":"Not Found"}`, "or there is no such repository"},
		{403, "X-RateLimit-Remaining: 0", `{}`, "too often"},
		{429, "", `{}`, "too often"},
		{403, "X-GitHub-SSO: required; url=https://github.com/x", `{}`, "single sign-on"},
		{301, "Location: http://127.0.0.1:1/", `{}`, "has moved on GitHub"},
		{422, "", `{"message":"Validation Failed","errors":[{"message":"url is not reachable: https://deploy.example.com/hooks/github?token=t0ken"}, null, 7, "more"]}`,
			"GitHub answered 422: Validation Failed; url is not reachable: https://deploy.example.com/hooks/github more"},
		{500, "", "<html>", "GitHub answered 500: no reason is given"},
		{200, "", "<html>", "not what its API says"},
		{200, "", "[" + strings.Repeat(" ", githubAnswerMost) + "]", "over 4 MiB"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if name, value, ok := strings.Cut(tt.header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		}))
		_, err := (&GitHub{API: srv.URL, Token: githubToken}).Plan(t.Context(), "acme/shop", &Webhook{URL: "https://x/hooks/github"})
		srv.Close()
		if err == nil || !strings.HasPrefix(err.Error(), "reading the webhooks of acme/shop: ") || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "t0ken") || strings.Contains(err.Error(), githubToken) {
			t.Errorf("%d %s: %v, want %q", tt.status, tt.header, err, tt.want)
		}
	}
	_, err := (&GitHub{API: "http://127.0.0.1:1", Token: githubToken}).Plan(t.Context(), "acme/shop", &Webhook{})
	if err == nil || !strings.Contains(err.Error(), "GitHub cannot be asked: the connection was refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func FuzzWebhooksOfGitHub(f *testing.F) {
	f.Add(`[{"id":7,"active":true,"events":["push"],"config":{"url":"https://x/hooks/github","content_type":"json","insecure_ssl":"0"}}]`)
	f.Add(`[null,{"config":{"url":"%zz","insecure_ssl":{}},"events":["*"]}]`)
	f.Add(`{"message":"Not Found","errors":[{"message":"https://x?token=0123456789abcdef"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		w := &Webhook{URL: "https://x/hooks/github?token=0123456789abcdef", Events: []string{"push"}}
		var hooks []githubHook
		if json.Unmarshal([]byte(text), &hooks) == nil {
			p := planWebhook("acme/shop", hooks, w)
			if len(p.Changes) == 0 || p.ID == 0 && len(p.events) != 1 || !slices.Contains(p.events, "push") && !slices.Contains(p.events, "*") {
				t.Errorf("%s makes %+v", text, p)
			}
		}
		if said := (&GitHub{}).said([]byte(text)); len(said) > 300 || strings.ContainsAny(said, "\n\r") {
			t.Errorf("%q is no sentence", said)
		}
	})
}
