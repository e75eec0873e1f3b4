// Package git keeps a bare mirror of every repository and reads commits from
// it, without a git binary.
package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"
)

// ErrHistory is an ancestry that cannot be read: a commit is missing, or the
// history is cut short.
var ErrHistory = errors.New("the history cannot be read")

// ErrNoRef is a ref that the remote does not have.
var ErrNoRef = errors.New("there is no such ref")

const (
	fetchTime   = 10 * time.Minute // of one fetch, stalls included
	cacheBytes  = 8 << 20          // objects kept in memory while one is read
	streamAbove = 4 << 20          // objects above it are never held in memory whole
)

// Remote says where a repository is fetched from, and how.
type Remote struct {
	Repository      string // its identity, which names it in messages and the mirror on disk
	URL             string // https, ssh, user@host:path, file or a path
	Username, Token string // HTTPS; a token without a user name goes as x-access-token
	SSHKey          []byte // PEM
	KnownHosts      []byte // known_hosts lines, beside those of the large forges
	Depth           int    // commits of history; 0 = all
}

// Mirrors are the mirrors of one data directory.
type Mirrors struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex
	locks map[string]chan struct{} // by directory
}

// Open uses dir for mirrors; it is made where it is missing.
func Open(dir string, log *slog.Logger) (*Mirrors, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the directory for mirrors: %w", err)
	}
	return &Mirrors{dir: dir, log: log, locks: map[string]chan struct{}{}}, nil
}

// Mirror is one repository. Making one touches neither disk nor network.
type Mirror struct {
	m      *Mirrors
	remote Remote
	dir    string
	lock   chan struct{} // of fetches: they write to the same directory
}

// Mirror gives the mirror of a remote. One repository fetched from two places
// has two: what one of them says is not believed of the other.
func (m *Mirrors) Mirror(r Remote) *Mirror {
	sum := sha256.Sum256([]byte(r.URL))
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '_'
	}, strings.ToLower(r.Repository))
	if len(name) > 80 {
		name = name[:80]
	}
	dir := filepath.Join(m.dir, strings.TrimLeft(name, ".")+"-"+hex.EncodeToString(sum[:4])+".git")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[dir] == nil {
		m.locks[dir] = make(chan struct{}, 1)
	}
	return &Mirror{m: m, remote: r, dir: dir, lock: m.locks[dir]}
}

// storage is the mirror's directory.
func (m *Mirror) storage() *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(m.dir), cache.NewObjectLRU(cacheBytes), filesystem.Options{LargeObjectThreshold: streamAbove})
}

// open opens the mirror on disk.
func (m *Mirror) open() (*gogit.Repository, error) {
	if err := m.whole(); err != nil {
		return nil, err
	}
	repo, err := gogit.Open(m.storage(), nil)
	if err != nil {
		return nil, fmt.Errorf("opening the mirror of %s: %w", m.remote.Repository, err)
	}
	return repo, nil
}

// whole finds packs that a crash or a full disk left empty: the library would
// stumble over them at any object.
func (m *Mirror) whole() error {
	const least = 32 // bytes: header and checksum
	packs, err := filepath.Glob(filepath.Join(m.dir, "objects", "pack", "*.pack"))
	if err != nil {
		return err
	}
	for _, p := range packs {
		for _, name := range []string{p, strings.TrimSuffix(p, ".pack") + ".idx"} {
			if st, err := os.Stat(name); err != nil || st.Size() < least {
				return fmt.Errorf("%s is damaged", filepath.Base(name))
			}
		}
	}
	return nil
}

// openOrMake opens the mirror, or makes it. It is called with the lock held.
func (m *Mirror) openOrMake() (*gogit.Repository, error) {
	repo, err := m.open()
	if !errors.Is(err, gogit.ErrRepositoryNotExists) {
		return repo, err
	}
	if err := os.RemoveAll(m.dir); err != nil { // half of one, left by a crash
		return nil, err
	}
	return gogit.Init(m.storage(), nil)
}

