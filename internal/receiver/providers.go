package receiver

import (
	"net/http"
	"net/url"
	"strings"

	"deployhook/internal/deploy"
)

// provider is how one kind of sender says what happened.
type provider struct {
	signed bool // its signature covers the body, but not the id
	key    func(r *http.Request) string
	event  func(r *http.Request) string
	read   func(name string, payload any) (*deploy.Event, error)
}

// providers are those of this version.
var providers = map[string]provider{
	"github": {
		signed: true,
		key:    func(r *http.Request) string { return r.Header.Get("X-GitHub-Delivery") },
		event:  func(r *http.Request) string { return r.Header.Get("X-GitHub-Event") },
		read:   readGitHub,
	},
	"generic": {
		key: func(r *http.Request) string {
			if k := r.Header.Get("Idempotency-Key"); k != "" {
				return k
			}
			return r.Header.Get("Webhook-Id")
		},
		event: func(*http.Request) string { return "hook" },
		read: func(_ string, payload any) (*deploy.Event, error) {
			return &deploy.Event{Kind: deploy.Payload, Name: "hook", Payload: payload}, nil
		},
	},
}

// Bounds of what is taken from a push.
const (
	commitsMost = 2048 // commits that GitHub lists at most
	wordMost    = 4096 // bytes of a ref, a name, an address
)

// readGitHub reads an event of GitHub. The library's structs fail on good
// deliveries, so what is needed is taken from the JSON itself, whatever else
// is in it.
func readGitHub(name string, payload any) (*deploy.Event, error) {
	p, ok := payload.(map[string]any)
	if !ok {
		return nil, refuse(http.StatusBadRequest, "the body is JSON, but not an object")
	}
	ev := &deploy.Event{Name: name, Payload: payload, Repository: identity(str(obj(p, "repository"), "html_url"))}
	ev.Actor = str(obj(p, "sender"), "login")
	if name != "push" {
		return ev, nil
	}
	ev.Kind = deploy.Push
	ev.SetRef(str(p, "ref"))
	ev.Before, ev.After = commit(str(p, "before")), commit(str(p, "after"))
	ev.Created, ev.Deleted, ev.Forced = flag(p, "created"), flag(p, "deleted"), flag(p, "forced")
	head := obj(p, "head_commit")
	ev.Message = text(head, "message")
	// For an annotated tag after is the tag object; the head commit is what
	// is to be deployed. A branch is never but where it points to.
	if id := commit(str(head, "id")); id != deploy.ZeroCommit {
		ev.Commit = id
	}
	if ev.After != "" && (ev.Branch != "" || ev.After == deploy.ZeroCommit) {
		ev.Commit = ev.After
	}
	if name := str(obj(p, "pusher"), "name"); ev.Actor == "" {
		ev.Actor = name
	}
	ev.Paths, ev.PathsCut = changedPaths(p, ev)
	return ev, nil
}

// changedPaths gathers what the listed commits touched, and says whether the
// list may not be whole.
func changedPaths(p map[string]any, ev *deploy.Event) (paths []string, cut bool) {
	commits, _ := p["commits"].([]any)
	seen := map[string]bool{}
	for _, c := range commits {
		m, _ := c.(map[string]any)
		listed := false
		for _, key := range []string{"added", "modified", "removed"} {
			list, ok := m[key].([]any)
			listed = listed || ok
			for _, f := range list {
				if name, ok := f.(string); ok && !seen[name] {
					seen[name] = true
					paths = append(paths, name)
				}
			}
		}
		cut = cut || !listed
	}
	// A new branch, a forced one and a reset list fewer commits than changed.
	cut = cut || len(commits) == 0 || len(commits) >= commitsMost || ev.Created || ev.Forced || ev.Before == "" || ev.Before == deploy.ZeroCommit
	for _, key := range []string{"size", "total_commits"} { // the second is Gitea's
		if n, ok := p[key].(float64); ok && n > float64(len(commits)) {
			cut = true
		}
	}
	return paths, cut
}

func obj(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	return o
}

// text is a string of any length; empty when it is none.
func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

// str is a string that is short by nature.
func str(m map[string]any, key string) string {
	s := text(m, key)
	if len(s) > wordMost {
		return ""
	}
	return s
}

func flag(m map[string]any, key string) bool {
	b, _ := m[key].(bool)
	return b
}

// commit is s when it has the form of one.
func commit(s string) string {
	s = strings.ToLower(s)
	if len(s) != 40 || strings.Trim(s, "0123456789abcdef") != "" {
		return ""
	}
	return s
}

// identity is host and path of a repository's web address, without .git, in
// lower case. It only tells which pipeline is meant: nothing is ever fetched
// from an address that a payload names.
func identity(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	path := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	if u.Host == "" || path == "" {
		return ""
	}
	return strings.ToLower(u.Hostname() + "/" + path)
}
