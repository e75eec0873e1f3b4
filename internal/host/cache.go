package host

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// Types of caches, as they go over the connection.
type (
	Cache  = wire.Cache
	Cached = wire.Cached
)

// notesMost is how many sentences an agent has about a cache.
const notesMost = 2*deploy.CacheDirsMost + deploy.CacheUserSets

// RestoreCache makes the directories of the workspace that a set has. What it
// could not make is said in the notes; with an error the workspace is not to
// be used.
func (c *Conn) RestoreCache(ctx context.Context, q Cache) (Cached, error) {
	return cached(callFor[wire.Cached](ctx, c, syncTime, wire.RouteCacheRestore, q))
}

// KeepCache takes directories of the workspace into a set. They are not in the
// workspace any more.
func (c *Conn) KeepCache(ctx context.Context, q Cache) (Cached, error) {
	return cached(callFor[wire.Cached](ctx, c, syncTime, wire.RouteCacheKeep, q))
}

// Caches lists the sets of a daemon, of one pipeline or, where it is empty, of
// all.
func (c *Conn) Caches(ctx context.Context, daemon, pipeline string) ([]deploy.CacheSet, error) {
	w, err := call[wire.CacheSets](ctx, c, wire.RouteCacheList, wire.CachesOf{Daemon: daemon, Pipeline: pipeline})
	return sets(c.o.Clock(), w, err)
}

// ClearCaches ends those sets and says which they were.
func (c *Conn) ClearCaches(ctx context.Context, daemon, pipeline string) ([]deploy.CacheSet, error) {
	w, err := callFor[wire.CacheSets](ctx, c, syncTime, wire.RouteCacheClear, wire.CachesOf{Daemon: daemon, Pipeline: pipeline})
	return sets(c.o.Clock(), w, err)
}

// cached checks what an agent says of a cache.
func cached(w wire.Cached, err error) (wire.Cached, error) {
	if err != nil {
		return wire.Cached{}, err
	}
	if len(w.Dirs) > deploy.CacheDirsMost || len(w.Notes) > notesMost || slices.ContainsFunc(w.Dirs, func(d wire.CachedDir) bool {
		return !validDir(d.Dir) || !validKind(d.Kind) || d.Files < 0 || d.Bytes < 0
	}) {
		return wire.Cached{}, errors.New("the agent tells of a cache that is none")
	}
	for i, n := range w.Notes {
		w.Notes[i] = line(n, textMost)
	}
	return w, nil
}

// sets checks the sets that an agent tells of.
func sets(now time.Time, w wire.CacheSets, err error) ([]deploy.CacheSet, error) {
	if err != nil {
		return nil, err
	}
	now = now.UTC()
	bad := len(w.Sets) > deploy.CacheUserSets
	for i := range w.Sets {
		s := &w.Sets[i]
		bad = bad || s.Pipeline == "" || len(s.Pipeline) > 64 || line(s.Pipeline, 64) != s.Pipeline || !validKind(s.Kind) ||
			len(s.Dirs) > deploy.CacheDirsMost || slices.ContainsFunc(s.Dirs, func(d string) bool { return !validDir(d) }) || s.Files < 0 || s.Bytes < 0
		s.Host, s.User = "", ""
		if s.Used = s.Used.UTC(); s.Used.After(now) || s.Used.Year() < 1970 { // times are the daemon's
			s.Used = now
		}
		if s.Dirs == nil {
			s.Dirs = []string{}
		}
	}
	if bad {
		return nil, errors.New("the agent tells of a cache that is none")
	}
	return w.Sets, nil
}

func validKind(k deploy.CacheKind) bool { return k == deploy.BranchCache || k == deploy.OthersCache }

// validDir says whether a text may be a directory of a workspace.
func validDir(d string) bool {
	return d != "" && len(d) <= wire.NameMost && !path.IsAbs(d) && line(d, wire.NameMost) == d
}
