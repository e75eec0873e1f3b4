package receiver

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
)

// provider is how one kind of sender says what happened. What it is told of a
// payload holds also when that is no JSON.
type provider struct {
	signed bool // its signature covers the body, but not the id
	key    func(h http.Header, payload []byte) string
	event  func(h http.Header, payload []byte) string
	read   func(name string, payload []byte) (*deploy.Event, error)
	prove  prover
	moves  []string // where a payload lists its moves, when there may be several; two keys
}

// providers are those of [deploy.Providers].
var providers = map[string]provider{
	"github":    {signed: true, key: header("X-GitHub-Delivery"), event: header("X-GitHub-Event"), read: readGitHub, prove: proveGitHub},
	"gitea":     {signed: true, key: header("X-Gitea-Delivery"), event: header("X-Gitea-Event"), read: readGitea, prove: proveGitea},
	"forgejo":   {signed: true, key: header("X-Gitea-Delivery"), event: header("X-Gitea-Event"), read: readGitea, prove: proveGitea},
	"gogs":      {signed: true, key: header("X-Gogs-Delivery"), event: header("X-Gogs-Event"), read: readGogs, prove: proveGogs},
	"gitlab":    {key: header("Idempotency-Key", "X-Gitlab-Event-UUID"), event: gitlabName, read: readGitLab, prove: proveNothing},
	"bitbucket": {signed: true, key: header("X-Request-UUID"), event: header("X-Event-Key"), read: readBitbucket, prove: proveBitbucket, moves: []string{"push", "changes"}},
	"azure": {
		key:   func(_ http.Header, payload []byte) string { return envelopeOf(payload).id() },
		event: func(_ http.Header, payload []byte) string { return short(envelopeOf(payload).EventType) },
		read:  readAzure, prove: proveAzure, moves: []string{"resource", "refUpdates"},
	},
	"generic":  {key: header("Idempotency-Key", "Webhook-Id"), event: func(http.Header, []byte) string { return string(deploy.Payload) }, read: readPayload, prove: proveGeneric},
	"standard": {key: header(standardwebhooks.HeaderWebhookID), event: typed, read: readPayload, prove: proveStandard},
	"stripe": {
		key:   func(_ http.Header, payload []byte) string { return envelopeOf(payload).id() },
		event: typed, read: readPayload, prove: proveStripe,
	},
}

// header reads the first of some headers that is there.
func header(names ...string) func(http.Header, []byte) string {
	return func(h http.Header, _ []byte) string {
		for _, name := range names {
			if v := h.Get(name); v != "" {
				return v
			}
		}
		return ""
	}
}

// envelope is what senders write around their events.
type envelope struct {
	ID        text `json:"id"`
	Type      text `json:"type"`
	EventType text `json:"eventType"` // Azure's
	Kind      text `json:"object_kind"`
	EventName text `json:"event_name"` // GitLab's system hooks
}

func (e envelope) id() string { return string(e.ID) }

// envelopeOf reads the envelope; of what is no JSON it is empty.
func envelopeOf(payload []byte) envelope {
	var e object[envelope]
	if decode(payload, &e) != nil {
		return envelope{}
	}
	return e.v
}

// typed is the type that the payload names.
func typed(_ http.Header, payload []byte) string {
	return cmp.Or(short(envelopeOf(payload).Type), string(deploy.Payload))
}

// readPayload reads what is no forge's.
func readPayload(name string, payload []byte) (*deploy.Event, error) {
	if err := decode(payload, &object[struct{}]{}); err != nil {
		return nil, err
	}
	return &deploy.Event{Kind: deploy.Payload, Name: name, Payload: lazy(payload)}, nil
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
		HTMLURL  text `json:"html_url"`
		FullName text `json:"full_name"`
	}] `json:"repository"`
	Sender object[struct {
		Login text `json:"login"`
	}] `json:"sender"`
	Action  text `json:"action"`
	Release object[struct {
		TagName    text `json:"tag_name"`
		Draft      flag `json:"draft"`
		Prerelease flag `json:"prerelease"`
	}] `json:"release"`
	Workflow object[struct {
		Name text `json:"name"`
	}] `json:"workflow"`
	WorkflowRun object[struct {
		Name           text `json:"name"`
		HeadBranch     text `json:"head_branch"`
		HeadSHA        text `json:"head_sha"`
		Conclusion     text `json:"conclusion"`
		Event          text `json:"event"`
		HeadRepository object[struct {
			FullName text `json:"full_name"`
		}] `json:"head_repository"`
	}] `json:"workflow_run"`
	Pusher object[struct {
		Name text `json:"name"`
	}] `json:"pusher"`
	Ref        text `json:"ref"`
	RefType    text `json:"ref_type"` // of create and delete
	SHA        text `json:"sha"`      // of Gogs' create
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
	listed  bool // it says so
	paths   []string
	id      text
	message text
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
		case `"id"`, `"message"`:
			word := &c.message
			if string(name) == `"id"` {
				word = &c.id
			}
			if err := word.UnmarshalJSONFrom(dec); err != nil {
				return err
			}
			continue
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
	p, ev, err := readLikeGitHub(name, payload)
	if err != nil || name != "push" {
		return ev, err
	}
	readPush(p, ev)
	ev.Paths, ev.PathsCut = changedPaths(p, ev)
	return ev, nil
}

// readLikeGitHub reads what is the same in all events of GitHub and of those
// that took its form, and the whole of releases and workflow runs.
func readLikeGitHub(name string, payload []byte) (*githubEvent, *deploy.Event, error) {
	p, err := readObject[githubEvent](payload)
	if err != nil {
		return nil, nil, err
	}
	ev := &deploy.Event{Name: name, Payload: lazy(payload), Repository: identity(short(p.Repository.v.HTMLURL)), Actor: short(p.Sender.v.Login)}
	switch name {
	case "release":
		ev.Kind, ev.Action = deploy.ReleaseEvent, short(p.Action)
		ev.Draft, ev.Prerelease = bool(p.Release.v.Draft), bool(p.Release.v.Prerelease)
		if tag := short(p.Release.v.TagName); tag != "" {
			ev.SetRef("refs/tags/" + tag)
		}
	case "workflow_run":
		run := &p.WorkflowRun.v
		ev.Kind, ev.Action = deploy.Workflow, short(p.Action)
		ev.Workflow, ev.Conclusion, ev.Trigger = cmp.Or(short(p.Workflow.v.Name), short(run.Name)), short(run.Conclusion), short(run.Event)
		if branch := short(run.HeadBranch); branch != "" {
			ev.SetRef("refs/heads/" + branch)
		}
		ev.Commit = commit(run.HeadSHA)
		// A fork that was removed since is null: its commits are no less a stranger's.
		own := short(p.Repository.v.FullName)
		ev.Fork = own == "" || !strings.EqualFold(own, short(run.HeadRepository.v.FullName))
	}
	return p, ev, nil
}

// readPush reads where a push moved its ref.
func readPush(p *githubEvent, ev *deploy.Event) {
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