// Fetch sees to it that a commit is in the mirror, and gives its id: sha
// itself, or for an annotated tag the commit that it names. ref is where it was
// pushed to, and may be empty, moved or gone since. Nothing is fetched when it
// is there already.
func (m *Mirror) Fetch(ctx context.Context, sha, ref string) (string, error) {
	if !plumbing.IsHash(sha) || len(sha) != 40 {
		return "", fmt.Errorf("%q is not a commit of %s", cut(sha), m.remote.Repository)
	}
	hash := plumbing.NewHash(sha)
	if repo, err := m.open(); err == nil {
		if commit, err := peel(repo, hash); err == nil {
			return commit, nil
		}
	}
	select {
	case m.lock <- struct{}{}:
		defer func() { <-m.lock }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	commit, err := m.fetch(ctx, hash, ref)
	if errors.Is(err, errDamaged) {
		m.m.log.Warn("the mirror is damaged and is made anew", "repo", m.remote.Repository, "err", err)
		if err := os.RemoveAll(m.dir); err != nil {
			return "", fmt.Errorf("removing the damaged mirror of %s: %w", m.remote.Repository, err)
		}
		commit, err = m.fetch(ctx, hash, ref)
	}
	return commit, err
}

// errDamaged is a mirror that cannot be used as it is on disk.
var errDamaged = errors.New("damaged")

func (m *Mirror) fetch(ctx context.Context, hash plumbing.Hash, ref string) (string, error) {
	repo, err := m.openOrMake()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errDamaged, err)
	}
	if commit, err := peel(repo, hash); err == nil {
		return commit, nil // another fetch brought it
	}
	auth, err := m.auth()
	if err != nil {
		return "", err
	}
	var specs [][]config.RefSpec
	if full := fullRef(ref); full != "" {
		specs = append(specs, []config.RefSpec{config.RefSpec("+" + full + ":refs/deployhook/" + strings.TrimPrefix(full, "refs/"))})
	}
	specs = append(specs,
		// The commit itself, where the server gives what it does not advertise.
		[]config.RefSpec{config.RefSpec(hash.String() + ":refs/deployhook/commits/" + hash.String())},
		[]config.RefSpec{"+refs/heads/*:refs/deployhook/heads/*", "+refs/tags/*:refs/deployhook/tags/*"})
	for _, spec := range specs {
		err := m.fetchSpec(ctx, repo, auth, spec)
		if commit, perr := peel(repo, hash); perr == nil {
			return commit, nil
		}
		switch {
		case err == nil, errors.Is(err, gogit.NoErrAlreadyUpToDate), errors.Is(err, gogit.ErrExactSHA1NotSupported), isNoRef(err):
			continue // not there: look elsewhere
		case errors.Is(err, transport.ErrEmptyRemoteRepository):
			return "", fmt.Errorf("%s is empty", m.remote.Repository)
		case spec[0].IsExactSHA1() && errors.Is(err, plumbing.ErrObjectNotFound):
			continue // what a repository says that is a path
		case isLocal(err):
			return "", fmt.Errorf("%w: %w", errDamaged, err)
		case spec[0].IsExactSHA1() && ctx.Err() == nil && !isFatal(err):
			continue // servers refuse it in many words
		}
		return "", m.explain(ctx, err)
	}
	return "", fmt.Errorf("commit %s is not in %s any more: it was removed, or the branch was forced since", hash, m.remote.Repository)
}

func (m *Mirror) fetchSpec(ctx context.Context, repo *gogit.Repository, auth transport.AuthMethod, specs []config.RefSpec) error {
	remote := gogit.NewRemote(repo.Storer, &config.RemoteConfig{Name: "origin", URLs: []string{m.remote.URL}})
	return remote.FetchContext(ctx, &gogit.FetchOptions{RefSpecs: specs, Auth: auth, Depth: m.depth(), Tags: gogit.NoTags, Force: true})
}

// depth is how much history a fetch asks for. A path has no server that could
// cut it short, and nothing travels far.
func (m *Mirror) depth() int {
	if ep, err := transport.NewEndpoint(m.remote.URL); err == nil && ep.Protocol == "file" {
		return 0
	}
	return m.remote.Depth
}

// peel gives the commit that an object is or names; it must be whole.
func peel(repo *gogit.Repository, hash plumbing.Hash) (string, error) {
	for range 10 {
		if c, err := repo.CommitObject(hash); err == nil {
			_, err := repo.TreeObject(c.TreeHash)
			return c.Hash.String(), err
		}
		tag, err := repo.TagObject(hash)
		if err != nil {
			return "", err
		}
		if tag.TargetType != plumbing.CommitObject && tag.TargetType != plumbing.TagObject {
			return "", fmt.Errorf("tag %s names no commit", tag.Name)
		}
		hash = tag.Target
	}
	return "", errors.New("a tag names itself")
}

// Resolve asks the remote what a ref is now: a full ref, a branch, a tag, or
// empty for the default branch. For annotated tags it is the tag object.
// [ErrNoRef]: the remote has no such ref.
func (m *Mirror) Resolve(ctx context.Context, ref string) (string, error) {
	auth, err := m.auth()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	remote := gogit.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{m.remote.URL}})
	refs, err := remote.ListContext(ctx, &gogit.ListOptions{Auth: auth})
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return "", fmt.Errorf("%s is empty", m.remote.Repository)
	}
	if err != nil {
		return "", m.explain(ctx, err)
	}
	byName := map[string]*plumbing.Reference{}
	for _, r := range refs {
		byName[r.Name().String()] = r
	}
	for _, name := range []string{ref, "refs/heads/" + ref, "refs/tags/" + ref} {
		if ref == "" {
			name = "HEAD"
		}
		r := byName[name]
		for n := 0; r != nil && r.Type() == plumbing.SymbolicReference && n < 5; n++ {
			r = byName[r.Target().String()]
		}
		if r != nil && r.Type() == plumbing.HashReference {
			return r.Hash().String(), nil
		}
	}
	if ref == "" {
		return "", fmt.Errorf("%s has no default branch", m.remote.Repository)
	}
	return "", noRef{fmt.Sprintf("%s has no %s", m.remote.Repository, cut(ref))}
}

