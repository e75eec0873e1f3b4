package git

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
)

// Walk gives every file of a commit, as it stands in the repository.
func (m *Mirror) Walk(ctx context.Context, commit string, fn func(deploy.TreeFile, io.Reader) error) error {
	return m.Export(commit, View{}).Walk(ctx, fn)
}

// Measure counts a commit's files and their bytes.
func (m *Mirror) Measure(ctx context.Context, commit string) (files int, size int64, err error) {
	return m.Export(commit, View{}).Measure(ctx)
}

// SetStallTime changes for one test how long a server may send nothing.
func SetStallTime(t *testing.T, d time.Duration) {
	old := stallTime.Swap(int64(d))
	t.Cleanup(func() { stallTime.Store(old) })
}

// SetFilesMost changes for one test how many files a commit may have.
func SetFilesMost(t *testing.T, n int) {
	old := filesMost
	filesMost = n
	t.Cleanup(func() { filesMost = old })
}

// SetPacksMost changes for one test how many packs a mirror may have.
func SetPacksMost(t *testing.T, n int) {
	old := packsMost
	packsMost = n
	t.Cleanup(func() { packsMost = old })
}

// PacksMost changes how many packs a mirror may have, for a whole process.
func PacksMost(n int) { packsMost = n }

// SetMemoryMost changes for one test what may be in memory, in bytes.
func SetMemoryMost(t *testing.T, n int64) {
	old := memoryMost
	memoryMost = n
	t.Cleanup(func() { memoryMost = old })
}

// SetMadeMost changes for one test how many bytes the deltas of a pack may make.
func SetMadeMost(t *testing.T, n int64) {
	old := madeMost
	madeMost = n
	t.Cleanup(func() { madeMost = old })
}

// Settle waits until nobody writes to the mirror.
func (m *Mirror) Settle() {
	m.lock <- struct{}{}
	m.release()
}

// Waiting is how many commits are waited for.
func (m *Mirror) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// DeltaPack writes a pack of one object and deltas, each upon the one before,
// or, where it says so, all upon the first.
func DeltaPack(t *testing.T, w io.Writer, content string, deltas []string, chain bool) {
	p, err := newPacker(w, 1+len(deltas))
	if err != nil {
		t.Fatal(err)
	}
	first := int64(packHead)
	if err := p.add(plumbing.ZeroHash, plumbing.BlobObject, int64(len(content)), strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	base := first
	for _, d := range deltas {
		at := p.at
		if _, err := (counted{p}).Write(appendHead(nil, plumbing.OFSDeltaObject, int64(len(d)), at-base)); err != nil {
			t.Fatal(err)
		}
		p.z.Reset(counted{p})
		if _, err := io.WriteString(p.z, d); err != nil {
			t.Fatal(err)
		}
		if err := p.z.Close(); err != nil {
			t.Fatal(err)
		}
		if chain {
			base = at
		}
	}
	if _, err := p.end(); err != nil {
		t.Fatal(err)
	}
}

// Dir is where the mirror stands.
func (m *Mirror) Dir() string { return m.dir }

// ForgeKeys are the lines of known_hosts that are built in.
const ForgeKeys = forgeKeys

// Index writes the index of a pack.
func Index(ctx context.Context, pack []byte, path string) error {
	in := newArriving(bytes.NewReader(pack))
	in.copy(io.Discard, bytes.NewReader(pack))
	x, err := indexPack(ctx, in, filepath.Dir(path))
	if err == nil {
		err = x.unresolved()
	}
	if err != nil {
		return err
	}
	return x.write(path)
}

// Packer writes a pack of objects.
type Packer struct {
	t *testing.T
	p *packer
}

// NewPacker begins a pack of count objects.
func NewPacker(t *testing.T, w io.Writer, count int) *Packer {
	p, err := newPacker(w, count)
	if err != nil {
		t.Fatal(err)
	}
	return &Packer{t, p}
}

// Add adds an object and gives its id.
func (p *Packer) Add(kind plumbing.ObjectType, content string) string {
	id := plumbing.ComputeHash(kind, []byte(content))
	if err := p.p.add(id, kind, int64(len(content)), strings.NewReader(content)); err != nil {
		p.t.Fatal(err)
	}
	return id.String()
}

// End ends the pack.
func (p *Packer) End() {
	if _, err := p.p.end(); err != nil {
		p.t.Fatal(err)
	}
}

// Fill fills in one format of a commit.
func Fill(ctx context.Context, m *Mirror, commit, format string) (text string, err error) {
	w := &walker{ctx: ctx, m: m, commit: commit, x: m.Export(commit, View{})}
	if err := w.open(); err != nil {
		return "", err
	}
	defer func() { w.o.close() }()
	b, err := w.substituted([]byte("$Format:" + format + "$"))
	return string(b), err
}

// SetLFSCacheMost changes for one test how many bytes of LFS files are kept.
func SetLFSCacheMost(t *testing.T, n int64) {
	old := lfsCacheMost
	lfsCacheMost = n
	t.Cleanup(func() { lfsCacheMost = old })
}

// SetModulesMost changes for one test how many submodules a commit may have.
func SetModulesMost(t *testing.T, n int) {
	old := modulesMost
	modulesMost = n
	t.Cleanup(func() { modulesMost = old })
}

// Verified reads a content as an agent is sent it, under the id of a blob.
func Verified(size int64, r io.Reader, blob string, fn func(deploy.TreeFile, io.Reader) error) error {
	return verified(deploy.TreeFile{Path: "a", Size: size}, r, plumbing.NewHash(blob), fn)
}
