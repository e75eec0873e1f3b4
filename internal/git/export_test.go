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
)

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
