package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of what is said to a forge and read from it.
const (
	describeMost = 140     // characters; GitHub's
	forgeMost    = 1 << 20 // bytes of an answer
	describeLong = 255     // characters; GitLab's and Gitea's
)

// status sets commit statuses on a forge, and with an environment makes
// deployments on GitHub.
type status struct{ Deps }

func newStatus(d Deps) Sender { return status{d} }

// forgeCall is how a forge is spoken to.
type forgeCall struct {
	client *http.Client
	forge  string // github, gitlab, gitea or forgejo
	server string // of the API
	repo   string // owner/name
	token  string
}

func (s status) Send(ctx context.Context, m *Message) (Answer, error) {
	if m.Run == nil || m.Pipeline == nil {
		return Answer{Permanent: true}, errNoRun
	}
	if m.Run.Commit == "" {
		return Answer{Body: []byte("the commit is not known yet: nothing can be marked")}, nil
	}
	token, err := s.Secret(ctx, *m.Spec.Token)
	if err != nil {
		return Answer{}, err
	}
	_, repo, _ := strings.Cut(m.Pipeline.Repository, "/")
	// Whose server it is stands in the config: it may be a private one.
	f := &forgeCall{s.Client(true, ""), m.Spec.Forge, m.Spec.Server, repo, token}
	a, err := f.mark(ctx, m)
	if err == nil && m.Spec.Environment != "" {
		a, err = f.deployment(ctx, m)
	}
	a.Body = Hide(a.Body, token)
	return a, err
}

// mark sets the status of the run's commit.
//
// Source: GitHub REST API, "Create a commit status"; GitLab, "Commits API",
// "Set commit pipeline status"; Gitea API, "repoCreateStatus".
func (f *forgeCall) mark(ctx context.Context, m *Message) (Answer, error) {
	name := "deployhook/" + m.Run.Pipeline
	state := stateOn(f.forge, m.Run.State)
	if f.forge == "gitlab" {
		path := "/projects/" + url.PathEscape(f.repo) + "/statuses/" + m.Run.Commit
		body := map[string]string{"state": state, "name": name, "description": describe(m, describeLong)}
		if ref := m.Run.Ref; strings.HasPrefix(ref, "refs/") {
			body["ref"] = strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
		}
		put(body, "target_url", m.URL)
		a, _, err := f.call(ctx, http.MethodPost, path, body)
		if err != nil && a.Status == http.StatusBadRequest && bytes.Contains(a.Body, []byte("Cannot transition status")) {
			return Answer{Status: a.Status, Body: a.Body}, nil // it stands there already
		}
		return a, err
	}
	most := describeMost
	if f.forge != "github" {
		most = describeLong
	}
	body := map[string]string{"state": state, "context": name, "description": describe(m, most)}
	put(body, "target_url", m.URL)
	a, _, err := f.call(ctx, http.MethodPost, f.path("/statuses/"+m.Run.Commit), body)
	return a, err
}

// put sets a value that is there.
func put(body map[string]string, key, value string) {
	if value != "" {
		body[key] = value
	}
}

// path is that of the repository, on forges other than GitLab.
func (f *forgeCall) path(rest string) string {
	owner, name, _ := strings.Cut(f.repo, "/")
	return "/repos/" + url.PathEscape(owner) + "/" + url.PathEscape(name) + rest
}

// stateOn is a run's state in a forge's words. A skipped run is no mistake of
// its commit.
func stateOn(forge string, s deploy.State) string {
	if forge == "gitlab" {
		switch s {
		case deploy.Running:
			return "running"
		case deploy.Succeeded, deploy.Skipped:
			return "success"
		case deploy.Failed, deploy.Lost:
			return "failed"
		case deploy.Canceled:
			return "canceled"
		}
		return "pending"
	}
	switch s {
	case deploy.Succeeded, deploy.Skipped:
		return "success"
	case deploy.Failed:
		return "failure"
	case deploy.Lost, deploy.Canceled:
		return "error"
	}
	return "pending"
}

// describe is one line about a run.
func describe(m *Message, most int) string {
	s := m.Text
	if s == "" {
		switch m.Run.State {
		case deploy.Failed, deploy.Lost:
			s = failureOf(m)
		case deploy.Canceled, deploy.Skipped:
			s = causeOf(m.Run)
		default:
			s = waitingOf(m.Run)
		}
		run := fmt.Sprintf("Run %d", m.Run.ID)
		if s == "" {
			s = run + " " + string(m.Run.State)
		} else {
			s = run + ": " + s
		}
	}
	return cut(strings.Join(strings.Fields(printable(s)), " "), most)
}

