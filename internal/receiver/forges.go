package receiver

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"deployhook/internal/deploy"
)

// readGitea reads an event of Gitea or Forgejo. They took over GitHub's form,
// and say other things in it: a deleted branch sends delete alone, nothing says
// whether a push was forced, and the button "Test delivery" sends a push that
// moved nothing.
func readGitea(name string, payload []byte) (*deploy.Event, error) {
	p, ev, err := readLikeGitHub(name, payload)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "push" && p.Before != "" && p.Before == p.After:
		ev.Name = "ping"
	case name == "push":
		readPush(p, ev)
		unflagged(p, ev)
	case name == "delete" && p.RefType == "branch":
		deleted(p, ev)
	}
	return ev, nil
}

// readGogs reads an event of Gogs, which sends a push for branches alone: tags
// come and go as create and delete, and so do branches that are deleted.
func readGogs(name string, payload []byte) (*deploy.Event, error) {
	p, ev, err := readLikeGitHub(name, payload)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "push" && p.Before != "" && p.Before == p.After:
		ev.Name = "ping"
	case name == "push":
		readPush(p, ev)
		unflagged(p, ev)
	case name == "create" && p.RefType == "tag":
		ev.Kind, ev.Created = deploy.Push, true
		ev.SetRef(under("refs/tags/", p.Ref))
		// Of an annotated tag nobody says whether this is the tag's own object.
		ev.Before, ev.After, ev.PathsCut = deploy.ZeroCommit, commit(p.SHA), true
	case name == "delete" && (p.RefType == "branch" || p.RefType == "tag"):
		deleted(p, ev)
	}
	return ev, nil
}

// unflagged fills what a forge that has no flags says otherwise.
func unflagged(p *githubEvent, ev *deploy.Event) {
	ev.Created, ev.Deleted = ev.Before == deploy.ZeroCommit, ev.After == deploy.ZeroCommit
	for _, c := range p.Commits.v {
		if ev.Message == "" && ev.Commit != "" && commit(c.id) == ev.Commit {
			ev.Message = string(c.message) // Gogs has no head_commit
		}
	}
	// A forced push looks as any other, and what it took back stands in no
	// list: the diff decides.
	ev.Paths, _ = changedPaths(p, ev)
	ev.PathsCut = true
}

// deleted reads an event that tells of a deleted ref by its short name.
func deleted(p *githubEvent, ev *deploy.Event) {
	prefix := "refs/heads/"
	if p.RefType == "tag" {
		prefix = "refs/tags/"
	}
	ev.Kind, ev.Deleted = deploy.Push, true
	ev.SetRef(under(prefix, p.Ref))
	ev.After, ev.Commit = deploy.ZeroCommit, deploy.ZeroCommit
}

// under is the full name of a ref, of its short or its full one.
func under(prefix string, name text) string {
	s := short(name)
	if s == "" || strings.HasPrefix(s, "refs/") {
		return s
	}
	return prefix + s
}

// gitlabEvent is what is read of a delivery of GitLab.
type gitlabEvent struct {
	Project object[struct {
		WebURL text `json:"web_url"`
	}] `json:"project"`
	Username     text               `json:"user_username"`
	Name         text               `json:"user_name"`
	Ref          text               `json:"ref"`
	Before       text               `json:"before"`
	After        text               `json:"after"`
	CheckoutSHA  text               `json:"checkout_sha"`
	Commits      list[githubCommit] `json:"commits"`
	TotalCommits number             `json:"total_commits_count"`
	Action       text               `json:"action"`
	Tag          text               `json:"tag"`
	Commit       object[struct {
		ID text `json:"id"`
	}] `json:"commit"`
}

// gitlabName is what the payload calls its event: push, tag_push,
// merge_request. System hooks have one header for all of them.
func gitlabName(h http.Header, payload []byte) string {
	e := envelopeOf(payload)
	return cmp.Or(short(e.Kind), short(e.EventName), h.Get("X-Gitlab-Event"))
}

