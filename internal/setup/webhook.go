package setup

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// Bounds of talking to GitHub.
const (
	githubTime       = 20 * time.Second // for one answer
	githubAnswerMost = 4 << 20          // bytes of one answer
	githubPage       = 100              // webhooks of a page, GitHub's cap
	githubPages      = 5                // pages: GitHub has at most 20 webhooks an event
)

// GitHub is the API of one GitHub, as one token sees it.
type GitHub struct {
	API   string // address without a slash at its end: see [GitHubAPI]
	Token string
}

// GitHubAPI is where the API of a GitHub is served: of github.com at a name of
// its own, of an Enterprise Server below its host.
//
// Source: GitHub docs, "REST API endpoints for Enterprise Server".
func GitHubAPI(host string) string {
	if host == "github.com" {
		return "https://api.github.com"
	}
	return "https://" + host + "/api/v3"
}

// Webhook is what a webhook of a repository is to be.
type Webhook struct {
	URL    string // with the token in it, where the hook has one
	Secret string
	Events []string
}

// Address is the webhook's URL as it may be shown: its query may hold a token.
func (w *Webhook) Address() string {
	address, _, _ := strings.Cut(w.URL, "?")
	return address
}

// Change is one setting of a webhook that is not as it is to be.
type Change struct {
	Setting string `json:"setting"`
	Have    string `json:"have"` // empty = nothing, or nobody can know
	Want    string `json:"want"` // never a secret
}

// WebhookPlan is what is to be done about a webhook.
type WebhookPlan struct {
	Repository string   `json:"repository"` // OWNER/REPO
	Address    string   `json:"address"`    // where the webhook goes, without its query
	ID         int64    `json:"id"`         // GitHub's number; 0 = it is not there yet
	Changes    []Change `json:"changes"`
	Others     []int64  `json:"others"` // more webhooks that go to the same address
	events     []string `json:"-"`
}

// githubHook is what GitHub says of a webhook, as far as it is read.
//
// Source: GitHub REST API, "Repository webhooks".
type githubHook struct {
	ID     int64    `json:"id"`
	Active bool     `json:"active"`
	Events []string `json:"events"`
	Config struct {
		URL         string `json:"url"`
		ContentType string `json:"content_type"`
		Insecure    any    `json:"insecure_ssl"` // "0", "1" or a number
	} `json:"config"`
}

// Plan says what is to be done so that a repository has the webhook w. It is
// found by host and path of its address. Nothing is changed.
//
// Errors: what GitHub refuses, with what the token would need.
func (g *GitHub) Plan(ctx context.Context, repository string, w *Webhook) (*WebhookPlan, error) {
	var all []githubHook
	for page := 1; page <= githubPages; page++ {
		var hooks []githubHook
		err := g.call(ctx, http.MethodGet, fmt.Sprintf("%s?per_page=%d&page=%d", hooksOf(repository), githubPage, page), nil, &hooks)
		if err != nil {
			return nil, fmt.Errorf("reading the webhooks of %s: %w", repository, err)
		}
		all = append(all, hooks...)
		if len(hooks) < githubPage {
			break
		}
	}
	return planWebhook(repository, all, w), nil
}

// planWebhook compares what is there with what is to be.
func planWebhook(repository string, all []githubHook, w *Webhook) *WebhookPlan {
	p := &WebhookPlan{Repository: repository, Address: w.Address(), events: w.Events, Others: []int64{}}
	var have *githubHook
	for i := range all {
		switch {
		case !sameAddress(all[i].Config.URL, w.URL):
		case have == nil:
			have = &all[i]
		default:
			p.Others = append(p.Others, all[i].ID)
		}
	}
	if have == nil {
		p.change("url", "", p.Address)
		p.change("content_type", "", "json")
		p.change("events", "", strings.Join(p.events, ", "))
		p.change("ssl_verification", "", "yes")
		p.change("active", "", "yes")
		p.change("secret", "", "set")
		return p
	}
	p.ID = have.ID
	if have.Config.URL != w.URL {
		address, _, _ := strings.Cut(have.Config.URL, "?")
		want := p.Address
		if address == want {
			want += ", with another query" // a token, or none any more
		}
		p.change("url", address, want)
	}
	if have.Config.ContentType != "json" {
		p.change("content_type", have.Config.ContentType, "json")
	}
	// Other events do no harm, and somebody may count on them.
	if !slices.Contains(have.Events, "*") {
		p.events = slices.Clone(have.Events)
		for _, e := range w.Events {
			if !slices.Contains(p.events, e) {
				p.events = append(p.events, e)
			}
		}
		if len(p.events) > len(have.Events) {
			p.change("events", strings.Join(have.Events, ", "), strings.Join(p.events, ", "))
		}
	} else {
		p.events = []string{"*"}
	}
	if s := fmt.Sprint(have.Config.Insecure); have.Config.Insecure != nil && s != "0" {
		p.change("ssl_verification", "no", "yes")
	}
	if !have.Active {
		p.change("active", "no", "yes")
	}
	// GitHub never shows a secret, so that it cannot be compared.
	p.change("secret", "", "set anew")
	return p
}

func (p *WebhookPlan) change(setting, have, want string) {
	p.Changes = append(p.Changes, Change{setting, deploy.Cut(have, 300), deploy.Cut(want, 300)})
}

