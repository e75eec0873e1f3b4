package wire

import "deployhook/internal/deploy"

// Routes of a directory whose files are made those of a commit in place.
const (
	RouteInPlaceOpen    = "/in-place/open"
	RouteInPlaceLook    = "/in-place/look"
	RouteInPlaceAbandon = "/in-place/abandon"
	RouteInPlaceBase    = "/in-place/base"
	RouteInPlaceAdopt   = "/in-place/adopt"
	RouteInPlaceBegin   = "/in-place/begin"
	RouteInPlaceCompare = "/in-place/compare"
	RouteInPlaceStage   = "/in-place/stage"
	RouteInPlaceTree    = "/in-place/tree"
	RouteInPlaceSwitch  = "/in-place/switch"
	RouteInPlaceProving = "/in-place/proving"
	RouteInPlaceLive    = "/in-place/live"
	RouteInPlaceFailed  = "/in-place/failed"
	RouteInPlaceDiscard = "/in-place/discard"
	RouteInPlaceDrop    = "/in-place/drop"
	RouteInPlacePrune   = "/in-place/prune"
)

// InPlaceFound is what is at a directory: Found, and the commit that a clone
// there is of, when nothing was deployed to it yet.
type InPlaceFound struct {
	Intent  *deploy.Intent       `json:"intent"`
	Foreign string               `json:"foreign"`
	Current string               `json:"current"`
	Half    bool                 `json:"half"`
	Lines   []deploy.ReleaseLine `json:"lines"`
	Clone   string               `json:"clone"`
}

// InPlaceBegin begins a deploy to a directory.
type InPlaceBegin struct {
	Release    string `json:"release"`
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
	Overwrite  bool   `json:"overwrite"`
}

// InPlaceStaged says what a deploy to a directory will change.
type InPlaceStaged struct {
	Write    int      `json:"write"`
	Remove   int      `json:"remove"`
	Keep     int      `json:"keep"`
	Restored [][]byte `json:"restored"` // paths
}

// InPlaceSwitch asks for the files to be changed.
type InPlaceSwitch struct {
	Pops bool `json:"pops"`
}
