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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// fetchTime bounds one fetch. What stalls ends much earlier, after [stallTime].
const fetchTime = 30 * time.Minute

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

	mu     sync.Mutex
	places map[string]*place // by directory
	closed bool
	beside sync.WaitGroup // what is done beside fetches
}

// place is what the mirrors of one directory share.
type place struct {
	lock    chan struct{} // held by who writes to the directory
	renewed atomic.Int64  // how often it was made anew
	suspect atomic.Bool   // something in it could not be read
	stop    func()        // ends what is done beside fetches; nil: nothing is. The lock is that of the mirrors

	// Packs, without their endings, in which no more deltas are to be found, and
	// one in which there are. Whoever holds the lock may use them.
	searched   map[string]bool
	unfinished unfinished

	mu      sync.Mutex
	waiting map[plumbing.Hash]int // commits that are waited for, and by how many
}

// wait notes that somebody waits for a commit, until the function is called
// that it gives.
func (p *place) wait(hash plumbing.Hash) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[plumbing.Hash]int{}
	}
	p.waiting[hash]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.waiting[hash]--; p.waiting[hash] == 0 {
			delete(p.waiting, hash)
		}
	}
}

// awaited says whether anybody waits for a commit.
func (p *place) awaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) > 0
}

// togetherMost is how many commits are fetched at once.
const togetherMost = 100

// others are the commits that others wait for and that are not here: many
// pushes at once are one fetch.
func (p *place) others(o *objects, hash plumbing.Hash) (list []plumbing.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.waiting {
		if h != hash && !o.has(h) && len(list) < togetherMost {
			list = append(list, h)
		}
	}
	return list
}

// Names of a mirror that was found damaged, and is kept until the new one is
// there.
const damagedEnd = ".damaged"

// Open uses dir for mirrors; it is made where it is missing.
func Open(dir string, log *slog.Logger) (*Mirrors, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("making the directory for mirrors: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"+damagedEnd))
	if err != nil {
		return nil, err
	}
	for _, d := range left { // by a crash while a mirror was made anew
		if err := os.RemoveAll(d); err != nil {
			return nil, fmt.Errorf("removing what is left of a damaged mirror: %w", err)
		}
	}
	return &Mirrors{dir: dir, log: log, places: map[string]*place{}}, nil
}

// Close ends what is done beside fetches, which leaves the mirrors whole, and
// waits for it.
func (m *Mirrors) Close() {
	m.mu.Lock()
	m.closed = true
	for _, p := range m.places {
		if p.stop != nil {
			p.stop()
		}
	}
	m.mu.Unlock()
	m.beside.Wait()
}

// Wait waits for what is done beside the fetches that have ended.
func (m *Mirrors) Wait() { m.beside.Wait() }

// do does something with a place whose lock is held, beside fetches, and
// releases it then. Not ok: it is not done.
func (m *Mirrors) do(ctx context.Context, p *place, fn func(context.Context)) (ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	ctx, p.stop = context.WithTimeout(ctx, fetchTime)
	m.beside.Go(func() {
		fn(ctx)
		m.mu.Lock()
		p.stop()
		p.stop = nil
		m.mu.Unlock()
		<-p.lock
	})
	return true
}

// Mirror is one repository. Making one touches neither disk nor network.
type Mirror struct {
	m      *Mirrors
	remote Remote
	dir    string
	*place
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
	if m.places[dir] == nil {
		m.places[dir] = &place{lock: make(chan struct{}, 1)}
	}
	return &Mirror{m: m, remote: r, dir: dir, place: m.places[dir]}
}

