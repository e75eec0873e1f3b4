package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// said is an answer of the API.
type said struct {
	status int
	header http.Header
	body   string
}

func (a said) run(t *testing.T) int64 {
	t.Helper()
	var v struct{ Run int64 }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Run == 0 {
		t.Fatalf("%d %s names no run", a.status, a.body)
	}
	return v.Run
}

// api sends a request with a token; pairs are names and values of headers.
func (s *site) api(method, path, token, body string, pairs ...string) said {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(pairs); i += 2 {
		req.Header.Add(pairs[i], pairs[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		s.t.Errorf("%s %s was answered as %q: %s", method, path, got, b)
	}
	return said{res.StatusCode, res.Header, string(b)}
}

// token makes a token.
func (s *site) token(q web.TokenCommand) string {
	s.t.Helper()
	t, err := s.client.CreateToken(s.t.Context(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	return t.Value
}

// apiConfig has a pipeline with inputs and two without a repository.
func (s *site) apiConfig() string {
	return s.config("") + `
  course:
    on: { manual: { inputs: { name: { required: true }, copies: { type: number, default: 1 }, sure: { type: boolean, default: false } } } }
    jobs:
      enable:
        env: { NAME: "${{ inputs.name }}", COPIES: "${{ inputs.copies }}", SURE: "${{ inputs.sure }}" }
        steps: [ { run: 'printf "%s,%s,%s,%s,%s\n" "$NAME" "$COPIES" "$SURE" "$DEPLOYHOOK_EVENT" "$DEPLOYHOOK_ACTOR" >> ` + s.path("courses") + `' } ]
  other:
    on: { manual: }
    jobs: { test: { steps: [ { run: "true" } ] } }
`
}

func TestTokenStartsAndReadsRunsOfItsPipelines(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.apiConfig())
	all := []deploy.Action{deploy.ActionRun, deploy.ActionRead}
	course := s.token(web.TokenCommand{Name: "platform", Actions: all, Pipelines: []string{"course"}})
	whole := s.token(web.TokenCommand{Name: "whole", Actions: all})
	if !strings.HasPrefix(course, "dh_") || len(course) != 46 || course == whole {
		t.Errorf("the tokens are %q and %q", course, whole)
	}

	a := s.api("POST", "/api/pipelines/course/runs", course, `{"inputs": {"name": "go; touch pwned", "copies": 2, "sure": true}}`)
	if id := a.run(t); a.status != 202 || a.header.Get("Location") != fmt.Sprintf("/api/runs/%d", id) {
		t.Errorf("a start was answered %+v", a)
	}
	r := s.want(a.run(t), "succeeded")
	if b, err := os.ReadFile(s.path("courses")); err != nil || string(b) != "go; touch pwned,2,true,manual,token platform\n" {
		t.Errorf("the run did %q, %v", b, err)
	}
	if r.Event != "manual" || text(r.Actor) != "token platform" {
		t.Errorf("the run is %+v", r)
	}

	// What the API gives of a run is what run --json prints.
	one := s.api("GET", a.header.Get("Location"), course, "")
	list := s.api("GET", "/api/pipelines/course/runs?limit=1", course, "")
	want, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if one.status != 200 || strings.TrimSpace(one.body) != string(want) {
		t.Errorf("the run is\n%s\nwant\n%s", one.body, want)
	}
	if list.status != 200 || strings.TrimSpace(list.body) != "["+string(want)+"]" || list.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the list is %+v", list)
	}

	// A commit, with a token for all.
	commit := s.commit("one")
	id := s.api("POST", "/api/pipelines/shop/runs", whole, `{"sha": "`+commit+`"}`).run(t)
	if r := s.want(id, "succeeded"); text(r.Commit) != commit {
		t.Errorf("the commit is %v, want %s", r.Commit, commit)
	}
	s.wantLive("one")
	commit = s.commit("two")
	id = s.api("POST", "/api/pipelines/shop/runs", whole, `{"branch": "main"}`).run(t)
	if r := s.want(id, "succeeded"); text(r.Commit) != commit {
		t.Errorf("the commit of main is %v, want %s", r.Commit, commit)
	}
	// A run of another pipeline is as if it were not there.
	there, gone := s.api("GET", fmt.Sprintf("/api/runs/%d", id), course, ""), s.api("GET", "/api/runs/99", course, "")
	if there.status != 404 || there.body != strings.Replace(gone.body, "99", fmt.Sprint(id), 1) {
		t.Errorf("a run of another pipeline gives %+v, and none %+v", there, gone)
	}

	tokens, err := s.client.Tokens(t.Context())
	if err != nil || len(tokens) != 2 || tokens[1].Name != "platform" || tokens[1].Used.IsZero() {
		t.Errorf("the tokens are %+v, %v", tokens, err)
	}
	// The values are nowhere: not in the log, not in the data directory.
	if strings.Contains(s.log.String(), course) {
		t.Error("the log has a token")
	}
	err = filepath.WalkDir(s.path("data"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(course)) || bytes.Contains(b, []byte(strings.TrimPrefix(whole, web.TokenPrefix))) {
			t.Errorf("%s has a token", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWhoHasNoRightTokenLearnsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config := strings.Replace(s.apiConfig(), "shutdown_grace: 2s", "shutdown_grace: 2s, trusted_proxies: [127.0.0.0/8]", 1)
	s.start(config)
	course := s.token(web.TokenCommand{Name: "course", Actions: []deploy.Action{deploy.ActionRun}, Pipelines: []string{"course"}})
	reader := s.token(web.TokenCommand{Name: "reader", Actions: []deploy.Action{deploy.ActionRead}})
	whole := s.token(web.TokenCommand{Name: "whole", Actions: []deploy.Action{deploy.ActionRun, deploy.ActionRead}})
	const input = `{"inputs": {"name": "go"}}`
	for what, tt := range map[string]struct {
		got    said
		status int
		text   string
	}{
		"no token":           {s.api("POST", "/api/pipelines/course/runs", "", input), 401, "no token: send the header Authorization: Bearer"},
		"no token, read":     {s.api("GET", "/api/runs/1", "", ""), 401, "no token"},
		"wrong token":        {s.api("POST", "/api/pipelines/course/runs", course+"x", input), 401, "wrong token"},
		"token in address":   {s.api("POST", "/api/pipelines/course/runs?token="+course, "", input), 401, "no token"},
		"basic":              {s.api("POST", "/api/pipelines/course/runs", "", input, "Authorization", "Basic "+course), 401, "with the word Bearer"},
		"two tokens":         {s.api("POST", "/api/pipelines/course/runs", course, input, "Authorization", "Bearer "+course), 401, "one header Authorization"},
		"empty token":        {s.api("POST", "/api/pipelines/course/runs", "", input, "Authorization", "Bearer "), 401, "wrong token"},
		"another pipeline":   {s.api("POST", "/api/pipelines/shop/runs", course, "{}"), 403, "this token is not for that"},
		"pipeline not there": {s.api("POST", "/api/pipelines/nothing/runs", course, "{}"), 403, "this token is not for that"},
		"another action":     {s.api("GET", "/api/pipelines/course/runs", course, ""), 403, "this token is not for that"},
		"reader starts":      {s.api("POST", "/api/pipelines/course/runs", reader, input), 403, "this token is not for that"},
		"all, not there":     {s.api("POST", "/api/pipelines/nothing/runs", whole, "{}"), 404, "no such pipeline"},
		"read, not there":    {s.api("GET", "/api/pipelines/nothing/runs", whole, ""), 404, "no such pipeline"},
		"run not there":      {s.api("GET", "/api/runs/99", whole, ""), 404, "no run 99"},
		"number":             {s.api("GET", "/api/runs/x", whole, ""), 400, `\"x\" is not a number`},
		"no route":           {s.api("GET", "/api/secrets", whole, ""), 404, "no such address"},
		"no JSON":            {s.api("POST", "/api/pipelines/course/runs", whole, "{"), 400, "reading the body"},
		"empty":              {s.api("POST", "/api/pipelines/course/runs", whole, "", "Content-Type", "application/json"), 400, "the body is empty"},
		"form":               {s.api("POST", "/api/pipelines/course/runs", whole, "", "Content-Type", "application/x-www-form-urlencoded"), 415, "the body is JSON"},
		"more keys":          {s.api("POST", "/api/pipelines/course/runs", whole, `{"force": true}`), 400, `unknown field \"force\"`},
		"two bodies":         {s.api("POST", "/api/pipelines/course/runs", whole, `{}{}`), 400, "something follows"},
		"input of objects":   {s.api("POST", "/api/pipelines/course/runs", whole, `{"inputs": {"name": {}}}`), 400, "an input is a string, a number or true or false"},
		"unknown input":      {s.api("POST", "/api/pipelines/course/runs", whole, `{"inputs": {"nam": "x", "name": "y"}}`), 400, `course declares no input \"nam\"`},
		"missing input":      {s.api("POST", "/api/pipelines/course/runs", whole, `{}`), 400, "input name of course is missing"},
		"wrong type":         {s.api("POST", "/api/pipelines/course/runs", whole, `{"inputs": {"name": "x", "copies": "many"}}`), 400, "input copies"},
		"short commit":       {s.api("POST", "/api/pipelines/shop/runs", whole, `{"sha": "abc"}`), 400, "sha is a whole commit"},
		"both":               {s.api("POST", "/api/pipelines/shop/runs", whole, `{"sha": "`+strings.Repeat("a", 40)+`", "branch": "main"}`), 400, "do not go together"},
		"branch of a screen": {s.api("POST", "/api/pipelines/shop/runs", whole, `{"branch": "\u001b[2J"}`), 400, "branch is no name"},
		"no repository":      {s.api("POST", "/api/pipelines/course/runs", whole, `{"branch": "main", "inputs": {"name": "x"}}`), 400, "course has no repository"},
		"large":              {s.api("POST", "/api/pipelines/course/runs", whole, `{"inputs": {"name": "`+strings.Repeat("x", 256<<10)+`"}}`), 413, "the body is over 256 KiB"},
		"long key":           {s.api("POST", "/api/pipelines/course/runs", whole, input, "Idempotency-Key", strings.Repeat("k", 257)), 400, "Idempotency-Key is sent once"},
	} {
		if tt.got.status != tt.status || !strings.Contains(tt.got.body, tt.text) {
			t.Errorf("%s: %d %s, want %d with %q", what, tt.got.status, tt.got.body, tt.status, tt.text)
		}
		if strings.Contains(tt.got.body, "dh_") || tt.status != 400 && tt.status != 403 && strings.Contains(tt.got.body, "course") {
			t.Errorf("%s: %s tells too much", what, tt.got.body)
		}
		if (tt.status == 401) != strings.HasPrefix(tt.got.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: WWW-Authenticate is %q", what, tt.got.header.Get("WWW-Authenticate"))
		}
	}
	if runs, err := s.client.Runs(t.Context(), web.Query{}); err != nil || len(runs) != 0 {
		t.Errorf("there are %d runs, %v", len(runs), err)
	}

	// Who guesses is stopped, by the address, together with the hooks'; a right
	// token is not.
	forwarded := []string{"X-Forwarded-For", "203.0.113.7"}
	last := said{}
	for range 61 {
		last = s.api("POST", "/api/pipelines/course/runs", "dh_guess", input, forwarded...)
	}
	if last.status != 429 || last.header.Get("Retry-After") != "60" {
		t.Errorf("the 61st guess was answered %+v", last)
	}
	if got := s.api("POST", "/api/pipelines/course/runs", "dh_guess", input, "X-Forwarded-For", "203.0.113.8"); got.status != 401 {
		t.Errorf("another address was answered %+v", got)
	}
	if got := s.api("POST", "/api/pipelines/course/runs", course, input, forwarded...); got.status != 202 {
		t.Errorf("the right token was answered %+v", got)
	}
	if log := s.log.String(); strings.Contains(log, "dh_") || !strings.Contains(log, "from=203.0.113.7") {
		t.Error("the log has a token, or not who guessed")
	}
}

func TestRevokedAndExpiredTokensCountNoMoreAndRequestsAreKnown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.apiConfig())
	q := web.TokenCommand{Name: "ci", Actions: []deploy.Action{deploy.ActionRun}, Pipelines: []string{"course"}}
	token := s.token(q)
	start := func(token, key, body string) said {
		return s.api("POST", "/api/pipelines/course/runs", token, body, "Idempotency-Key", key)
	}
	const body = `{"inputs": {"name": "go"}}`
	// Sent side by side, and again: one run.
	answers := make([]said, 8)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = start(token, "payment-1", body) })
	}
	all.Wait()
	first := answers[0].run(t)
	for _, a := range answers {
		if a.run(t) != first || a.status != 202 && a.status != 200 {
			t.Errorf("the same request was answered %+v, and first run %d", a, first)
		}
	}
	s.want(first, "succeeded")

	// Also after a kill, and for a retry that the caller makes then.
	_ = s.cmd.Process.Kill()
	s.died()
	s.start(s.apiConfig())
	if again := start(token, "payment-1", body); again.status != 200 || again.run(t) != first || !strings.Contains(again.body, "this request is known") {
		t.Errorf("after a kill the same request was answered %+v", again)
	}
	if other := start(token, "payment-1", `{"inputs": {"name": "rust"}}`); other.status != 409 || !strings.Contains(other.body, "Idempotency-Key came before") {
		t.Errorf("the same key with another body was answered %+v", other)
	}
	second := start(token, "payment-2", body).run(t)
	s.want(second, "succeeded")
	if b, _ := os.ReadFile(s.path("courses")); strings.Count(string(b), "\n") != 2 {
		t.Errorf("the runs did %q", b)
	}

	_, err := s.client.CreateToken(t.Context(), q)
	refusal(t, err, "there is a token ci already")
	if _, err := s.client.RevokeToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if got := start(token, "payment-3", body); got.status != 401 {
		t.Errorf("a revoked token was answered %+v", got)
	}
	_, err = s.client.RevokeToken(t.Context(), "ci")
	refusal(t, err, `no token "ci" that is not revoked`)
	// The name is free again; keys of another token are its own.
	if got := start(s.token(q), "payment-1", body); got.status != 202 || got.run(t) == first {
		t.Errorf("the new token was answered %+v", got)
	}
	q.Name, q.Expires = "short", 1
	short := s.token(q)
	s.until("the token has expired", func() bool { return start(short, "payment-1", body).status == 401 })
}
