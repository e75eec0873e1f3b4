package git

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
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

// receive writes a pack that comes from elsewhere into a mirror.
func receive(ctx context.Context, dir string, r io.Reader) error {
	return keep(dir, func(f *os.File) (*indexer, error) {
		n, err := io.Copy(f, r)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF // who has nothing to add sends a pack of no objects
		}
		return indexPack(ctx, f, n)
	})
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
	if err := os.Chmod(f.Name(), 0o440); err != nil {
		return err
	}
	if err := os.Rename(f.Name()+".idx", name+".idx"); err != nil {
		return err
	}
	return os.Rename(f.Name(), name+".pack")
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

// packer writes a pack of whole objects.
type packer struct {
	w     *bufio.Writer
	z     *zlib.Writer
	plain *zlib.Writer // for what is small: to begin to compress costs more than it saves
	whole *hasher
	crc   uint32
	at    int64
	index *indexer
}

// newPacker begins a pack of count objects.
func newPacker(f io.Writer, count int) (*packer, error) {
	p := &packer{whole: newHasher(), index: &indexer{entries: make([]packEntry, 1, count+1)}}
	p.whole.h.Reset()
	p.w = bufio.NewWriterSize(io.MultiWriter(f, p.whole), 256<<10)
	var err error
	if p.z, err = zlib.NewWriterLevel(counted{p}, zlib.BestSpeed); err != nil {
		return nil, err
	}
	if p.plain, err = zlib.NewWriterLevel(counted{p}, zlib.NoCompression); err != nil {
		return nil, err
	}
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
	p.index.sum = p.whole.id()
	if _, err := p.w.Write(p.index.sum[:]); err != nil {
		return nil, err
	}
	return p.index, p.w.Flush()
}
