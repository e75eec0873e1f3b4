package receiver

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"deployhook/internal/deploy"
)

// provider is how one kind of sender says what happened.
type provider struct {
	signed bool // its signature covers the body, but not the id
	key    func(r *http.Request) string
	event  func(r *http.Request) string
	read   func(name string, payload []byte) (*deploy.Event, error)
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
		read: func(_ string, payload []byte) (*deploy.Event, error) {
			if err := decode(payload, &object[struct{}]{}); err != nil {
				return nil, err
			}
			return &deploy.Event{Kind: deploy.Payload, Name: "hook", Payload: lazy(payload)}, nil
		},
	},
}

// Bounds of what is taken from a push.
const (
	commitsMost = 2048 // commits that GitHub lists at most
	wordMost    = 4096 // bytes of a ref, a name, an address
)

// githubEvent is what is read of a delivery. The library's structs fail on
// good ones, so it is taken from the JSON itself, whatever else is in it.
type githubEvent struct {
	Repository object[struct {
		HTMLURL text `json:"html_url"`
	}] `json:"repository"`
	Sender object[struct {
		Login text `json:"login"`
	}] `json:"sender"`
	Pusher object[struct {
		Name text `json:"name"`
	}] `json:"pusher"`
	Ref        text `json:"ref"`
	Before     text `json:"before"`
	After      text `json:"after"`
	Created    flag `json:"created"`
	Deleted    flag `json:"deleted"`
	Forced     flag `json:"forced"`
	HeadCommit object[struct {
		ID      text `json:"id"`
		Message text `json:"message"`
	}] `json:"head_commit"`
	Commits      list[githubCommit] `json:"commits"`
	Size         number             `json:"size"`
	TotalCommits number             `json:"total_commits"` // Gitea's
}

// githubCommit is what a commit of a push touched. It is read by hand: there
// may be thousands of them, and each has much that is skipped.
type githubCommit struct {
	listed bool // it says so
	paths  []string
}

// UnmarshalJSONFrom reads a value.
func (c *githubCommit) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*c = githubCommit{}
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		wanted := false
		switch string(name) {
		case `"added"`, `"modified"`, `"removed"`:
			wanted = dec.PeekKind() == '['
		}
		if !wanted {
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		var files list[text]
		if err := files.UnmarshalJSONFrom(dec); err != nil {
			return err
		}
		c.listed = true
		for _, f := range files.v {
			c.paths = append(c.paths, string(f))
		}
	}
	_, err := dec.ReadToken()
	return err
}

// readGitHub reads an event of GitHub.
func readGitHub(name string, payload []byte) (*deploy.Event, error) {
	var body object[githubEvent]
	if err := decode(payload, &body); err != nil {
		return nil, err
	}
	if !body.is {
		return nil, refuse(http.StatusBadRequest, "the body is JSON, but not an object")
	}
	p := &body.v
	ev := &deploy.Event{Name: name, Payload: lazy(payload), Repository: identity(short(p.Repository.v.HTMLURL))}
	ev.Actor = short(p.Sender.v.Login)
	if name != "push" {
		return ev, nil
	}
	ev.Kind = deploy.Push
	ev.SetRef(short(p.Ref))
	ev.Before, ev.After = commit(p.Before), commit(p.After)
	ev.Created, ev.Deleted, ev.Forced = bool(p.Created), bool(p.Deleted), bool(p.Forced)
	ev.Message = string(p.HeadCommit.v.Message)
	// For an annotated tag after is the tag object; the head commit is what
	// is to be deployed. A branch is never but where it points to.
	if id := commit(p.HeadCommit.v.ID); id != deploy.ZeroCommit {
		ev.Commit = id
	}
	if ev.After != "" && (ev.Branch != "" || ev.After == deploy.ZeroCommit) {
		ev.Commit = ev.After
	}
	if ev.Actor == "" {
		ev.Actor = short(p.Pusher.v.Name)
	}
	ev.Paths, ev.PathsCut = changedPaths(p, ev)
	return ev, nil
}

// changedPaths gathers what the listed commits touched, and says whether the
// list may not be whole.
func changedPaths(p *githubEvent, ev *deploy.Event) (paths []string, cut bool) {
	commits := p.Commits.v
	seen := map[string]bool{}
	for _, c := range commits {
		for _, name := range c.paths {
			if name != "" && !seen[name] {
				seen[name] = true
				paths = append(paths, name)
			}
		}
		cut = cut || !c.listed
	}
	// A new branch, a forced one and a reset list fewer commits than changed.
	cut = cut || len(commits) == 0 || len(commits) >= commitsMost || ev.Created || ev.Forced || ev.Before == "" || ev.Before == deploy.ZeroCommit
	// Both counts are the true ones, where the list is shorter.
	cut = cut || max(p.Size, p.TotalCommits) > number(len(commits))
	return paths, cut
}

// short is a string that is short by nature; empty when it is not.
func short(t text) string {
	if len(t) > wordMost {
		return ""
	}
	return string(t)
}

// commit is s when it has the form of one.
func commit(t text) string {
	s := strings.ToLower(short(t))
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