// readGitLab reads an event of GitLab.
//
// Source: GitLab docs, "Webhook events".
func readGitLab(name string, payload []byte) (*deploy.Event, error) {
	p, err := readObject[gitlabEvent](payload)
	if err != nil {
		return nil, err
	}
	ev := &deploy.Event{
		Name: name, Payload: lazy(payload), Repository: identity(short(p.Project.v.WebURL)),
		Actor: cmp.Or(short(p.Username), short(p.Name)),
	}
	switch name {
	case "push", "tag_push":
		ev.Kind = deploy.Push
		ev.SetRef(short(p.Ref))
		ev.Before, ev.After, ev.Commit = commit(p.Before), commit(p.After), commit(p.CheckoutSHA)
		if ev.After == deploy.ZeroCommit || ev.Branch != "" && ev.After != "" {
			ev.Commit = ev.After // of an annotated tag after is the tag object
		}
		unflagged(&githubEvent{Commits: p.Commits, TotalCommits: p.TotalCommits}, ev)
	case "release":
		ev.Kind, ev.Action = deploy.ReleaseEvent, short(p.Action)
		if ev.Action == "create" {
			ev.Action = "published" // there are no drafts
		}
		if tag := short(p.Tag); tag != "" {
			ev.SetRef("refs/tags/" + tag)
		}
		ev.Commit = commit(p.Commit.v.ID)
	}
	return ev, nil
}

// bitbucketRef is a branch or a tag and where it points to.
type bitbucketRef struct {
	Type   text `json:"type"`
	Name   text `json:"name"`
	Target object[struct {
		Hash    text `json:"hash"`
		Message text `json:"message"`
	}] `json:"target"`
}

// bitbucketEvent is what is read of a delivery of Bitbucket.
type bitbucketEvent struct {
	Actor object[struct {
		Nickname text `json:"nickname"`
		Name     text `json:"display_name"`
	}] `json:"actor"`
	Repository object[struct {
		Links object[struct {
			HTML object[struct {
				Href text `json:"href"`
			}] `json:"html"`
		}] `json:"links"`
	}] `json:"repository"`
	Push object[struct {
		Changes list[object[struct {
			New     object[bitbucketRef] `json:"new"`
			Old     object[bitbucketRef] `json:"old"`
			Created flag                 `json:"created"`
			Closed  flag                 `json:"closed"`
			Forced  flag                 `json:"forced"`
		}]] `json:"changes"`
	}] `json:"push"`
}

// readBitbucket reads an event of Bitbucket Cloud. It lists no paths.
//
// Source: Bitbucket Cloud docs, "Event payloads".
func readBitbucket(name string, payload []byte) (*deploy.Event, error) {
	p, err := readObject[bitbucketEvent](payload)
	if err != nil {
		return nil, err
	}
	ev := &deploy.Event{
		Name: name, Payload: lazy(payload), Repository: identity(short(p.Repository.v.Links.v.HTML.v.Href)),
		Actor: cmp.Or(short(p.Actor.v.Nickname), short(p.Actor.v.Name)),
	}
	if strings.HasPrefix(name, "pullrequest:") {
		ev.Name = pullRequest
	}
	if name != "repo:push" {
		return ev, nil
	}
	ev.Kind = deploy.Push
	if len(p.Push.v.Changes.v) != 1 { // each move is a delivery of its own
		return ev, nil
	}
	c := &p.Push.v.Changes.v[0].v
	ref := &c.New
	ev.Before, ev.After = commit(c.Old.v.Target.v.Hash), commit(c.New.v.Target.v.Hash)
	if !c.Old.is {
		ev.Before = deploy.ZeroCommit
	}
	if !c.New.is {
		ref, ev.After = &c.Old, deploy.ZeroCommit
	}
	switch ref.v.Type {
	case "branch":
		ev.SetRef(under("refs/heads/", ref.v.Name))
	case "tag":
		ev.SetRef(under("refs/tags/", ref.v.Name))
	}
	ev.Commit, ev.Message = ev.After, string(c.New.v.Target.v.Message)
	ev.Created, ev.Deleted, ev.Forced, ev.PathsCut = bool(c.Created), bool(c.Closed), bool(c.Forced), true
	return ev, nil
}

// pullRequest is the name under which what other forges call otherwise is
// known as what never starts anything.
const pullRequest = "pull_request"

// azureEvent is what is read of a delivery of Azure DevOps.
type azureEvent struct {
	Resource object[struct {
		RefUpdates list[object[struct {
			Name text `json:"name"`
			Old  text `json:"oldObjectId"`
			New  text `json:"newObjectId"`
		}]] `json:"refUpdates"`
		Commits list[object[struct {
			ID      text `json:"commitId"`
			Comment text `json:"comment"`
		}]] `json:"commits"`
		Repository object[struct {
			RemoteURL text `json:"remoteUrl"`
		}] `json:"repository"`
		PushedBy object[struct {
			Unique text `json:"uniqueName"`
			Name   text `json:"displayName"`
		}] `json:"pushedBy"`
	}] `json:"resource"`
}

