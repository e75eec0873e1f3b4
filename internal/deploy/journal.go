package deploy

import "time"

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

// Found is what an agent sees when it opens a release path.
type Found struct {
	Intent  *Intent       // nil = none
	Foreign string        // not empty: intent.json cannot be read or is of an unknown format; the reason
	Current string        // "releases/<id>", empty = no link
	Lines   []ReleaseLine // the last 1,000, oldest first
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
}
