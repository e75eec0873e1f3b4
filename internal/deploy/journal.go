package deploy

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Phase is how far a switch has come.
type Phase string

// The phases, in their order.
const (
	Switching Phase = "switching" // written before the link is renamed
	Proving   Phase = "proving"   // the link points to the new release; restart and health check
	Undoing   Phase = "undoing"   // the link goes back
)

// IntentFormat is the version of intent.json that this program writes.
const IntentFormat = 1

// Intent is .deployhook/intent.json: what a switch is doing. It is there from
// before the link is renamed until the release is live or put back.
type Intent struct {
	Format  int    `json:"format"`
	Daemon  string `json:"daemon"`
	Run     int64  `json:"run"`
	Job     string `json:"job"`
	Attempt int    `json:"attempt"`
	From    string `json:"from"` // "releases/<id>"; empty (JSON null) before the first release
	To      string `json:"to"`
	Phase   Phase  `json:"phase"`
	Pops    bool   `json:"pops,omitempty"` // a rollback to the release below the top
}

// ReleaseState is a line's word in releases.ndjson.
type ReleaseState string

// The states of a release.
const (
	ReleasePreparing ReleaseState = "preparing"
	ReleasePrepared  ReleaseState = "prepared"
	ReleaseLive      ReleaseState = "live"
	ReleaseBad       ReleaseState = "bad"
	ReleaseRemoved   ReleaseState = "removed" // pruned, or its tree was never whole
)

// ReleaseLine is one line of .deployhook/releases.ndjson: one change of state.
type ReleaseLine struct {
	Time       time.Time    `json:"time"`
	Release    string       `json:"release"` // the id, without "releases/"
	State      ReleaseState `json:"state"`
	Repository string       `json:"repository,omitempty"`
	Commit     string       `json:"commit,omitempty"`
	Daemon     string       `json:"daemon,omitempty"`
	Run        int64        `json:"run,omitempty"`
	Job        string       `json:"job,omitempty"`
	Pops       bool         `json:"pops,omitempty"` // live: a rollback that took the top off the stack
}

// Bounds of the words in a line, in bytes.
const (
	lineWordMost       = 200
	lineRepositoryMost = 1000
)

// Valid says whether a line has the form that deployhook writes. What does not
// have it is acted upon by nobody.
func (l *ReleaseLine) Valid() bool {
	switch l.State {
	case ReleasePreparing, ReleasePrepared, ReleaseLive, ReleaseBad, ReleaseRemoved:
	default:
		return false
	}
	return ValidReleaseName(l.Release) && (l.Commit == "" || ValidCommit(l.Commit)) && l.Run >= 0 &&
		len(l.Daemon) <= lineWordMost && len(l.Job) <= lineWordMost && len(l.Repository) <= lineRepositoryMost &&
		clean(l.Daemon) && clean(l.Job) && clean(l.Repository)
}

// ValidCommit says whether s is the whole name of a commit.
func ValidCommit(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }

// clean says whether a text has no control characters.
func clean(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
}

// Found is what an agent sees when it opens a release path.
type Found struct {
	Intent  *Intent       // nil = none
	Foreign string        // not empty: intent.json cannot be read or is of an unknown format; the reason
	Current string        // "releases/<id>", empty = no link; in place: whose files stand there
	Half    bool          // in place: not all of them, its deploy was cut short while they changed
	Lines   []ReleaseLine // the last 1,000, oldest first; a release whose directory is gone has been removed in the last one
}

// Release is one published copy of a commit on one host, as its lines tell.
type Release struct {
	ID      string       `json:"id"`
	Host    string       `json:"host"`
	Path    string       `json:"path"`
	Commit  string       `json:"commit"`
	Run     int64        `json:"run"`
	State   ReleaseState `json:"state"`
	Current bool         `json:"current"`
	Made    int64        `json:"-"` // the run that made it: what lists are ordered by
}
