package git

import (
	"bufio"
	"context"
	"crypto/sha1" // the checksum of packs
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/zlib"
)

// errPack is a pack that is not whole or not a pack.
var errPack = errors.New("the pack is damaged")

// partial is how packs are called that are not whole yet.
const partial = "tmp_pack_"

// receive writes a pack that comes from elsewhere into a mirror. What its deltas
// build upon and it does not have comes from have. stop ends r.
func receive(ctx context.Context, dir string, r io.Reader, stop func(), have *packs) error {
	return keep(dir, func(f *os.File) (*indexer, error) {
		in := newArriving(f)
		done := make(chan struct{})
		go func() {
			defer close(done)
			in.copy(f, r)
		}()
		x, err := indexPack(ctx, in, filepath.Dir(f.Name()))
		if err != nil {
			stop()
		}
		<-done
		if err != nil {
			return nil, err
		}
		return x, x.complete(f, have)
	})
}

// complete adds to a pack what its deltas build upon, so that it stands alone.
//
// Source: git's index-pack --fix-thin.
func (x *indexer) complete(f *os.File, have *packs) error {
	if x.left == 0 {
		return nil
	}
	before := len(x.entries)
	if _, err := f.Seek(x.size, io.SeekStart); err != nil {
		return err
	}
	p, err := packerAt(f, x.size, x)
	if err != nil {
		return err
	}
	for _, id := range x.missing() {
		if err := p.from(x.ctx, have, id); err != nil {
			return err
		}
	}
	if err := p.w.Flush(); err != nil {
		return err
	}
	x.size, x.p.size = p.at, p.at
	var roots []int32
	for n := before; n < len(x.entries); n++ {
		x.adopt(int32(n))
		roots = append(roots, int32(n))
	}
	if err := x.roots(roots); err != nil {
		return err
	}
	if err := x.unresolved(); err != nil {
		return err
	}
	if _, err := f.WriteAt(binary.BigEndian.AppendUint32(nil, uint32(len(x.entries)-1)), packHead-4); err != nil {
		return err
	}
	sum := sha1.New()
	if _, err := io.Copy(onlyWriter{sum}, io.NewSectionReader(f, 0, x.size)); err != nil {
		return err
	}
	x.sum = plumbing.Hash(sum.Sum(nil))
	_, err = f.WriteAt(x.sum[:], x.size)
	return err
}

// from adds an object that other packs have, if they do.
func (p *packer) from(ctx context.Context, have *packs, id plumbing.Hash) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	obj, err := have.find(id)
	if obj == nil || err != nil {
		return err
	}
	r, err := obj.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	return p.add(id, obj.kind, obj.size, newVerifier(r, obj.kind, obj.size, id))
}

// keep adds the pack that fill writes to a mirror: first under another name,
// and the index before the pack, so that a crash leaves either all of it or
// nothing that counts. The lock is held.
func keep(dir string, fill func(f *os.File) (*indexer, error)) error {
	packs := filepath.Join(dir, "objects", "pack")
	if err := sweep(packs); err != nil {
		return err
	}
	f, err := os.CreateTemp(packs, partial)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	index, err := fill(f)
	if err != nil {
		return err
	}
	if len(index.entries) == 1 {
		return nil // a pack of no objects
	}
	name := packName(dir, index)
	if err := index.write(f.Name() + ".idx"); err != nil {
		return err
	}
	defer os.Remove(f.Name() + ".idx")
	if err := errors.Join(os.Chmod(f.Name(), 0o440), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name()+".idx", name+".idx"); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name+".pack"); err != nil {
		return err
	}
	return syncDir(packs)
}

// syncDir sees to it that names in a directory outlive a power cut.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// packName is what a pack is called, without its ending.
func packName(dir string, x *indexer) string {
	return filepath.Join(dir, "objects", "pack", "pack-"+x.sum.String())
}

// sweep removes what a crash left: nobody else is writing.
func sweep(packs string) error {
	files, err := os.ReadDir(packs)
	if err != nil {
		return err
	}
	for _, f := range files {
		left := strings.HasPrefix(f.Name(), partial)
		if pack, ok := strings.CutSuffix(f.Name(), ".idx"); ok && !left {
			_, err := os.Stat(filepath.Join(packs, pack+".pack"))
			left = errors.Is(err, os.ErrNotExist)
		}
		if !left {
			continue
		}
		if err := os.Remove(filepath.Join(packs, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// packer writes a pack.
type packer struct {
	w     *bufio.Writer
	z     *zlib.Writer
	plain *zlib.Writer // for what is small: to begin to compress costs more than it saves
	whole hash.Hash    // nil when it is made later
	crc   uint32
	at    int64
	index *indexer
}

// packerAt adds entries to a pack from a place on.
func packerAt(w io.Writer, at int64, x *indexer) (p *packer, err error) {
	p = &packer{w: bufio.NewWriterSize(w, 64<<10), at: at, index: x}
	if p.z, err = zlib.NewWriterLevel(counted{p}, zlib.DefaultCompression); err != nil {
		return nil, err
	}
	p.plain, err = zlib.NewWriterLevel(counted{p}, zlib.NoCompression)
	return p, err
}

// newPacker begins a pack of count objects.
func newPacker(f io.Writer, count int) (*packer, error) {
	whole := sha1.New()
	p, err := packerAt(io.MultiWriter(f, whole), 0, &indexer{entries: make([]packEntry, 1, count+1)})
	if err != nil {
		return nil, err
	}
	p.whole = whole
	_, err = counted{p}.Write(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(count)))
	return p, err
}

// counted is what is written of an entry.
type counted struct{ p *packer }

func (c counted) Write(b []byte) (int, error) {
	n, err := c.p.w.Write(b)
	c.p.at += int64(n)
	c.p.crc = crc32.Update(c.p.crc, crc32.IEEETable, b[:n])
	return n, err
}

// add writes one object, whose content r gives.
func (p *packer) add(id plumbing.Hash, kind plumbing.ObjectType, size int64, r io.Reader) error {
	e := packEntry{offset: p.at, kind: kind, id: id, size: size}
	p.crc = 0
	head := []byte{byte(kind)<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(size&0x7f))
	}
	if _, err := (counted{p}).Write(head); err != nil {
		return err
	}
	const little = 512 // bytes
	z := p.z
	if e.size < little {
		z = p.plain
	}
	z.Reset(counted{p})
	if _, err := io.Copy(z, r); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	e.crc = p.crc
	p.index.entries = append(p.index.entries, e)
	return nil
}

// end writes what is left, and gives the index.
func (p *packer) end() (*indexer, error) {
	if err := p.w.Flush(); err != nil {
		return nil, err
	}
	p.index.sum = plumbing.Hash(p.whole.Sum(nil))
	p.index.size = p.at
	if _, err := p.w.Write(p.index.sum[:]); err != nil {
		return nil, err
	}
	return p.index, p.w.Flush()
}
