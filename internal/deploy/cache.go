package deploy

import "time"

// CacheKind says whose directories a set of a cache are.
type CacheKind string

// The kinds of sets.
const (
	BranchCache CacheKind = "branch" // of the pipeline's branch
	OthersCache CacheKind = "others" // of all other refs
)

// CacheSet is what test jobs of a pipeline left on a host for those after
// them. A set is one user's.
type CacheSet struct {
	Pipeline string    `json:"pipeline"`
	Host     string    `json:"host"`
	User     string    `json:"user"`
	Kind     CacheKind `json:"kind"`
	Dirs     []string  `json:"dirs"` // relative to the workspace
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`
	Used     time.Time `json:"used"` // by a job, the last time
}

// Bounds of caches. Of sets that would go over them, the one that was not used
// for the longest time ends.
const (
	CacheDirsMost  = 20       // directories of a pipeline
	CacheSetBytes  = 2 << 30  // of a set
	CacheSetFiles  = 500_000  // files, directories and links of a set
	CacheUserBytes = 10 << 30 // of all sets of a user
	CacheUserSets  = 200
	CacheFree      = 512 << 20 // bytes that stay free: below it nothing is kept
)

// CacheReport is what the hosts say of their caches, or what became of
// clearing them.
type CacheReport struct {
	Sets   []CacheSet `json:"sets"`
	Silent []Silent   `json:"silent"` // hosts that could not be asked
}

// Silent is a host that did not answer.
type Silent struct {
	Host  string `json:"host"`
	Error string `json:"error"` // one sentence
}
