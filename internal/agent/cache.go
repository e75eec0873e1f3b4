package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// caches are what test jobs leave for those after them, in the agent's state
// directory:
//
//	caches/lock                  locked while something is changed
//	caches/PIPELINE.DAEMON/      of one pipeline of one daemon
//	    branch.json others.json  the sets: which directory has which content
//	    NAME/                    content of one directory of the workspace
//
// A set changes by a rename of its file, and a content never changes: whoever
// reads has it locked, and it is removed once no set names it and nobody reads
// it. So a set is whole whenever an agent is killed.
type caches struct {
	dir string
	own string            // directory of this agent alone, on the same file system
	got map[string]uint64 // by directory, the sum of what the workspace got: unless a job changes it, it is not the job's to keep
	now func() time.Time  // the daemon's clock

	mu     sync.Mutex // held while directories of the workspace are moved
	closed bool       // the agent ends, and removes its workspace: nothing of it may be moved any more
}

// close waits until nothing is moved out of the workspace, for good: what is
// removed meanwhile would be missing in the set.
func (c *caches) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// lockTime is how long a change of the caches waits for others'.
const lockTime = time.Minute

// setMost bounds the file of a set, in bytes.
const setMost = 256 << 10

// keptSet is the file of a set.
type keptSet struct {
	Format   int                `json:"format"`
	Pipeline string             `json:"pipeline"`
	Kind     deploy.CacheKind   `json:"kind"`
	Dirs     map[string]keptDir `json:"dirs"` // by path in the workspace
}

