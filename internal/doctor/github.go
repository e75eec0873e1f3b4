package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

// What GitHub says of webhooks, as far as it is read.
//
// Source: GitHub REST API, "Repository webhooks".
type (
	githubHook struct {
		ID     int64    `json:"id"`
		Active bool     `json:"active"`
		Events []string `json:"events"`
		Config struct {
			URL      string `json:"url"`
			Insecure any    `json:"insecure_ssl"` // "0", "1" or a number
		} `json:"config"`
	}
	githubDelivery struct {
		ID     int64     `json:"id"`
		At     time.Time `json:"delivered_at"`
		Event  string    `json:"event"`
		Status string    `json:"status"`
		Code   int       `json:"status_code"`
	}
	githubAnswer struct {
		Response struct {
			Payload string `json:"payload"`
		} `json:"response"`
	}
)

// pushes says whether a webhook has them.
func (h *githubHook) pushes() bool {
	return slices.Contains(h.Events, "push") || slices.Contains(h.Events, "*")
}

// checkGitHub asks GitHub what became of the last delivery, for each
// repository whose pipeline has a token.
func (e *exam) checkGitHub(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	if e.commandsAreUnsafe(ctx) != "" {
		return warn("not asked: deploy.yaml can be changed by others", "")
	}
	asked := map[string]bool{}
	for i := range e.file.Deploy.Pipelines {
		p := &e.file.Deploy.Pipelines[i]
		repo, onGitHub := strings.CutPrefix(p.Repository, "github.com/")
		if !onGitHub || p.Auth.Token == nil || p.On.Push == nil || asked[repo] {
			continue
		}
		asked[repo] = true
		token, err := e.file.Look(ctx, *p.Auth.Token)
		switch {
		case errors.Is(err, config.ErrUnknown):
			found = append(found, warn(repo+" was not asked about: the token cannot be read by this user", asRoot)...)
		case err != nil: // said with the secrets
			found = append(found, warn(repo+" was not asked about: the token cannot be read", "")...)
		default:
			found = append(found, e.lastDelivery(ctx, repo, token, p)...)
		}
	}
	if len(asked) == 0 {
		return ok("not asked: no pipeline of github.com has auth.token")
	}
	return found
}

// errGitHub is an answer that is no success.
type errGitHub struct {
	status int
	text   string
}

func (e *errGitHub) Error() string { return e.text }

// ask reads one answer of GitHub's API. The token goes nowhere else.
func (e *exam) ask(ctx context.Context, token, path string, into any) (*http.Response, error) {
	client := e.probe(nil)
	client.Transport.(*http.Transport).Proxy = http.ProxyFromEnvironment
	res, body, err := get(ctx, client, e.GitHub+path, http.Header{
		"Authorization": {"Bearer " + token}, "Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}, "User-Agent": {"deployhook"},
	})
	if err != nil {
		return nil, errors.New("GitHub cannot be asked: " + config.Unreached(err))
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			return res, errors.New("GitHub's answer cannot be read")
		}
		return res, nil
	}
	text := "GitHub answered " + res.Status
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized:
		text = "GitHub refuses the token (401): it has expired or was revoked"
	case res.Header.Get("X-RateLimit-Remaining") == "0" || code == http.StatusTooManyRequests:
		text = "GitHub has been asked too often with this token: try again in an hour"
	case code == http.StatusForbidden || code == http.StatusNotFound:
		text = fmt.Sprintf("the token may not read webhooks (%d): it needs admin:repo_hook or, fine-grained, the permission Webhooks: read", code)
	case code >= 300 && code < 400:
		text = "the repository has moved on GitHub: write its new name into deploy.yaml"
	}
	return res, &errGitHub{res.StatusCode, text}
}