// deploymentOn is a deployment of GitHub, as far as it is read.
type deploymentOn struct {
	ID      int64           `json:"id"`
	Payload json.RawMessage `json:"payload"` // a string where somebody else has made it
}

// run is the run that a deployment was made for; 0 = none of ours.
func (d *deploymentOn) run() int64 {
	var p struct {
		Run int64 `json:"deployhook_run"`
	}
	_ = json.Unmarshal(d.Payload, &p) // another's payload has any form
	return p.Run
}

// deployment makes or finds the run's deployment, gives it the run's state,
// and ends the ones before once it is live.
//
// Source: GitHub REST API, "Deployments" and "Deployment statuses".
func (f *forgeCall) deployment(ctx context.Context, m *Message) (Answer, error) {
	state, say := deploymentState(m.Run)
	query := url.Values{"environment": {m.Spec.Environment}, "sha": {m.Run.Commit}, "per_page": {"100"}}
	a, list, err := f.deployments(ctx, query)
	if err != nil {
		return a, err
	}
	var id int64
	for _, d := range list {
		if d.run() == m.Run.ID {
			id = d.ID
		}
	}
	if id == 0 && state == "inactive" {
		return a, nil // nothing was ever announced
	}
	if id == 0 {
		if a, id, err = f.deploy(ctx, m); err != nil {
			return a, err
		}
	}
	// Those before are ended by us, below: GitHub leaves those to a
	// production environment as they are.
	body := map[string]any{"state": state, "description": cut(say, describeMost), "auto_inactive": false}
	if m.URL != "" {
		body["log_url"] = m.URL
	}
	a, _, err = f.call(ctx, http.MethodPost, f.path(fmt.Sprintf("/deployments/%d/statuses", id)), body)
	if err != nil || state != "success" {
		return a, err
	}
	if b, err := f.endOthers(ctx, m.Spec.Environment, id); err != nil {
		return b, err
	}
	return a, nil
}

// deploymentState is a run's state in words of deployments; one whose deploy
// job never began ends as inactive: nothing was deployed.
func deploymentState(r *deploy.Run) (state, say string) {
	begun := false
	for _, j := range r.Jobs {
		begun = begun || j.Deploys && j.Begun
	}
	say = fmt.Sprintf("Run %d %s", r.ID, r.State)
	switch {
	case !begun && r.State.Terminal():
		return "inactive", say
	case !begun:
		return "queued", say
	}
	switch r.State {
	case deploy.Succeeded:
		return "success", say
	case deploy.Failed:
		return "failure", say
	case deploy.Lost, deploy.Canceled, deploy.Skipped:
		return "error", say
	}
	return "in_progress", say
}

// deploy makes a deployment. Without auto_merge and required_contexts GitHub
// might merge the default branch into it, or refuse it for another's check.
func (f *forgeCall) deploy(ctx context.Context, m *Message) (Answer, int64, error) {
	body := map[string]any{
		"ref": m.Run.Commit, "environment": m.Spec.Environment, "auto_merge": false, "required_contexts": []string{},
		"description": fmt.Sprintf("Run %d of %s", m.Run.ID, m.Run.Pipeline), "payload": map[string]any{"deployhook_run": m.Run.ID},
	}
	a, answer, err := f.call(ctx, http.MethodPost, f.path("/deployments"), body)
	if err != nil {
		return a, 0, err
	}
	var made deploymentOn
	if err := json.Unmarshal(answer, &made); err != nil || made.ID == 0 {
		return a, 0, fmt.Errorf("%s answered %d to a new deployment, and gave it no id", f.place(), a.Status)
	}
	return a, made.ID, nil
}

// othersMost is how many earlier deployments are looked at: the one before is
// among the newest.
const othersMost = 10

// endOthers makes the earlier deployments to an environment inactive that are
// shown as live.
func (f *forgeCall) endOthers(ctx context.Context, environment string, live int64) (Answer, error) {
	a, list, err := f.deployments(ctx, url.Values{"environment": {environment}, "per_page": {strconv.Itoa(othersMost)}})
	if err != nil {
		return a, err
	}
	for _, d := range list {
		if d.ID >= live { // a newer one is not ended by an older one's message
			continue
		}
		path := f.path(fmt.Sprintf("/deployments/%d/statuses", d.ID))
		a, answer, err := f.call(ctx, http.MethodGet, path+"?per_page=1", nil)
		if err != nil {
			return a, err
		}
		var states []struct {
			State string `json:"state"`
		}
		if json.Unmarshal(answer, &states) != nil || len(states) == 0 || states[0].State != "success" {
			continue
		}
		if a, _, err := f.call(ctx, http.MethodPost, path, map[string]any{"state": "inactive"}); err != nil {
			return a, err
		}
	}
	return a, nil
}