// noRef is [ErrNoRef] with the sentence that names both.
type noRef struct{ text string }

func (e noRef) Error() string        { return e.text }
func (e noRef) Is(target error) bool { return target == ErrNoRef }

// Commit is what is said of a commit.
type Commit struct {
	Message, Author string
	Time            time.Time
}

// Commit reads a commit that is in the mirror.
func (m *Mirror) Commit(_ context.Context, sha string) (Commit, error) {
	repo, err := m.open()
	if err != nil {
		return Commit{}, err
	}
	c, err := repo.CommitObject(plumbing.NewHash(sha))
	if err != nil {
		return Commit{}, fmt.Errorf("reading commit %s of %s: %w", cut(sha), m.remote.Repository, err)
	}
	return Commit{Message: c.Message, Author: c.Author.Name, Time: c.Author.When}, nil
}

// IsAncestor says whether one commit is another's ancestor, or the same, as
// git merge-base --is-ancestor. [ErrHistory]: it cannot be told from what is here.
func (m *Mirror) IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error) {
	repo, err := m.open()
	if err != nil {
		return false, err
	}
	want := plumbing.NewHash(ancestor)
	if _, err := repo.CommitObject(want); err != nil {
		return false, fmt.Errorf("%w: %s is not here", ErrHistory, cut(ancestor))
	}
	shallow, err := repo.Storer.Shallow()
	if err != nil {
		return false, err
	}
	edge := map[plumbing.Hash]bool{}
	for _, h := range shallow {
		edge[h] = true
	}
	seen := map[plumbing.Hash]bool{}
	todo := []plumbing.Hash{plumbing.NewHash(descendant)}
	cutShort := false
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[h] {
			continue
		}
		seen[h] = true
		if h == want {
			return true, nil
		}
		if len(seen)%1000 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if edge[h] {
			cutShort = true
			continue
		}
		c, err := object.GetCommit(repo.Storer, h)
		if err != nil {
			return false, fmt.Errorf("%w: %s is not here", ErrHistory, h)
		}
		todo = append(todo, c.ParentHashes...)
	}
	if cutShort {
		return false, fmt.Errorf("%w: it is cut at depth %d", ErrHistory, m.remote.Depth)
	}
	return false, nil
}

// Changed lists the paths that differ between two commits; before all zeros
// gives every path of after.
func (m *Mirror) Changed(ctx context.Context, before, after string) ([]string, error) {
	repo, err := m.open()
	if err != nil {
		return nil, err
	}
	tree := func(sha string) (*object.Tree, error) {
		if strings.Trim(sha, "0") == "" {
			return &object.Tree{}, nil
		}
		c, err := repo.CommitObject(plumbing.NewHash(sha))
		if err != nil {
			return nil, fmt.Errorf("reading commit %s of %s: %w", cut(sha), m.remote.Repository, err)
		}
		return c.Tree()
	}
	a, err := tree(before)
	if err != nil {
		return nil, err
	}
	b, err := tree(after)
	if err != nil {
		return nil, err
	}
	changes, err := object.DiffTreeContext(ctx, a, b)
	if err != nil {
		return nil, fmt.Errorf("comparing %s and %s of %s: %w", cut(before), cut(after), m.remote.Repository, err)
	}
	var paths []string
	for _, c := range changes {
		if c.From.Name != "" {
			paths = append(paths, c.From.Name)
		}
		if c.To.Name != "" && c.To.Name != c.From.Name {
			paths = append(paths, c.To.Name)
		}
	}
	return paths, nil
}

// RemoteIdentity is the identity of a repository by its address: host and path
// without .git, in lower case. A path stays a path.
func RemoteIdentity(address string) string {
	host, path := "", ""
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host, path = u.Hostname(), u.Path
	} else if h, p, ok := strings.Cut(address, ":"); ok && !strings.Contains(h, "/") {
		_, after, found := strings.Cut(h, "@")
		if !found {
			after = h
		}
		host, path = after, p
	} else if h, p, ok := strings.Cut(address, "/"); ok && strings.Contains(h, ".") && h != "." && h != ".." {
		host, path = h, p
	} else {
		return filepath.Clean(address)
	}
	path = strings.TrimSuffix(strings.Trim(path, "/"), ".git")
	return strings.ToLower(strings.Trim(host+"/"+path, "/"))
}

// fullRef is a ref by its whole name; what is none is a branch.
func fullRef(ref string) string {
	if ref == "" || strings.HasPrefix(ref, "refs/") {
		return ref
	}
	return "refs/heads/" + ref
}

// cut bounds what an outsider wrote, for a message.
func cut(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