// sameAddress compares host and path: a query may hold a token.
func sameAddress(a, b string) bool {
	ua, err := url.Parse(a)
	if err != nil {
		return false
	}
	ub, err := url.Parse(b)
	return err == nil && strings.EqualFold(ua.Host, ub.Host) && strings.TrimSuffix(ua.Path, "/") == strings.TrimSuffix(ub.Path, "/")
}

// hooksOf is the path of a repository's webhooks.
func hooksOf(repository string) string {
	owner, name, _ := strings.Cut(repository, "/")
	return "/repos/" + url.PathEscape(owner) + "/" + url.PathEscape(name) + "/hooks"
}

// Apply carries out a plan and gives the webhook's number. Done again it
// changes nothing but the secret, to the same one.
func (g *GitHub) Apply(ctx context.Context, p *WebhookPlan, w *Webhook) (int64, error) {
	settings := map[string]any{
		"active": true, "events": p.events,
		// All of it: what is not named here GitHub takes away.
		"config": map[string]string{"url": w.URL, "content_type": "json", "insecure_ssl": "0", "secret": w.Secret},
	}
	method, path, doing := http.MethodPatch, fmt.Sprintf("%s/%d", hooksOf(p.Repository), p.ID), "changing"
	if p.ID == 0 {
		method, path, doing = http.MethodPost, hooksOf(p.Repository), "making"
		settings["name"] = "web"
	}
	var got githubHook
	if err := g.call(ctx, method, path, settings, &got); err != nil {
		return 0, fmt.Errorf("%s the webhook of %s: %w", doing, p.Repository, err)
	}
	return got.ID, nil
}

// call sends one request to GitHub and reads its answer. The token goes nowhere
// else: no redirect is followed.
func (g *GitHub) call(ctx context.Context, method, path string, send, into any) error {
	ctx, cancel := context.WithTimeout(ctx, githubTime)
	defer cancel()
	var body []byte
	if send != nil {
		var err error
		if body, err = json.Marshal(send); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, g.API+path, bytes.NewReader(body))
	if err != nil {
		return errors.New("the address of GitHub's API is none")
	}
	for k, v := range map[string]string{
		"Authorization": "Bearer " + g.Token, "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28",
		"User-Agent": "deployhook", "Content-Type": "application/json",
	} {
		req.Header.Set(k, v)
	}
	client := http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
			DialContext: (&net.Dialer{Timeout: githubTime}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return errors.New("GitHub cannot be asked: " + config.Unreached(err))
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, githubAnswerMost+1))
	switch {
	case err != nil:
		return errors.New("GitHub's answer was cut off: " + config.Unreached(err))
	case len(answer) > githubAnswerMost:
		return fmt.Errorf("GitHub's answer is over %d MiB", githubAnswerMost>>20)
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated:
		return errors.New(g.refused(res, answer))
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return errors.New("GitHub's answer is not what its API says")
	}
	return nil
}

// refused says why GitHub did not do it, and what the token needs.
func (g *GitHub) refused(res *http.Response, answer []byte) string {
	code := res.StatusCode
	switch {
	case code == http.StatusUnauthorized:
		return "GitHub refuses the token (401): it has expired or was revoked"
	case code == http.StatusTooManyRequests || res.Header.Get("X-RateLimit-Remaining") == "0":
		return "GitHub has been asked too often with this token: try again in an hour"
	case res.Header.Get("X-GitHub-SSO") != "":
		return fmt.Sprintf("the token may not be used for this organization (%d): authorize it for single sign-on at github.com/settings/tokens", code)
	case code == http.StatusForbidden || code == http.StatusNotFound:
		text := fmt.Sprintf("the token may not do that (%d): a classic one needs the scope admin:repo_hook, a fine-grained one this repository and the permission Webhooks: read and write", code)
		if has := res.Header.Get("X-OAuth-Scopes"); has != "" {
			text += "; it has the scopes " + deploy.Cut(has, 200)
		}
		if code == http.StatusNotFound {
			text += "; or there is no such repository"
		}
		return text
	case code >= 300 && code < 400:
		return fmt.Sprintf("the repository has moved on GitHub (%d): use its new name, also in deploy.yaml", code)
	}
	return fmt.Sprintf("GitHub answered %d: %s", code, g.said(answer))
}

// said is what GitHub says of an error, on one line. It may repeat an address
// that was sent to it, whose query may hold a token.
func (g *GitHub) said(answer []byte) string {
	var e struct {
		Message string `json:"message"`
		Errors  []any  `json:"errors"`
	}
	if json.Unmarshal(answer, &e) != nil {
		return "no reason is given"
	}
	text := e.Message
	for _, detail := range e.Errors {
		if m, ok := detail.(map[string]any); ok {
			detail = m["message"]
		}
		if s, ok := detail.(string); ok && s != "" {
			text += "; " + s
		}
	}
	words := strings.Fields(text)
	for i, w := range words {
		if address, _, found := strings.Cut(w, "?"); found && strings.Contains(address, "://") {
			words[i] = address
		}
	}
	return deploy.Cut(cmp.Or(strings.Join(words, " "), "no reason is given"), 300)
}
