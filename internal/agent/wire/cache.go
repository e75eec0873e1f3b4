package wire

import "deployhook/internal/deploy"

// Routes of the caches that test jobs leave for those after them.
const (
	RouteCacheRestore = "/cache/restore"
	RouteCacheKeep    = "/cache/keep"
	RouteCacheList    = "/cache/list"
	RouteCacheClear   = "/cache/clear"
)

// Cache names a set, and the directories of the workspace that it is about.
type Cache struct {
	Daemon   string           `json:"daemon"` // several may have agents of one user
	Pipeline string           `json:"pipeline"`
	Kind     deploy.CacheKind `json:"kind"`
	Dirs     []string         `json:"dirs"`
}

// Cached says what became of directories: those that were made or kept, and a
// sentence about each that was not.
type Cached struct {
	Dirs  []CachedDir `json:"dirs"`
	Notes []string    `json:"notes"`
}

// CachedDir is one directory.
type CachedDir struct {
	Dir   string           `json:"dir"`
	Kind  deploy.CacheKind `json:"kind"` // of the set that it was taken from
	Files int              `json:"files"`
	Bytes int64            `json:"bytes"`
}

// CacheSets are the sets that were asked for.
type CacheSets struct {
	Sets []deploy.CacheSet `json:"sets"`
}

// CachesOf asks for the sets of a daemon, of one pipeline or, where it is empty, of all.
type CachesOf struct {
	Daemon   string `json:"daemon"`
	Pipeline string `json:"pipeline"`
}
