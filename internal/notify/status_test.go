package notify

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

const forgeToken = "ghp_a-secret-token-of-the-forge"

// statusMessage is about a run with a commit on a forge.
func statusMessage(forge, server string, state deploy.State) *Message {
	m := failedMessage(&deploy.Notify{Kind: deploy.NotifyStatus, Forge: forge, Server: server, Token: secretOf(forgeToken)})
	m.Run.State, m.Change = state, deploy.Change(state)
	m.Target = "shop/status"
	return m
}

func TestForgesSeeCommitStatuses(t *testing.T) {
	t.Parallel()
	s := serve(t, func(r received, w http.ResponseWriter) {
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"id":1}`)
	})
	const sha = "3f2c1ab0c9e1d5f7a8b6c4d2e0f1a3b5c7d9e1f3"
	failed := `"Run 42: job deploy on web-1: step migrate: exit status 1"`
	for _, tt := range []struct {
		forge      string
		state      deploy.State
		path, body string
		auth       string // the header that has the token
	}{
		{"github", deploy.Failed, "/repos/acme/shop/statuses/" + sha, `{"context":"deployhook/shop","description":` + failed + `,"state":"failure","target_url":"https://ci.example.com/runs/42"}`, "Authorization"},
		{"github", deploy.Queued, "/repos/acme/shop/statuses/" + sha, `{"context":"deployhook/shop","description":"Run 42 queued","state":"pending","target_url":"https://ci.example.com/runs/42"}`, "Authorization"},
		{"gitea", deploy.Succeeded, "/repos/acme/shop/statuses/" + sha, `{"context":"deployhook/shop","description":"Run 42 succeeded","state":"success","target_url":"https://ci.example.com/runs/42"}`, "Authorization"},
		{"forgejo", deploy.Lost, "/repos/acme/shop/statuses/" + sha, `{"context":"deployhook/shop","description":` + failed + `,"state":"error","target_url":"https://ci.example.com/runs/42"}`, "Authorization"},
		{"gitlab", deploy.Running, "/projects/acme%2Fshop/statuses/" + sha, `{"description":"Run 42 running","name":"deployhook/shop","ref":"main","state":"running","target_url":"https://ci.example.com/runs/42"}`, "Private-Token"},
		{"gitlab", deploy.Canceled, "/projects/acme%2Fshop/statuses/" + sha, `{"description":"Run 42 canceled","name":"deployhook/shop","ref":"main","state":"canceled","target_url":"https://ci.example.com/runs/42"}`, "Private-Token"},
	} {
		a, err := newStatus(deps(t)).Send(t.Context(), statusMessage(tt.forge, s.URL, tt.state))
		if err != nil || a.Status != http.StatusCreated {
			t.Errorf("%s %s: %+v, %v", tt.forge, tt.state, a, err)
		}
		got, _ := s.last()
		if got.method != "POST" || got.path != tt.path || got.body != tt.body || !strings.HasSuffix(got.header.Get(tt.auth), forgeToken) {
			t.Errorf("%s %s: %s %s %s\nwant %s %s", tt.forge, tt.state, got.method, got.path, got.body, tt.path, tt.body)
		}
	}
}

func TestEveryStateHasItsWordOnEveryForge(t *testing.T) {
	want := map[deploy.State][2]string{
		deploy.Queued: {"pending", "pending"}, deploy.Waiting: {"pending", "pending"}, deploy.Running: {"pending", "running"},
		deploy.Succeeded: {"success", "success"}, deploy.Skipped: {"success", "success"}, deploy.Failed: {"failure", "failed"},
		deploy.Lost: {"error", "failed"}, deploy.Canceled: {"error", "canceled"},
	}
	for state, words := range want {
		if a, b := stateOn("github", state), stateOn("gitlab", state); a != words[0] || b != words[1] {
			t.Errorf("%s: %s and %s, want %v", state, a, b, words)
		}
	}
}

func TestDescriptionsFitIntoOneLine(t *testing.T) {
	m := statusMessage("github", "", deploy.Failed)
	m.Run.Jobs[1].HostRuns[0].Steps[0].Error = strings.Repeat("a long\nstory 😀 ", 40)
	if s := describe(m, describeMost); utf8.RuneCountInString(s) > 140 || strings.Contains(s, "\n") || !strings.HasSuffix(s, "…") {
		t.Errorf("%d characters: %s", utf8.RuneCountInString(s), s)
	}
	m.Text = "Deployed\n by ${{"
	if s := describe(m, describeMost); s != "Deployed by ${{" {
		t.Errorf("%q", s)
	}
}

func TestForgesThatRefuseSayWhatToDo(t *testing.T) {
	t.Parallel()
	reset := fmt.Sprint(time.Now().Add(20 * time.Minute).Unix())
	for _, tt := range []struct {
		forge     string
		status    int
		header    map[string]string
		body      string
		want      string // empty = as good as done
		permanent bool
		wait      time.Duration // at least
	}{
		{"github", 401, nil, `{"message":"Bad credentials"}`, "answered 401: the token is wrong, or has expired; make another that may write commit statuses (fine-grained: Commit statuses", true, 0},
		{"github", 403, nil, `{"message":"Resource not accessible by personal access token"}`, "answered 403: the token may not do this in acme/shop; it must be one that may write commit statuses", true, 0},
		{"github", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}, `{"message":"API rate limit exceeded"}`, "answered 403: too many requests with this token", false, 10 * time.Minute},
		{"github", 403, map[string]string{"Retry-After": "60"}, `{"message":"You have exceeded a secondary rate limit"}`, "answered 403: too many requests with this token", false, time.Minute},
		{"github", 404, nil, `{"message":"Not Found"}`, "answered 404: acme/shop or the commit is not there for this token", true, 0},
		{"github", 422, nil, `{"message":"No commit found for SHA: 3f2c"}`, "answered 422: it does not take this for acme/shop: No commit found for SHA: 3f2c", true, 0},
		{"github", 301, map[string]string{"Location": "/elsewhere"}, "", "answered 301: acme/shop has moved, and a token is not sent after it", true, 0},
		{"github", 502, nil, "<html>", "answered 502", false, 0},
		{"gitea", 403, nil, `{"message":"token does not have at least one of required scope(s)"}`, "it must be one that may write to the repository (scope write:repository)", true, 0},
		{"gitlab", 401, nil, `{"message":"401 Unauthorized"}`, "make another that may use the API (scope api, role Developer)", true, 0},
		{"gitlab", 400, nil, `{"message":{"target_url":["is blocked"]}}`, `it does not take this for acme/shop: {"target_url":["is blocked"]}`, true, 0},
		{"gitlab", 400, nil, `{"message":"Cannot transition status via :run from :running (Reason(s): Status cannot transition via \"run\")"}`, "", false, 0},
		{"github", 422, nil, "no JSON of " + forgeToken + "\x1b[31m", "it does not take this for acme/shop: no JSON of ***", true, 0},
	} {
		s := serve(t, func(r received, w http.ResponseWriter) {
			for k, v := range tt.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		})
		a, err := newStatus(deps(t)).Send(t.Context(), statusMessage(tt.forge, s.URL, deploy.Running))
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s %d: %v", tt.forge, tt.status, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), s.URL+" ") || !strings.Contains(err.Error(), tt.want) || a.Permanent != tt.permanent || a.RetryAfter < tt.wait || a.Status != tt.status {
			t.Errorf("%s %d: %+v, %v\nwant %s", tt.forge, tt.status, a, err, tt.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") || strings.Contains(string(a.Body), forgeToken) {
			t.Errorf("%s %d: %q, %s", tt.forge, tt.status, err, a.Body)
		}
	}
}

// github keeps deployments as GitHub does.
type github struct {
	deployments []map[string]any   // oldest first
	states      map[int64][]string // by deployment, newest first
}

func (g *github) answer(t *testing.T, r received, w http.ResponseWriter) {
	path, query, _ := strings.Cut(r.path, "?")
	rest, ok := strings.CutPrefix(path, "/repos/acme/shop/")
	var body map[string]any
	if r.body != "" {
		if err := json.Unmarshal([]byte(r.body), &body); err != nil {
			t.Errorf("%v in %s", err, r.body)
		}
	}
	reply := func(status int, v any) {
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	var id int64
	n, _ := fmt.Sscanf(rest, "deployments/%d/statuses", &id)
	switch {
	case !ok:
		reply(404, map[string]string{"message": "Not Found"})
	case strings.HasPrefix(rest, "statuses/"):
		reply(201, map[string]any{"id": 1})
	case rest == "deployments" && r.method == "GET":
		list := []map[string]any{}
		for i := len(g.deployments) - 1; i >= 0; i-- {
			d := g.deployments[i]
			if strings.Contains(query, "environment="+d["environment"].(string)) && (!strings.Contains(query, "sha=") || strings.Contains(query, "sha="+d["ref"].(string))) {
				list = append(list, d)
			}
		}
		reply(200, list)
	case rest == "deployments":
		if body["auto_merge"] != false || len(body["required_contexts"].([]any)) != 0 {
			reply(409, map[string]string{"message": "Auto-merged main into topic"})
			return
		}
		body["id"] = int64(100 + len(g.deployments))
		g.deployments = append(g.deployments, body)
		reply(201, body)
	case n == 1 && r.method == "GET":
		list := []map[string]string{}
		for _, s := range g.states[id] {
			list = append(list, map[string]string{"state": s})
		}
		reply(200, list)
	case n == 1:
		g.states[id] = append([]string{body["state"].(string)}, g.states[id]...)
		reply(201, map[string]any{"id": 1})
	default:
		reply(404, map[string]string{"message": "Not Found"})
	}
}

func TestGitHubSeesDeploymentsOfDeployJobs(t *testing.T) {
	t.Parallel()
	g := &github{states: map[int64][]string{}}
	// Somebody else's, with a payload of another form.
	g.deployments = []map[string]any{{"id": int64(100), "environment": "production", "ref": "old", "payload": ""}}
	g.states[100] = []string{"success", "in_progress"}
	s := serve(t, func(r received, w http.ResponseWriter) { g.answer(t, r, w) })
	d := deps(t)
	send := func(run int64, state deploy.State, begun bool) {
		t.Helper()
		m := statusMessage("github", s.URL, state)
		m.Spec.Environment, m.Run.ID = "production", run
		m.Run.Jobs[1].Begun = begun
		if a, err := newStatus(d).Send(t.Context(), m); err != nil {
			t.Fatalf("run %d %s: %+v, %v", run, state, a, err)
		}
	}
	states := func(id int64) string { return strings.Join(g.states[id], " ") }

	send(42, deploy.Queued, false)
	send(42, deploy.Running, false)
	send(42, deploy.Running, true)
	send(42, deploy.Running, true) // tried again
	send(42, deploy.Succeeded, true)
	if len(g.deployments) != 2 || states(101) != "success in_progress in_progress queued queued" || states(100) != "inactive success in_progress" {
		t.Errorf("%d deployments; %q, the one before %q", len(g.deployments), states(101), states(100))
	}
	made := g.deployments[1]
	if made["environment"] != "production" || made["ref"] != "3f2c1ab0c9e1d5f7a8b6c4d2e0f1a3b5c7d9e1f3" || made["description"] != "Run 42 of shop" {
		t.Errorf("deployment %v", made)
	}

	send(43, deploy.Running, true) // the same commit again
	send(43, deploy.Failed, true)
	if len(g.deployments) != 3 || states(102) != "failure in_progress" || g.states[101][0] != "success" {
		t.Errorf("after a failed one: %d deployments; %q, the one before %q", len(g.deployments), states(102), states(101))
	}
	send(44, deploy.Failed, false) // its test job failed
	if len(g.deployments) != 3 {
		t.Errorf("a run whose deploy job never began has a deployment: %v", g.deployments)
	}
	send(46, deploy.Queued, false)
	send(46, deploy.Failed, false)
	if len(g.deployments) != 4 || states(103) != "inactive queued" {
		t.Errorf("a run that was announced and never began: %d deployments, %q", len(g.deployments), states(103))
	}
	send(45, deploy.Succeeded, true)
	if states(104) != "success" || g.states[101][0] != "inactive" || g.states[102][0] != "failure" {
		t.Errorf("after another: %q, before %q and %q", states(104), states(101), states(102))
	}
	send(42, deploy.Succeeded, true) // a late one of an older run ends none that is newer
	if g.states[104][0] != "success" {
		t.Errorf("a late message ended a newer deployment: %q", states(104))
	}
}

func TestRunWithoutACommitMarksNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, func(r received, w http.ResponseWriter) { w.WriteHeader(500) })
	m := statusMessage("github", s.URL, deploy.Queued)
	m.Run.Commit = ""
	if a, err := newStatus(deps(t)).Send(t.Context(), m); err != nil {
		t.Errorf("%+v, %v", a, err)
	}
	if _, n := s.last(); n != 0 {
		t.Errorf("%d requests", n)
	}
}
