package git

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// everything is the depth that completes a shallow history.
//
// Source: git's INFINITE_DEPTH (shallow.h).
const everything = math.MaxInt32

// way is one way of asking for a commit.
type way struct {
	direct bool                                     // by their ids
	wants  func(name string, id plumbing.Hash) bool // of the refs; nil: none
	names  []string                                 // that refs begin with, of which it is asked
	depth  int
}

// wantsMost is how many refs are asked for when nobody knows which one has the
// commit.
const wantsMost = 50_000

// ways are tried in turn until the commit is there.
func (m *Mirror) ways(hash plumbing.Hash, ref string) []way {
	depth, full := m.remote.Depth, fullRef(ref)
	tip := way{names: []string{full}, depth: depth, wants: func(name string, id plumbing.Hash) bool { return name == full && id != hash }}
	any := way{names: []string{"refs/heads/", "refs/tags/"}, wants: func(name string, _ plumbing.Hash) bool {
		return strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/")
	}}
	// The commit itself comes first: what a ref points at every server gives,
	// and most give others when asked by their ids.
	list := []way{{direct: true, depth: depth}}
	if full != "" {
		list = append(list, tip)
		if depth > 0 {
			tip.depth = everything
			list = append(list, tip)
		}
	}
	if depth > 0 {
		any.depth = everything
	}
	return append(list, any)
}

// wantsOf finds out what to ask a server for. Of a million refs none is kept
// that is not asked for.
func (w way) wantsOf(c conversation, g *greeting, hashes []plumbing.Hash) ([]plumbing.Hash, error) {
	if w.direct && (g.v2 || g.can("allow-reachable-sha1-in-want") || g.can("allow-tip-sha1-in-want")) {
		return hashes, nil
	}
	wanted := map[plumbing.Hash]bool{}
	seen := false
	each := func(r advertised) error {
		seen = true
		if w.direct && slices.Contains(hashes, r.id) || w.wants != nil && w.wants(r.name, r.id) {
			wanted[r.id] = true
		}
		if len(wanted) > wantsMost {
			return fmt.Errorf("it has more than %d branches and tags, of which none is known to have the commit", wantsMost)
		}
		return nil
	}
	if g.v2 {
		in, err := c.ask(g.lsRefs(w.names))
		if err == nil {
			err = listed(in, each)
		}
		if err != nil {
			return nil, err
		}
	} else if err := g.refs(each); err != nil {
		return nil, err
	}
	if !seen && len(w.names) > 1 {
		return nil, transport.ErrEmptyRemoteRepository
	}
	return slices.Collect(maps.Keys(wanted)), nil
}

// errStale is a mirror that is better fetched anew than gone on with.
var errStale = errors.New("its list of shallow commits is long")

// bring fetches until the commit is in the mirror, and peels it. The lock is
// held. Its errors say what the user can do, or are [errDamaged].
func (m *Mirror) bring(ctx context.Context, hash plumbing.Hash, ref string) (string, error) {
	o, err := m.openOrMake()
	if err != nil {
		return "", err
	}
	defer func() { o.close() }()
	if commit, err := o.peel(hash); !errors.Is(err, errNotHere) {
		if err == nil {
			m.remember(ref, plumbing.NewHash(commit)) // another fetch brought it
		}
		return commit, err
	}
	if o.lost != nil {
		return "", o.lost
	}
	if edge, err := o.shallow(); err == nil && len(edge) > shallowMost {
		return "", errStale
	}
	remote, err := m.connector()
	if err != nil {
		return "", err
	}
	if path, ok := remote.(local); ok {
		if err := m.copyFrom(ctx, string(path), o, hash); err != nil {
			return "", err
		}
		return m.here(hash)
	}
	var last error
	for _, way := range m.ways(hash, ref) {
		hashes := []plumbing.Hash{hash}
		if way.direct {
			hashes = append(hashes, m.others(o, hash)...)
		}
		asked, err := m.askFor(ctx, remote, o, way, hashes)
		for err != nil && len(hashes) > 1 && !isFatal(err) && ctx.Err() == nil {
			// One that is not there keeps the others from coming.
			hashes = without(hashes, err)
			asked, err = m.askFor(ctx, remote, o, way, hashes)
		}
		if errors.Is(err, errDamaged) {
			return "", err
		}
		if err != nil && (!asked || ctx.Err() != nil || isFatal(err)) {
			return "", m.explain(ctx, err)
		}
		last = err // servers refuse single commits in many words
		if !asked || err != nil {
			continue
		}
		o.close()
		if o, err = m.openOrMake(); err != nil {
			return "", err
		}
		if commit, err := o.peel(hash); !errors.Is(err, errNotHere) {
			if err == nil {
				m.remember(ref, plumbing.NewHash(commit))
			}
			return commit, err
		}
	}
	if last != nil {
		return "", m.explain(ctx, last)
	}
	return "", m.gone(hash)
}

// without leaves out the commit that a server says it does not have, or, when
// it names none, all but the first, which is never left out.
//
// Source: git's upload-pack, "not our ref".
func without(hashes []plumbing.Hash, said error) []plumbing.Hash {
	rest := slices.DeleteFunc(slices.Clone(hashes[1:]), func(h plumbing.Hash) bool { return strings.Contains(said.Error(), h.String()) })
	if len(rest) == len(hashes)-1 {
		return hashes[:1]
	}
	return append(hashes[:1:1], rest...)
}

// gone is a commit that the remote does not give.
func (m *Mirror) gone(hash plumbing.Hash) error {
	return fmt.Errorf("commit %s is not in %s any more: it was removed, or the branch was forced since", hash, m.remote.Repository)
}