// readAzure reads an event of Azure DevOps. It lists no paths.
//
// Source: Microsoft Learn, "Service hooks events", section "Code pushed".
func readAzure(name string, payload []byte) (*deploy.Event, error) {
	body, err := readObject[azureEvent](payload)
	if err != nil {
		return nil, err
	}
	p := &body.Resource.v
	ev := &deploy.Event{
		Name: name, Payload: lazy(payload), Repository: azureIdentity(short(p.Repository.v.RemoteURL)),
		Actor: cmp.Or(short(p.PushedBy.v.Unique), short(p.PushedBy.v.Name)),
	}
	if strings.HasPrefix(name, "git.pullrequest.") {
		ev.Name = pullRequest
	}
	if name != "git.push" {
		return ev, nil
	}
	ev.Kind = deploy.Push
	if len(p.RefUpdates.v) != 1 { // each move is a delivery of its own
		return ev, nil
	}
	u := &p.RefUpdates.v[0].v
	ev.SetRef(short(u.Name))
	ev.Before, ev.After, ev.PathsCut = commit(u.Old), commit(u.New), true
	ev.Created, ev.Deleted = ev.Before == deploy.ZeroCommit, ev.After == deploy.ZeroCommit
	if ev.Branch != "" || ev.Deleted {
		ev.Commit = ev.After // of an annotated tag after is the tag object
	}
	for i := range p.Commits.v {
		if c := &p.Commits.v[i].v; ev.After != "" && commit(c.ID) == ev.After {
			ev.Message = string(c.Comment)
		}
	}
	return ev, nil
}

// azureIdentity is dev.azure.com/ORG/PROJECT/_git/REPO, also of addresses of
// the older form, ORG.visualstudio.com, and of those that leave the project
// out where the repository has its name. Spaces stay encoded, as they are in
// an address.
func azureIdentity(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	host, path := strings.ToLower(u.Hostname()), strings.ToLower(strings.Trim(u.EscapedPath(), "/"))
	if org, ok := strings.CutSuffix(host, ".visualstudio.com"); ok {
		host, path = "dev.azure.com", org+"/"+strings.TrimPrefix(path, "defaultcollection/")
	}
	before, repo, ok := strings.Cut(path, "_git/")
	if !ok || host == "" || repo == "" {
		return ""
	}
	if host == "dev.azure.com" && strings.Count(before, "/") == 1 {
		before += repo + "/"
	}
	return host + "/" + before + "_git/" + repo
}

// Bounds of a delivery that tells of several moves.
const (
	movesMost = 100          // that are taken apart
	partsMost = 2 * bodyMost // bytes of all parts together
)

// parts takes a payload that lists several moves apart: one payload for each,
// as if it had come alone. Others stay as they are.
func parts(p provider, payload []byte) ([][]byte, error) {
	whole := [][]byte{payload}
	if p.moves == nil || decode(payload, &object[struct{}]{}) != nil {
		return whole, nil // reading it says what is wrong
	}
	var outer, inner map[string]jsontext.Value
	var moves []jsontext.Value
	if json.Unmarshal(payload, &outer, jsonOptions) != nil || json.Unmarshal(outer[p.moves[0]], &inner, jsonOptions) != nil ||
		json.Unmarshal(inner[p.moves[1]], &moves, jsonOptions) != nil || len(moves) < 2 || len(moves) > movesMost {
		return whole, nil
	}
	list, size := make([][]byte, 0, len(moves)), 0
	for _, m := range moves {
		inner[p.moves[1]] = jsontext.Value(fmt.Sprintf("[%s]", m))
		part, err := json.Marshal(inner, jsonOptions, json.Deterministic(true))
		if err == nil {
			outer[p.moves[0]] = part
			part, err = json.Marshal(outer, jsonOptions, json.Deterministic(true))
		}
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the list of moves cannot be read")
		}
		if size += len(part); size > partsMost {
			return nil, refuse(http.StatusRequestEntityTooLarge, "this push moves %d refs with too much beside them: push fewer at once", len(moves))
		}
		list = append(list, part)
	}
	return list, nil
}
