package git

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Every fetch brings a pack, and whoever opens the mirror opens them all: after
// a year of pushes that would take longer than the fetch.
const (
	mergeMost   = 64 << 20 // bytes that are made one at a time
	mergeSmall  = 32 << 20 // bytes; larger packs stay as they are
	shallowMost = 1000     // shallow commits, of which servers are told at each fetch
)

// packsMost is how many packs there are before the small ones are made one.
var packsMost = 30

// smallPack is one pack on disk.
type smallPack struct {
	path string // without .pack
	size int64
}

// tidy makes one pack of the small ones when there are many. The lock is held;
// readers that find a pack gone open the mirror again.
func (m *Mirror) tidy(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(m.dir, "objects", "pack", "*.pack"))
	if err != nil || len(files) <= packsMost {
		return err
	}
	var small []smallPack
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		if st.Size() < mergeSmall {
			small = append(small, smallPack{strings.TrimSuffix(f, ".pack"), st.Size()})
		}
	}
	slices.SortFunc(small, func(a, b smallPack) int { return cmp.Compare(a.size, b.size) })
	sum, n := int64(0), 0
	for n < len(small) && sum+small[n].size <= mergeMost {
		sum += small[n].size
		n++
	}
	if n < 2 {
		return nil
	}
	o, err := m.open()
	if err != nil {
		return err
	}
	defer o.close()
	ids := map[plumbing.Hash]bool{}
	for _, p := range small[:n] {
		if err := idsOf(p.path+".idx", ids); err != nil {
			return err
		}
	}
	c := &copier{ctx: ctx, from: o}
	for id := range ids {
		c.list = append(c.list, id)
	}
	slices.SortFunc(c.list, func(a, b plumbing.Hash) int { return slices.Compare(a[:], b[:]) })
	name := ""
	err = keep(m.dir, func(f *os.File) (*indexer, error) {
		x, err := c.pack(f)
		if err == nil {
			name = packName(m.dir, x)
		}
		return x, err
	})
	if err != nil {
		return err
	}
	m.renewed.Add(1)
	for _, p := range small[:n] {
		if p.path == name {
			continue
		}
		// The pack first: an index without one counts for nothing.
		if err := errors.Join(os.Remove(p.path+".pack"), os.Remove(p.path+".idx")); err != nil {
			return err
		}
	}
	return nil
}

// idsOf adds the ids of an index of version 2 to a set.
func idsOf(path string, ids map[plumbing.Hash]bool) error {
	const head, fan = 8, 256 * 4
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < head+fan {
		return fmt.Errorf("%w: %s", errDamaged, filepath.Base(path))
	}
	n := int(binary.BigEndian.Uint32(b[head+fan-4:]))
	b = b[head+fan:]
	if n < 0 || n > len(b)/len(plumbing.Hash{}) {
		return fmt.Errorf("%w: %s", errDamaged, filepath.Base(path))
	}
	for i := range n {
		ids[plumbing.Hash(b[i*20:i*20+20])] = true
	}
	return nil
}