// Fetch sees to it that a commit is in the mirror, and gives its id: sha
// itself, or for an annotated tag the commit that it names. ref is where it was
// pushed to, and may be empty, moved or gone since. Nothing is fetched when it
// is there already. A mirror that is damaged on disk is fetched anew.
func (m *Mirror) Fetch(ctx context.Context, sha, ref string) (string, error) {
	hash, err := m.id(sha)
	if err != nil {
		return "", err
	}
	if !m.suspect.Load() {
		if commit, err := m.here(hash); err == nil || errors.As(err, new(*notCommit)) {
			return commit, m.named(err)
		}
	}
	done := m.wait(hash)
	defer done()
	if err := m.hold(ctx); err != nil {
		return "", err
	}
	held := true
	defer func() {
		if held {
			m.release()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if m.suspect.Load() {
		return m.anew(ctx, hash, ref, errDamaged)
	}
	commit, err := m.bring(ctx, hash, ref)
	if errors.Is(err, errDamaged) || errors.Is(err, errStale) {
		return m.anew(ctx, hash, ref, err)
	}
	if err == nil && m.crowded() {
		// The commit is here, and need not wait: only the next fetch does.
		held = !m.m.do(context.WithoutCancel(ctx), m.place, func(ctx context.Context) {
			if err := m.tidy(ctx); err != nil && !errors.Is(err, context.Canceled) {
				m.m.log.Warn("making one pack of many", "repo", m.remote.Repository, "err", err)
			}
		})
	}
	return commit, m.named(err)
}

// id reads the id of a commit.
func (m *Mirror) id(sha string) (plumbing.Hash, error) {
	hex := sha != "" && strings.Trim(sha, "0123456789abcdefABCDEF") == ""
	if len(sha) == 64 && hex {
		return plumbing.ZeroHash, fmt.Errorf("commit %s of %s: SHA-256 repositories are not supported", cut(sha), m.remote.Repository)
	}
	hash := plumbing.NewHash(sha)
	if len(sha) != 40 || !hex || hash.IsZero() {
		return plumbing.ZeroHash, fmt.Errorf("%q is not a commit of %s", cut(sha), m.remote.Repository)
	}
	return hash, nil
}

// here looks for the commit on disk only.
func (m *Mirror) here(hash plumbing.Hash) (string, error) {
	o, err := m.open()
	if err != nil {
		return "", err
	}
	defer o.close()
	return o.peel(hash)
}

// hold waits until nobody else writes to the mirror.
func (m *Mirror) hold(ctx context.Context) error {
	select {
	case m.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Mirror) release() { <-m.lock }

// errDamaged is a mirror that cannot be used as it is on disk.
var errDamaged = errors.New("damaged on disk")

// anew fetches a mirror that is damaged or worn out into an empty directory. What the old one
// still has comes back when that does not work, with the error. The lock is held.
func (m *Mirror) anew(ctx context.Context, hash plumbing.Hash, ref string, cause error) (string, error) {
	repo := m.remote.Repository
	m.m.log.Warn("the mirror is fetched anew", "repo", repo, "err", cause)
	old := m.dir + damagedEnd
	if err := os.RemoveAll(old); err != nil {
		return "", fmt.Errorf("removing the damaged mirror of %s: %w", repo, err)
	}
	if err := os.Rename(m.dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("setting the damaged mirror of %s aside: %w", repo, err)
	}
	commit, err := m.bring(ctx, hash, ref)
	if err != nil {
		_ = os.RemoveAll(m.dir)
		_ = os.Rename(old, m.dir)
		if errors.Is(err, errDamaged) {
			return "", fmt.Errorf("the mirror of %s cannot be used: %w", repo, err)
		}
		return "", m.named(err)
	}
	m.renewed.Add(1)
	m.suspect.Store(false)
	if err := os.RemoveAll(old); err != nil {
		m.m.log.Warn("removing the damaged mirror", "repo", repo, "err", err)
	}
	return commit, nil
}

// named adds the repository's name to what is said of one of its objects.
func (m *Mirror) named(err error) error {
	if n := (*notCommit)(nil); errors.As(err, &n) {
		return fmt.Errorf("%s: %w", m.remote.Repository, n)
	}
	return err
}

// cut bounds what an outsider wrote, for a message, to one short line.
func cut(s string) string {
	const most = 200 // bytes
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