// deployments lists some, newest first.
func (f *forgeCall) deployments(ctx context.Context, query url.Values) (Answer, []deploymentOn, error) {
	a, answer, err := f.call(ctx, http.MethodGet, f.path("/deployments")+"?"+query.Encode(), nil)
	if err != nil {
		return a, nil, err
	}
	var list []deploymentOn
	if err := json.Unmarshal(answer, &list); err != nil {
		return a, nil, fmt.Errorf("%s gave a list of deployments that cannot be read", f.place())
	}
	return a, list, nil
}

// place is the server as messages have it.
func (f *forgeCall) place() string {
	if u, err := url.Parse(f.server); err == nil {
		return u.Scheme + "://" + u.Host
	}
	return f.forge
}

// call asks a forge something and gives its answer, whole where it is a good
// one. The token goes to no other place: redirects are not followed.
func (f *forgeCall) call(ctx context.Context, method, path string, body any) (Answer, []byte, error) {
	var content io.Reader
	if body != nil {
		b, err := marshal(body)
		if err != nil {
			return Answer{Permanent: true}, nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.server+path, content)
	if err != nil {
		return Answer{Permanent: true}, nil, errNoAddress
	}
	req.Header.Set("User-Agent", UserAgent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch f.forge {
	case "github":
		req.Header.Set("Accept", "application/vnd.github+json")
		req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
		req.Header.Set("Authorization", "Bearer "+f.token)
	case "gitlab":
		req.Header.Set("PRIVATE-TOKEN", f.token)
	default:
		req.Header.Set("Authorization", "token "+f.token)
	}
	res, err := f.client.Do(req)
	if err != nil {
		return Answer{}, nil, fmt.Errorf("%s: %w", f.place(), reason(err, req.URL))
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, forgeMost))
	if err != nil {
		return Answer{Status: res.StatusCode}, nil, fmt.Errorf("%s: %w", f.place(), reason(err, req.URL))
	}
	a := Answer{Status: res.StatusCode, Body: Hide(answer[:min(len(answer), AnswerMost)], f.token), RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		return a, answer, nil
	}
	err = f.refusal(&a, res.Header)
	return a, nil, err
}

// refusal says what an answer means, and what to do.
func (f *forgeCall) refusal(a *Answer, h http.Header) error {
	to := fmt.Sprintf("%s answered %d", f.place(), a.Status)
	limited := a.RetryAfter > 0 || h.Get("X-Ratelimit-Remaining") == "0"
	if (a.Status == http.StatusForbidden || a.Status == http.StatusTooManyRequests) && limited {
		if at, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil && a.RetryAfter == 0 {
			a.RetryAfter = min(max(time.Until(time.Unix(at, 0)), 0), retryMost)
		}
		return fmt.Errorf("%s: too many requests with this token", to)
	}
	switch a.Status {
	case http.StatusUnauthorized:
		a.Permanent = true
		return fmt.Errorf("%s: the token is wrong, or has expired; make another that may %s", to, f.scope())
	case http.StatusForbidden:
		a.Permanent = true
		return fmt.Errorf("%s: the token may not do this in %s; it must be one that may %s", to, f.repo, f.scope())
	case http.StatusNotFound:
		a.Permanent = true
		return fmt.Errorf("%s: %s or the commit is not there for this token; it must be one of that repository that may %s", to, f.repo, f.scope())
	case http.StatusConflict, http.StatusUnprocessableEntity, http.StatusBadRequest:
		a.Permanent = true
		return fmt.Errorf("%s: it does not take this for %s: %s", to, f.repo, f.said(a.Body))
	}
	if a.Status >= 300 && a.Status <= 399 {
		a.Permanent = true
		return fmt.Errorf("%s: %s has moved, and a token is not sent after it; write its new name in repository", to, f.repo)
	}
	return errors.New(to)
}

// said is a forge's own sentence.
func (f *forgeCall) said(body []byte) string {
	var said struct {
		Message json.RawMessage `json:"message"` // GitLab's may be an object
	}
	text := string(body)
	if json.Unmarshal(body, &said) == nil && len(said.Message) > 0 {
		if text = string(said.Message); text[0] == '"' {
			_ = json.Unmarshal(said.Message, &text)
		}
	}
	if text = oneLine(text); text == "" {
		return "no reason is given"
	}
	return text
}

// scope is what a token must be allowed.
func (f *forgeCall) scope() string {
	switch f.forge {
	case "github":
		return "write commit statuses (fine-grained: Commit statuses, and for an environment Deployments, read and write; classic: repo:status and repo_deployment)"
	case "gitlab":
		return "use the API (scope api, role Developer)"
	}
	return "write to the repository (scope write:repository)"
}
