package deploy

import (
	"errors"
	"strings"
	"time"
)

// Kind is what brought a run about; DEPLOYHOOK_EVENT has the same word.
type Kind string

// The kinds of events.
const (
	Push         Kind = "push"
	Payload      Kind = "hook"
	Manual       Kind = "manual"
	Rollback     Kind = "rollback"
	ReleaseEvent Kind = "release"
	Workflow     Kind = "workflow_run"
	Scheduled    Kind = "schedule"
	Chained      Kind = "pipeline"
)

// ZeroCommit is what a forge writes where there is no commit.
const ZeroCommit = "0000000000000000000000000000000000000000"

// Event is what a delivery or a command means: a ref of a repository moved, a
// payload arrived, or somebody asked for a run. Its strings are an outsider's
// words: data only, never part of a command line.
type Event struct {
	Kind       Kind
	Hook       string // name of the hook it came through; empty for a command
	Name       string // what the provider calls it: push, ping, issues …
	Repository string // identity, as [Pipeline.Repository]
	Ref        string // full: refs/heads/main, refs/tags/v1
	Branch     string // of Ref, when it is a branch
	Tag        string // of Ref, when it is a tag
	Before     string // what the ref pointed to; zeros or empty = unknown or new
	After      string // what it points to now: for annotated tags the tag object
	Commit     string // the commit to deploy; empty = resolved when the run starts, from After where that is there
	Created    bool
	Deleted    bool
	Forced     bool
	Actor      string            // who pushed or asked
	Message    string            // of the head commit
	Paths      []string          // changed paths as the payload lists them
	PathsCut   bool              // the payload's list is not whole: ask git
	Payload    func() any        // gives the decoded JSON body (maps, slices, string, float64, bool, nil), decoding it when it is first asked for; nil = null
	Inputs     map[string]string // of a trigger by hand

	// Of a release or a workflow run.
	Action     string // what became of it: published, completed
	Prerelease bool   // a release that is not for everybody
	Draft      bool   // a release that nobody sees yet
	Workflow   string // name of the workflow
	Conclusion string // how it ended: success, failure, cancelled
	Trigger    string // the event that it ran for: push, pull_request
	Fork       bool   // it ran for commits of another repository than Repository, or nobody knows of which

	// Of what no delivery brings.
	Pipeline string // that is meant: by a schedule or by hand; of a pipeline event the one that has succeeded
	Schedule string // that came due, as [Cron.String]
	Why      string // what brought it about, in words
}

// RefName is the ref in words: "branch main", "tag v1".
func (e *Event) RefName() string {
	if e.Branch != "" {
		return "branch " + e.Branch
	}
	if e.Tag != "" {
		return "tag " + e.Tag
	}
	return e.Ref
}

// SetRef fills Ref, Branch and Tag from a full ref.
func (e *Event) SetRef(ref string) {
	e.Ref, e.Branch, e.Tag = ref, "", ""
	if b, ok := strings.CutPrefix(ref, "refs/heads/"); ok {
		e.Branch = b
	} else if t, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		e.Tag = t
	}
}

// Delivery is one verified webhook request.
type Delivery struct {
	ID       int64 // given by the store; the accept number
	Hook     string
	Key      string // the provider's id (X-GitHub-Delivery); empty = each request is new
	BodyHash string // SHA-256 of the raw body, hex
	// SameBody makes the same raw body under another key a duplicate: the ids
	// of forges are not covered by their signatures.
	SameBody bool
	Event    string // the provider's name of the event
	Received time.Time
	Body     []byte    // the JSON, taken out of its form where it came in one; at most 25 MiB
	Message  string    // the answer's sentence
	Why      []Verdict // one for each pipeline that was looked at
	Runs     []int64
	Push     *RefMove // nil when no ref moved
}

// RefMove is one verified push, wanted or not: what lanes are ordered by.
type RefMove struct {
	Repository, Ref, Before, After string
}

// Verdict says why a delivery started a pipeline or did not.
type Verdict struct {
	Pipeline string `json:"pipeline"`
	Run      bool   `json:"run"`
	Why      string `json:"why"` // one sentence without a full stop
}

// Receipt is what is known of a delivery once it is on disk.
type Receipt struct {
	Delivery  int64
	Runs      []int64
	Duplicate bool   // known before: Runs are the first one's
	Message   string // of the first one, for a duplicate
}

// Errors that callers tell apart.
var (
	// ErrConflict is the same delivery id with another body.
	ErrConflict = errors.New("this delivery id came before with another body")
	// ErrNotFound is a run, delivery, release or pipeline that is not there.
	ErrNotFound = errors.New("not found")
	// ErrStale is a change whose state or attempt somebody else moved first.
	ErrStale = errors.New("the state has changed meanwhile")
	// ErrLocked is a claim whose group or path is taken, or a second lock.
	ErrLocked = errors.New("locked")
	// ErrFull is a disk, or a bound, that has no room for a delivery.
	ErrFull = errors.New("no space left")
)