// askFor asks once. asked says whether there was anything to ask for.
func (m *Mirror) askFor(ctx context.Context, remote connector, o *objects, way way, hashes []plumbing.Hash) (asked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := remote.connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.close()
	g, err := c.greet()
	if err != nil {
		return false, c.failed(err)
	}
	wants, err := way.wantsOf(c, g, hashes)
	if err != nil || len(wants) == 0 {
		return false, c.failed(err)
	}
	edge, err := o.shallow()
	if err != nil {
		return false, err
	}
	q := &request{wants: wants, haves: m.haves(o), depth: way.depth, shallows: slices.Collect(maps.Keys(edge))}
	switch {
	case len(edge) == 0 && len(q.haves) > 0:
		q.depth = 0 // whole, and stays so: only what is new is sent anyway
	case len(edge) > 0 && q.depth == 0:
		q.depth = everything
	case q.depth == everything && len(edge) == 0:
		q.depth = 0
	}
	if (q.depth > 0 || len(edge) > 0) && !g.can("shallow") && !g.canFetch("shallow") {
		return false, errors.New("the server does not support depth")
	}
	if q.depth == 0 && !slices.ContainsFunc(wants, func(h plumbing.Hash) bool { return !o.has(h) }) {
		return false, nil // all of it is here
	}
	in, err := c.ask(q.encode(g))
	if err != nil {
		return true, c.failed(err)
	}
	a, err := readAnswer(in, g.v2)
	if err != nil {
		return true, c.failed(err)
	}
	// Shallow commits are known as such before they are here, and forgotten
	// after their parents are: a crash between leaves a history that is called
	// shorter than it is, never longer.
	for _, h := range a.shallow {
		edge[h] = true
	}
	if len(a.shallow) > 0 {
		if err := o.setShallow(edge); err != nil {
			return true, err
		}
	}
	if err := receive(ctx, m.dir, a.pack, cancel, &o.packs); err != nil {
		return true, &halfway{err}
	}
	return true, m.mend(edge, a.unshallow)
}

// halfway is a failure after the server agreed to send what was asked for.
type halfway struct{ error }

func (h *halfway) Unwrap() error { return h.error }

// mend takes from the list of shallow commits those whose parents are here.
func (m *Mirror) mend(edge map[plumbing.Hash]bool, gone []plumbing.Hash) error {
	before := len(edge)
	if before == 0 {
		return nil
	}
	for _, h := range gone {
		delete(edge, h)
	}
	o, err := m.open()
	if err != nil {
		return err
	}
	defer o.close()
	for h := range edge {
		c, err := o.commit(h)
		if err != nil {
			continue
		}
		parents := 0
		for _, p := range c.ParentHashes {
			if o.has(p) {
				parents++
			}
		}
		if parents == len(c.ParentHashes) {
			delete(edge, h)
		}
	}
	if len(edge) == before {
		return nil
	}
	return o.setShallow(edge)
}

// What the mirror has is told to servers by a bounded number of commits: the
// last one fetched of each ref, in one of slots files called by the hash of the
// ref's name. Names of refs are an outsider's: too long for a file, or one the
// directory of another.
const (
	slots     = 256
	slotsDeep = 8    // of the newest slots also older commits are told
	deepMost  = 1024 // commits back
)

func (m *Mirror) slotsDir() string { return filepath.Join(m.dir, "refs", "deployhook") }

// remember notes that a commit and all before it are here. It is a hint only.
func (m *Mirror) remember(ref string, commit plumbing.Hash) {
	if ref == "" {
		ref = commit.String()
	}
	sum := sha256.Sum256([]byte(fullRef(ref)))
	err := os.MkdirAll(m.slotsDir(), 0o750)
	if err == nil {
		err = writeFile(filepath.Join(m.slotsDir(), fmt.Sprintf("%02x", sum[0])), commit.String()+"\n")
	}
	if err != nil {
		m.m.log.Warn("the next fetch will be larger than it needs to be", "repo", m.remote.Repository, "err", err)
	}
}

// haves are commits that are here with all that is before them, up to the
// shallow ones.
func (m *Mirror) haves(o *objects) []plumbing.Hash {
	files, err := os.ReadDir(m.slotsDir())
	if err != nil {
		return nil
	}
	var tips []*object.Commit
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(m.slotsDir(), f.Name()))
		if err != nil || len(tips) == slots {
			continue
		}
		if c, err := o.commit(plumbing.NewHash(strings.TrimSpace(string(b)))); err == nil {
			tips = append(tips, c)
		}
	}
	sort.Slice(tips, func(i, j int) bool { return tips[i].Committer.When.After(tips[j].Committer.When) })
	list := map[plumbing.Hash]bool{}
	for i, c := range tips {
		list[c.Hash] = true
		// The server may have forgotten the tip, after a force push.
		for n, next := 1, 1; i < slotsDeep && n < deepMost && len(c.ParentHashes) > 0; n++ {
			if c, err = o.commit(c.ParentHashes[0]); err != nil {
				break
			}
			if n == next {
				list[c.Hash] = true
				next *= 2
			}
		}
	}
	haves := make([]plumbing.Hash, 0, len(list))
	for h := range list {
		haves = append(haves, h)
	}
	return haves
}

// fullRef is a ref by its whole name; what is none is a branch.
func fullRef(ref string) string {
	if ref == "" || strings.HasPrefix(ref, "refs/") {
		return ref
	}
	return "refs/heads/" + ref
}