func (e *exam) lastDelivery(ctx context.Context, repo, token string, p *deploy.Pipeline) (found []Check) {
	owner, name, _ := strings.Cut(repo, "/")
	base := "/repos/" + url.PathEscape(owner) + "/" + url.PathEscape(name) + "/hooks"
	settings := "https://github.com/" + repo + "/settings/hooks"
	var hooks []githubHook
	res, err := e.ask(ctx, token, base+"?per_page=100", &hooks)
	if res != nil {
		found = append(found, e.wrongClock(res, "GitHub")...)
	}
	var said *errGitHub
	switch {
	case errors.As(err, &said) && said.status == http.StatusUnauthorized:
		return append(found, fail(repo+": "+said.text, "https://github.com/settings/tokens")...)
	case err != nil:
		return append(found, warn(repo+": "+err.Error(), "")...)
	}
	h, where := e.ourHook(hooks, p)
	switch {
	case h == nil:
		return append(found, fail(fmt.Sprintf("%s has no webhook for %s: pushes start nothing", repo, where), settings+"/new\nPayload URL: "+where)...)
	case !h.Active:
		return append(found, fail(repo+": its webhook is not active", fmt.Sprintf("%s/%d: tick Active", settings, h.ID))...)
	case !h.pushes():
		return append(found, fail(repo+": its webhook does not send pushes", fmt.Sprintf("%s/%d: Just the push event", settings, h.ID))...)
	}
	if s := fmt.Sprint(h.Config.Insecure); s == "1" {
		found = append(found, warn(repo+": GitHub does not verify the certificate of this server", fmt.Sprintf("%s/%d: Enable SSL verification", settings, h.ID))...)
	}
	var deliveries []githubDelivery
	if _, err := e.ask(ctx, token, fmt.Sprintf("%s/%d/deliveries?per_page=1", base, h.ID), &deliveries); err != nil {
		return append(found, warn(repo+": "+err.Error(), "")...)
	}
	if len(deliveries) == 0 {
		return append(found, warn(repo+": its webhook has sent nothing in the last days", "git push, or press Redeliver in "+fmt.Sprintf("%s/%d", settings, h.ID))...)
	}
	d := deliveries[0]
	at := d.At.UTC().Format("2006-01-02 15:04 UTC")
	if d.Code >= 200 && d.Code < 300 {
		return append(found, ok("%s: the last delivery (%s, %s) was answered %d", repo, d.Event, at, d.Code)...)
	}
	text := fmt.Sprintf("%s: the last delivery (%s, %s) was answered %d", repo, d.Event, at, d.Code)
	if d.Code == 0 {
		text = fmt.Sprintf("%s: the last delivery (%s, %s) did not arrive", repo, d.Event, at)
	}
	if d.Status != "" {
		text += ", " + cut(d.Status)
	}
	var answer githubAnswer
	if _, err := e.ask(ctx, token, fmt.Sprintf("%s/%d/deliveries/%d", base, h.ID, d.ID), &answer); err == nil {
		if m := message(answer.Response.Payload); m != "" {
			text += ": " + m
		}
	}
	return append(found, fail(text, fmt.Sprintf("%s/%d?tab=deliveries: Redeliver, when it is mended", settings, h.ID))...)
}

// ourHook finds the webhook that comes here, and says where it must go. Of an
// address only host and path count: its query may hold a token.
func (e *exam) ourHook(hooks []githubHook, p *deploy.Pipeline) (*githubHook, string) {
	base, _ := url.Parse(e.file.Server.URL)
	where := ""
	for _, h := range e.file.Deploy.Hooks {
		if p.Hook != "" && p.Hook != h.Name || h.Provider != "github" && h.Provider != "generic" {
			continue
		}
		path := "/hooks/" + h.Name
		if where == "" {
			where = strings.TrimSuffix(e.file.Server.URL, "/") + path
		}
		for i := range hooks {
			u, err := url.Parse(hooks[i].Config.URL)
			if err != nil || base == nil {
				continue
			}
			if base.Host == "" && strings.HasSuffix(u.Path, path) || strings.EqualFold(u.Host, base.Host) && u.Path == base.Path+path {
				return &hooks[i], where
			}
		}
	}
	return nil, where
}

// message is what was answered: our own sentence, or the beginning of a page.
func message(payload string) string {
	var a struct {
		Message string `json:"message"`
	}
	if json.Unmarshal([]byte(payload), &a) == nil && a.Message != "" {
		return cut(a.Message)
	}
	return cut(strings.Join(strings.Fields(payload), " "))
}

// cut bounds what others say.
func cut(s string) string { return deploy.Cut(s, 300) }