// keptDir is where the content of a directory is.
type keptDir struct {
	Name  string `json:"name"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
	Sum   uint64 `json:"sum"`
}

const setFormat = 1

var pipelineForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// parseSet reads the file of a set. What a step may have made of it is no set.
func parseSet(b []byte) (*keptSet, error) {
	var s keptSet
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	bad := s.Format != setFormat || !pipelineForm.MatchString(s.Pipeline) || !slices.Contains(kinds, s.Kind) || len(s.Dirs) > deploy.CacheDirsMost
	for dir, k := range s.Dirs {
		bad = bad || !validCacheDir(dir) || !nonceForm.MatchString(k.Name) || k.Files < 0 || k.Bytes < 0 ||
			k.Files > deploy.CacheSetFiles || k.Bytes > deploy.CacheSetBytes
	}
	if bad {
		return nil, errors.New("this is not a set of a cache")
	}
	return &s, nil
}

var kinds = []deploy.CacheKind{deploy.BranchCache, deploy.OthersCache}

// validCacheDir says whether a text is a clean path below the workspace.
func validCacheDir(dir string) bool {
	return dir != "" && len(dir) <= wire.NameMost && path.Clean(dir) == dir && dir != "." && filepath.IsLocal(dir) && !strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// keyOf is the directory of a pipeline's sets.
func keyOf(daemon, pipeline string) string { return pipeline + daemonMark(daemon) }

// daemonMark ends the names of a daemon's directories.
func daemonMark(daemon string) string {
	sum := sha256.Sum256([]byte(daemon))
	return "." + hex.EncodeToString(sum[:8])
}

func (c *caches) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

func (c *caches) file(key string, kind deploy.CacheKind) string {
	return c.path(key, string(kind)+".json")
}

// read reads a set and when it was used last; without one, it is empty.
func (c *caches) read(key string, kind deploy.CacheKind) (*keptSet, time.Time) {
	none := &keptSet{Format: setFormat, Kind: kind, Dirs: map[string]keptDir{}}
	f, err := os.OpenFile(c.file(key, kind), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return none, time.Time{}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > setMost {
		return none, time.Time{}
	}
	b, err := io.ReadAll(io.LimitReader(f, setMost))
	if err != nil {
		return none, time.Time{}
	}
	s, err := parseSet(b)
	if err != nil || s.Kind != kind || !strings.HasPrefix(key, s.Pipeline+".") {
		return none, time.Time{}
	}
	if s.Dirs == nil {
		s.Dirs = map[string]keptDir{}
	}
	return s, st.ModTime()
}

// write puts a set in the place of the one before, on disk when it returns.
func (c *caches) write(key string, s *keptSet) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := c.path(key, string(s.Kind)+".new")
	if err := os.RemoveAll(tmp); err != nil { // of an agent that was killed
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		c.touch(tmp)
		err = os.Rename(tmp, c.file(key, s.Kind))
	}
	return err
}

// touch dates the file of a set as the one that was used last of all: later
// than each other, also when the clock that those were dated by was ahead.
func (c *caches) touch(file string) {
	const after = time.Millisecond
	at := c.now()
	for _, key := range c.keys() {
		for _, kind := range kinds {
			if st, err := os.Lstat(c.file(key, kind)); err == nil && c.file(key, kind) != file && !st.ModTime().Before(at) {
				at = st.ModTime().Add(after)
			}
		}
	}
	_ = os.Chtimes(file, at, at)
}

// changing runs fn while no other agent changes the caches, and then removes
// what no set names any more.
func (c *caches) changing(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockTime, errors.New("other jobs are at the caches"))
	defer cancel()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(c.path("lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := waitLock(ctx, lock); err != nil {
		return err
	}
	err = fn()
	unused := c.unused()
	lock.Close()
	for _, dir := range unused {
		removeUnread(dir)
	}
	return err
}

// unused are the contents that no set names. It is called with the lock.
func (c *caches) unused() (dirs []string) {
	for _, key := range c.keys() {
		named := map[string]bool{}
		for _, kind := range kinds {
			s, _ := c.read(key, kind)
			for _, d := range s.Dirs {
				named[d.Name] = true
			}
		}
		entries, _ := os.ReadDir(c.path(key))
		for _, e := range entries {
			if nonceForm.MatchString(e.Name()) && !named[e.Name()] {
				dirs = append(dirs, c.path(key, e.Name()))
			}
		}
		if len(entries) == 0 {
			_ = os.Remove(c.path(key))
		}
	}
	return dirs
}

// removeUnread removes a content unless an agent reads it: the next change of
// the caches comes again.
func removeUnread(dir string) {
	d, err := os.OpenFile(dir, openDirFlags, 0)
	if err != nil {
		return
	}
	defer d.Close()
	if lockDir(d, unix.LOCK_EX) {
		if err := release.RemoveTree(dir); err != nil {
			fmt.Fprintln(os.Stderr, "removing a cache that nobody uses:", err)
		}
	}
}

// keys are the directories of pipelines.
func (c *caches) keys() (keys []string) {
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		if e.IsDir() && strings.Contains(e.Name(), ".") {
			keys = append(keys, e.Name())
		}
	}
	return keys
}

// oneSet is a set and where it is.
type oneSet struct {
	key  string
	set  *keptSet
	used time.Time
}

func (s *oneSet) size() (c cacheCount) {
	for _, d := range s.set.Dirs {
		c.files += d.Files
		c.bytes += d.Bytes
	}
	return c
}

// all are all sets of this user, those first that were used last.
func (c *caches) all() (list []oneSet) {
	for _, key := range c.keys() {
		for _, kind := range kinds {
			if s, used := c.read(key, kind); !used.IsZero() {
				list = append(list, oneSet{key, s, used})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b oneSet) int { return b.used.Compare(a.used) })
	return list
}

// content opens what a set has for a directory, and locks it against removal,
// and gives its sum; nil: it has none. Of a set that is changed meanwhile it is the old content
// or the new one.
func (c *caches) content(key string, kind deploy.CacheKind, dir string) (*os.File, uint64) {
	for range 10 {
		s, _ := c.read(key, kind)
		k, ok := s.Dirs[dir]
		if !ok {
			return nil, 0
		}
		d, err := os.OpenFile(c.path(key, k.Name), openDirFlags, 0)
		if err != nil {
			continue
		}
		if lockDir(d, unix.LOCK_SH) {
			// Removed before it was locked, if no set names it any more.
			if again, _ := c.read(key, kind); again.Dirs[dir] == k {
				return d, k.Sum
			}
		}
		d.Close()
	}
	return nil, 0
}

// restore makes the directories of a workspace that a set has. A set of other
// refs that lacks one takes that of the branch. What cannot be made is left
// out, with a sentence.
func (c *caches) restore(ctx context.Context, workspace string, q wire.Cache) (wire.Cached, error) {
	res := wire.Cached{Dirs: []wire.CachedDir{}, Notes: []string{}}
	key := keyOf(q.Daemon, q.Pipeline)
	for _, dir := range q.Dirs {
		kind := q.Kind
		from, sum := c.content(key, kind, dir)
		if from == nil && kind == deploy.OthersCache {
			kind = deploy.BranchCache
			from, sum = c.content(key, kind, dir)
		}
		if from == nil {
			continue
		}
		count, err := c.make(ctx, workspace, dir, from)
		from.Close()
		c.touch(c.file(key, kind))
		if ctx.Err() != nil || errors.Is(err, errHalf) {
			return res, fmt.Errorf("taking %s from the cache: %w", dir, err)
		}
		if err != nil {
			res.Notes = append(res.Notes, fmt.Sprintf("%s is not taken from the cache: %v", dir, plainError(err)))
			continue
		}
		c.got[dir] = sum
		res.Dirs = append(res.Dirs, wire.CachedDir{Dir: dir, Kind: kind, Files: count.files, Bytes: count.bytes})
	}
	return res, nil
}

// errHalf is a directory of the commit that got a part of the cache only: the
// steps must not see that.
var errHalf = errors.New("a part of it was made")

// make makes a directory of the workspace from its content. It is there whole,
// or not at all; where the commit has such a directory, the commit's files stay.
func (c *caches) make(ctx context.Context, workspace, dir string, from *os.File) (cacheCount, error) {
	parent, name, err := openBelow(workspace, dir, true)
	if err != nil {
		return cacheCount{}, err
	}
	defer parent.Close()
	copies := &cacheCopy{ctx: ctx, left: cacheCount{files: deploy.CacheSetFiles, bytes: deploy.CacheSetBytes}}
	if to, err := openAt(parent, name); err == nil {
		defer to.Close()
		copies.merge = true
		if err := copies.dir(from, to, 1); err != nil {
			return copies.count, fmt.Errorf("%w, as the commit has %s too: %w", errHalf, dir, plainError(err))
		}
		return copies.count, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return cacheCount{}, fmt.Errorf("the commit has something else there")
	}
	tmp := filepath.Join(c.own, ".restore")
	if err := release.RemoveTree(tmp); err != nil {
		return cacheCount{}, err
	}
	defer release.RemoveTree(tmp)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return cacheCount{}, err
	}
	to, err := os.OpenFile(tmp, openDirFlags, 0)
	if err != nil {
		return cacheCount{}, err
	}
	defer to.Close()
	if err := copies.dir(from, to, 1); err != nil {
		return cacheCount{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return cacheCount{}, err
	}
	if err := unix.Renameat(unix.AT_FDCWD, tmp, int(parent.Fd()), name); err != nil {
		return cacheCount{}, err
	}
	return copies.count, finish(parent, to, name, &st)
}

// keep takes directories of a workspace, whose job is done, into a set: they
// are moved, not copied. What the job got and did not change, and directories
// that the workspace does not have, stay as they are in the set.
func (c *caches) keep(ctx context.Context, workspace string, q wire.Cache) (wire.Cached, error) {
	res := wire.Cached{Dirs: []wire.CachedDir{}, Notes: []string{}}
	note := func(dir string, err error) {
		res.Notes = append(res.Notes, fmt.Sprintf("%s is not kept in the cache: %v", dir, plainError(err)))
	}
	if err := c.room(); err != nil {
		res.Notes = append(res.Notes, "nothing is kept in the cache: "+err.Error())
		return res, nil
	}
	type ready struct {
		dir   string
		count cacheCount
		in    *os.File
		name  string
	}
	var list []ready
	defer func() {
		for _, r := range list {
			r.in.Close()
		}
	}()
	left := setLeft(nil)
	for _, dir := range q.Dirs {
		in, name, err := openBelow(workspace, dir, false)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			note(dir, err)
			continue
		}
		count, err := prepare(ctx, in, name, left)
		if err != nil {
			in.Close()
			if !errors.Is(err, os.ErrNotExist) {
				note(dir, err)
			}
			continue
		}
		if sum, got := c.got[dir]; got && sum == count.sum {
			in.Close() // another job, beside this one, may have kept a newer one
			continue
		}
		left.files -= count.files
		left.bytes -= count.bytes
		list = append(list, ready{dir, count, in, name})
	}
	if len(list) == 0 {
		return res, nil
	}
	// After a power cut a file that a set names must not be empty.
	if err := unix.Syncfs(int(list[0].in.Fd())); err != nil {
		return res, fmt.Errorf("writing the cache to disk: %w", err)
	}
	key := keyOf(q.Daemon, q.Pipeline)
	err := c.changing(ctx, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return errors.New("the agent ends")
		}
		if err := os.MkdirAll(c.path(key), 0o700); err != nil {
			return err
		}
		s, _ := c.read(key, q.Kind)
		s.Pipeline = q.Pipeline
		maps.DeleteFunc(s.Dirs, func(dir string, _ keptDir) bool {
			return !slices.Contains(q.Dirs, dir) || slices.ContainsFunc(list, func(r ready) bool { return r.dir == dir })
		})
		for _, r := range list {
			// What stayed may leave less room than the workspace alone would.
			if left := setLeft(s.Dirs); r.count.files > left.files || r.count.bytes > left.bytes {
				note(r.dir, overSet())
				continue
			}
			name := newName()
			if err := unix.Renameat(int(r.in.Fd()), r.name, unix.AT_FDCWD, c.path(key, name)); err != nil {
				note(r.dir, err)
				continue
			}
			s.Dirs[r.dir] = keptDir{name, r.count.files, r.count.bytes, r.count.sum}
			res.Dirs = append(res.Dirs, wire.CachedDir{Dir: r.dir, Kind: q.Kind, Files: r.count.files, Bytes: r.count.bytes})
		}
		if err := c.write(key, s); err != nil {
			return err
		}
		for _, ended := range c.over(key, q.Kind) {
			res.Notes = append(res.Notes, fmt.Sprintf("the cache of %s (%s), used last at %s, is ended: all together may have %d GiB and be %d",
				ended.set.Pipeline, ended.set.Kind, ended.used.UTC().Format(time.RFC3339), int64(deploy.CacheUserBytes)>>30, deploy.CacheUserSets))
		}
		return nil
	})
	if err != nil {
		return res, fmt.Errorf("keeping the cache: %w", plainError(err))
	}
	return res, nil
}

// prepare measures a directory, and makes sure that it can be moved.
func prepare(ctx context.Context, in *os.File, name string, left cacheCount) (cacheCount, error) {
	d, err := openAt(in, name)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return cacheCount{}, errors.New("it is not a directory")
	case err != nil:
		return cacheCount{}, err
	}
	defer d.Close()
	count, err := measure(ctx, d, left)
	if errors.Is(err, errTooLarge) {
		return count, overSet()
	}
	if err != nil {
		return count, err
	}
	st, err := d.Stat()
	if err != nil {
		return count, err
	}
	// Moving a directory writes to it: its .. becomes another.
	return count, d.Chmod(st.Mode().Perm() | 0o700)
}

func overSet() error {
	return fmt.Errorf("a set may have %d GiB and %d files", int64(deploy.CacheSetBytes)>>30, deploy.CacheSetFiles)
}

// over ends the sets that are too many, but for the one that was just kept. It
// is called with the lock.
func (c *caches) over(key string, kind deploy.CacheKind) (ended []oneSet) {
	var bytes int64
	n := 0
	for _, s := range c.all() { // the last used first
		mine := s.key == key && s.set.Kind == kind
		bytes += s.size().bytes
		if n++; !mine && (bytes > deploy.CacheUserBytes || n > deploy.CacheUserSets) {
			if os.Remove(c.file(s.key, s.set.Kind)) == nil {
				ended = append(ended, s)
				bytes -= s.size().bytes
				n--
			}
		}
	}
	return ended
}

// room refuses to keep anything where little is free: what jobs deploy comes first.
func (c *caches) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(c.own, &st); err != nil {
		return plainError(err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < deploy.CacheFree {
		return fmt.Errorf("%d MiB are free, and %d stay so", free>>20, deploy.CacheFree>>20)
	}
	return nil
}

// sets lists the sets of a daemon, of one pipeline or of all.
func (c *caches) sets(q wire.CachesOf) (list []oneSet) {
	for _, s := range c.all() {
		if s.key == keyOf(q.Daemon, s.set.Pipeline) && (q.Pipeline == "" || q.Pipeline == s.set.Pipeline) {
			list = append(list, s)
		}
	}
	return list
}

// clear ends sets, and says which. A job that is reading one goes on.
func (c *caches) clear(ctx context.Context, q wire.CachesOf) (ended []oneSet, err error) {
	err = c.changing(ctx, func() error {
		for _, s := range c.sets(q) {
			if err := os.Remove(c.file(s.key, s.set.Kind)); err != nil {
				return err
			}
			ended = append(ended, s)
		}
		return nil
	})
	return ended, err
}

func newName() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// plainError says what the system said, without names of calls.
func plainError(err error) error {
	var p *os.PathError
	switch {
	case errors.Is(err, unix.ENOSPC):
		return errors.New("no space left on the disk")
	case errors.As(err, &p):
		return fmt.Errorf("%q: %w", filepath.Base(p.Path), p.Err)
	}
	return err
}

// cacheRoutes are what an agent does with caches.
func (a *Agent) cacheRoutes(m *http.ServeMux) {
	m.HandleFunc("POST "+wire.RouteCacheRestore, a.onCache((*caches).restore))
	m.HandleFunc("POST "+wire.RouteCacheKeep, a.onCache((*caches).keep))
	m.HandleFunc("POST "+wire.RouteCacheList, handle(func(_ *http.Request, q wire.CachesOf) (wire.CacheSets, error) {
		return setsView(a.caches.sets(q), nil)
	}))
	m.HandleFunc("POST "+wire.RouteCacheClear, handle(func(r *http.Request, q wire.CachesOf) (wire.CacheSets, error) {
		return setsView(a.caches.clear(r.Context(), q))
	}))
}

// onCache is handle for what is about the workspace and a set.
func (a *Agent) onCache(fn func(c *caches, ctx context.Context, workspace string, q wire.Cache) (wire.Cached, error)) http.HandlerFunc {
	return handle(func(r *http.Request, q wire.Cache) (wire.Cached, error) {
		a.mu.Lock()
		workspace := a.workspace
		a.mu.Unlock()
		switch {
		case workspace == "":
			return wire.Cached{}, errors.New("no workspace is open")
		case !pipelineForm.MatchString(q.Pipeline) || !slices.Contains(kinds, q.Kind) || len(q.Dirs) > deploy.CacheDirsMost || slices.ContainsFunc(q.Dirs, func(d string) bool { return !validCacheDir(d) }):
			return wire.Cached{}, errors.New("this is not a set of a cache")
		}
		return fn(a.caches, r.Context(), workspace, q)
	})
}

func setsView(list []oneSet, err error) (wire.CacheSets, error) {
	res := wire.CacheSets{Sets: []deploy.CacheSet{}}
	for _, s := range list[:min(len(list), deploy.CacheUserSets)] {
		size := s.size()
		res.Sets = append(res.Sets, deploy.CacheSet{
			Pipeline: s.set.Pipeline, Kind: s.set.Kind, Dirs: slices.Sorted(maps.Keys(s.set.Dirs)), Files: size.files, Bytes: size.bytes, Used: s.used.UTC(),
		})
	}
	return res, err
}
