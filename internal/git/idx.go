package git

import (
	"bufio"
	"bytes"
	"crypto/sha1" // the checksum of indexes
	"encoding/binary"
	"io"
	"slices"
)

// encode writes the index of a pack, of version 2.
//
// Source: git's Documentation/gitformat-pack.txt, "Version 2 pack-*.idx files".
func (x *indexer) encode(to io.Writer) error {
	order := make([]int32, 0, len(x.entries))
	for n := 1; n < len(x.entries); n++ {
		order = append(order, int32(n))
	}
	slices.SortFunc(order, func(a, b int32) int { return bytes.Compare(x.entries[a].id[:], x.entries[b].id[:]) })
	order = slices.CompactFunc(order, func(a, b int32) bool { return x.entries[a].id == x.entries[b].id })

	sum := sha1.New()
	buf := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	put := func(v uint32) { _ = binary.Write(buf, binary.BigEndian, v) }
	_, _ = buf.WriteString("\xfftOc\x00\x00\x00\x02")
	for first, n := 0, 0; first < 256; first++ {
		for n < len(order) && int(x.entries[order[n]].id[0]) <= first {
			n++
		}
		put(uint32(n))
	}
	for _, n := range order {
		_, _ = buf.Write(x.entries[n].id[:])
	}
	for _, n := range order {
		put(x.entries[n].crc)
	}
	var far []uint64 // offsets that need more than 31 bits
	for _, n := range order {
		if at := uint64(x.entries[n].offset); at < 1<<31 {
			put(uint32(at))
		} else {
			put(1<<31 | uint32(len(far)))
			far = append(far, at)
		}
	}
	for _, at := range far {
		_ = binary.Write(buf, binary.BigEndian, at)
	}
	_, _ = buf.Write(x.sum[:])
	if err := buf.Flush(); err != nil { // of whatever was written before it, too
		return err
	}
	_, err := to.Write(sum.Sum(nil))
	return err
}
