package git

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// everything is the depth that completes a shallow history.
//
// Source: git's INFINITE_DEPTH (shallow.h).
const everything = math.MaxInt32

// ask is one way of asking for a commit: what is wanted, and how deep.
type ask func(adv *packp.AdvRefs) (wants []plumbing.Hash, depth int)

// asks are tried in turn until the commit is there.
func (m *Mirror) asks(hash plumbing.Hash, ref string) []ask {
	depth := m.remote.Depth
	tip := func(adv *packp.AdvRefs) []plumbing.Hash {
		if h, ok := adv.References[fullRef(ref)]; ok && h != hash {
			return []plumbing.Hash{h}
		}
		return nil
	}
	list := []ask{
		// The commit itself: what a ref points at every server gives, and most
		// give others when asked by their ids.
		func(adv *packp.AdvRefs) ([]plumbing.Hash, int) {
			c := adv.Capabilities
			if c.Supports(capability.AllowReachableSHA1InWant) || c.Supports(capability.AllowTipSHA1InWant) || advertised(adv, hash) {
				return []plumbing.Hash{hash}, depth
			}
			return nil, 0
		},
		func(adv *packp.AdvRefs) ([]plumbing.Hash, int) { return tip(adv), depth },
	}
	if depth > 0 {
		list = append(list, func(adv *packp.AdvRefs) ([]plumbing.Hash, int) { return tip(adv), everything })
	}
	return append(list, func(adv *packp.AdvRefs) ([]plumbing.Hash, int) {
		var all []plumbing.Hash
		for name, h := range adv.References {
			if strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/") {
				all = append(all, h)
			}
		}
		if depth > 0 {
			return all, everything
		}
		return all, 0
	})
}

func advertised(adv *packp.AdvRefs, hash plumbing.Hash) bool {
	if adv.Head != nil && *adv.Head == hash {
		return true
	}
	for _, h := range adv.References {
		if h == hash {
			return true
		}
	}
	return false
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
		return commit, err // another fetch brought it
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
	for _, ask := range m.asks(hash, ref) {
		asked, err := m.askFor(ctx, remote, o, ref, ask)
		if errors.Is(err, errDamaged) {
			return "", err
		}
		if err != nil && (!asked || ctx.Err() != nil || isFatal(err)) {
			return "", m.explain(ctx, err)
		}
		last = err // servers refuse single commits in many words
		if !asked {
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

// gone is a commit that the remote does not give.
func (m *Mirror) gone(hash plumbing.Hash) error {
	return fmt.Errorf("commit %s is not in %s any more: it was removed, or the branch was forced since", hash, m.remote.Repository)
}

// askFor asks once. asked says whether there was anything to ask for.
func (m *Mirror) askFor(ctx context.Context, remote connector, o *objects, ref string, ask ask) (asked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := remote.connect(ctx)
	if err != nil {
		return false, err
	}
	defer s.Close()
	adv, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		return false, err
	}
	wants, depth := ask(adv)
	if len(wants) == 0 {
		return false, nil
	}
	edge, err := o.shallow()
	if err != nil {
		return false, err
	}
	haves := m.haves(o)
	switch {
	case len(edge) == 0 && len(haves) > 0:
		depth = 0 // whole, and stays so: only what is new is sent anyway
	case len(edge) > 0 && depth == 0:
		depth = everything
	case depth == everything && len(edge) == 0:
		depth = 0
	}
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants, req.Haves, req.Depth = wants, haves, packp.DepthCommits(depth)
	for h := range edge {
		req.Shallows = append(req.Shallows, h)
	}
	if depth > 0 || len(edge) > 0 {
		if !adv.Capabilities.Supports(capability.Shallow) {
			return false, errors.New("the server does not support depth")
		}
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return false, err
		}
	}
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return false, err
		}
	}
	if req.IsEmpty() {
		return false, nil // all of it is here
	}
	res, err := s.UploadPack(ctx, req)
	if errors.Is(err, transport.ErrEmptyUploadPackRequest) { // the library's word for an empty answer
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return true, err
	}
	defer res.Close()
	// Shallow commits are known as such before they are here, and forgotten
	// after their parents are: a crash between leaves a history that is called
	// shorter than it is, never longer.
	for _, h := range res.Shallows {
		edge[h] = true
	}
	if len(res.Shallows) > 0 {
		if err := o.setShallow(edge); err != nil {
			return true, err
		}
	}
	if err := receive(ctx, m.dir, demuxed(req, res), cancel, &o.packs); err != nil {
		return true, &halfway{err}
	}
	return true, m.mend(edge, res.Unshallows)
}

// halfway is a failure after the server agreed to send what was asked for.
type halfway struct{ error }

func (h *halfway) Unwrap() error { return h.error }

// demuxed is the pack in a response.
func demuxed(req *packp.UploadPackRequest, res io.Reader) io.Reader {
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, res)
	}
	return res
}

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
