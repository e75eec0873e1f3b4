package git

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Objects of a pack are many small zlib streams of a known size. A reader of
// streams keeps a window and copies out of it; this inflates from one slice to
// another, in half the time.
//
// Source: RFC 1950 and RFC 1951.

var (
	errShort   = errors.New("it is cut short")
	errDeflate = errors.New("it is no zlib stream")
	errSize    = errors.New("it has another size than it says")
)

// Sizes of tables: what is indexed by the first bits of a code, and room for
// the tables of longer codes, of which each has two codes at least.
const (
	codeMost  = 15 // bits
	litBits   = 10
	litMost   = 288
	distBits  = 8
	distMost  = 32
	litTable  = 1<<litBits + litMost/2<<(codeMost-litBits)
	distTable = 1<<distBits + distMost/2<<(codeMost-distBits)
)

// An entry of a table: in the lowest four bits how many bits its code has, then
// the kind, then four bits how many extra bits follow, and from the 16th on the
// value. A zero is no code.
const (
	kindLiteral = 0 << 4
	kindLength  = 1 << 4 // and distances
	kindEnd     = 2 << 4
	kindTable   = 3 << 4 // its bits in the place of extra bits, its start as value
	kindMask    = 3 << 4
	extraShift  = 6
	valueShift  = 16
)

// zinflater inflates, and may be used again. It is for one goroutine.
type zinflater struct {
	lit   [litTable]uint32
	dist  [distTable]uint32
	fixed bool // the tables are those of RFC 1951, 3.2.6
	lens  [litMost + distMost]uint8
}

var (
	lengthBase  = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra   = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	codeOrder   = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

func litEntry(sym int) (uint32, bool) {
	switch {
	case sym < 256:
		return kindLiteral | uint32(sym)<<valueShift, true
	case sym == 256:
		return kindEnd, true
	case sym-257 < len(lengthBase):
		return kindLength | uint32(lengthExtra[sym-257])<<extraShift | uint32(lengthBase[sym-257])<<valueShift, true
	}
	return 0, false
}

func distEntry(sym int) (uint32, bool) {
	if sym >= len(distBase) {
		return 0, false
	}
	return kindLength | uint32(distExtra[sym])<<extraShift | uint32(distBase[sym])<<valueShift, true
}

func plainEntry(sym int) (uint32, bool) { return uint32(sym) << valueShift, true }

// makeTable makes the table of a code that is given by the lengths of its
// words. One that is not complete is refused, but for a single word.
func makeTable(table []uint32, first int, lens []uint8, entry func(sym int) (uint32, bool)) bool {
	var count, next [codeMost + 1]int
	longest := 0
	for _, n := range lens {
		count[n]++
		longest = max(longest, int(n))
	}
	clear(table[:1<<first])
	if longest == 0 {
		return true // no code at all: whoever uses it finds none
	}
	code := 0
	for n := 1; n <= longest; n++ {
		code <<= 1
		next[n] = code
		code += count[n]
	}
	if code != 1<<longest && (code != 1 || longest != 1) {
		return false
	}
	free := 1 << first
	rest := longest - first
	for sym, n := range lens {
		if n == 0 {
			continue
		}
		word := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		e, ok := entry(sym)
		if !ok {
			continue // it may have a word, but not be used
		}
		if int(n) <= first {
			e |= uint32(n)
			for at := word; at < 1<<first; at += 1 << n {
				table[at] = e
			}
			continue
		}
		prefix := word & (1<<first - 1)
		if table[prefix] == 0 {
			if free+1<<rest > len(table) {
				return false
			}
			clear(table[free : free+1<<rest])
			table[prefix] = kindTable | uint32(first) | uint32(rest)<<extraShift | uint32(free)<<valueShift
			free += 1 << rest
		}
		sub := table[table[prefix]>>valueShift:][:1<<rest]
		e |= uint32(int(n) - first)
		for at := word >> first; at < 1<<rest; at += 1 << (int(n) - first) {
			sub[at] = e
		}
	}
	return true
}

// bitsIn are the bits of a stream, the lowest first. Behind its end come zeros,
// of which at counts the bytes: who took some of them went too far.
type bitsIn struct {
	src []byte
	at  int    // the next byte
	buf uint64 // bits that are taken from src and not used
	n   uint   // how many
}

// fill sees to it that there are 56 bits or more.
func (b *bitsIn) fill() {
	if b.at+8 <= len(b.src) {
		b.buf |= binary.LittleEndian.Uint64(b.src[b.at:]) << b.n
		b.at += int((63 - b.n) >> 3)
		b.n |= 56
		return
	}
	for b.n < 56 {
		if b.at < len(b.src) {
			b.buf |= uint64(b.src[b.at]) << b.n
		}
		b.at++
		b.n += 8
	}
}

func (b *bitsIn) take(n uint) int {
	v := b.buf & (1<<n - 1)
	b.buf >>= n
	b.n -= n
	return int(v)
}

// used is how many bytes were used, the last one maybe in part.
func (b *bitsIn) used() int { return b.at - int(b.n>>3) }

// zlib inflates a zlib stream at the beginning of src, which has exactly dst's
// size, and says how long it is. [errShort]: src ends before it does. Its
// checksum is not looked at: what comes of it is held against an id.
func (z *zinflater) zlib(dst, src []byte) (int, error) {
	const head, sum = 2, 4
	if len(src) < head {
		return 0, errShort
	}
	if src[0]&15 != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || (uint(src[0])<<8|uint(src[1]))%31 != 0 {
		return 0, errDeflate
	}
	n, err := z.deflate(dst, src[head:])
	if err == nil && head+n+sum > len(src) {
		err = errShort
	}
	return head + n + sum, err
}

func (z *zinflater) deflate(dst, src []byte) (int, error) {
	b := bitsIn{src: src}
	at := 0
	for last := false; !last; {
		b.fill()
		last = b.take(1) == 1
		var err error
		switch b.take(2) {
		case 0:
			at, err = stored(dst, at, &b)
		case 1:
			z.makeFixed()
			at, err = z.block(dst, at, &b)
		case 2:
			if err = z.makeDynamic(&b); err == nil {
				at, err = z.block(dst, at, &b)
			}
		default:
			err = errDeflate
		}
		if b.used() > len(src) {
			return 0, errShort // the error may be of zeros that were never there
		}
		if err != nil {
			return 0, err
		}
	}
	if at != len(dst) {
		return 0, errSize
	}
	return b.used(), nil
}

// stored copies a block that is not compressed.
func stored(dst []byte, at int, b *bitsIn) (int, error) {
	from := b.used()
	if len(b.src) < from+4 {
		b.at, b.n = len(b.src)+1, 0
		return at, errShort
	}
	n := int(binary.LittleEndian.Uint16(b.src[from:]))
	if n^0xffff != int(binary.LittleEndian.Uint16(b.src[from+2:])) {
		return at, errDeflate
	}
	from += 4
	*b = bitsIn{src: b.src, at: from + n}
	switch {
	case from+n > len(b.src):
		return at, errShort
	case n > len(dst)-at:
		return at, errSize
	}
	return at + copy(dst[at:], b.src[from:from+n]), nil
}

func (z *zinflater) makeFixed() {
	if z.fixed {
		return
	}
	for i := range litMost {
		switch {
		case i < 144:
			z.lens[i] = 8
		case i < 256:
			z.lens[i] = 9
		case i < 280:
			z.lens[i] = 7
		default:
			z.lens[i] = 8
		}
	}
	makeTable(z.lit[:], litBits, z.lens[:litMost], litEntry)
	for i := range distMost {
		z.lens[i] = 5
	}
	makeTable(z.dist[:], distBits, z.lens[:distMost], distEntry)
	z.fixed = true
}

func (z *zinflater) makeDynamic(b *bitsIn) error {
	z.fixed = false
	b.fill()
	nlit, ndist, ncode := b.take(5)+257, b.take(5)+1, b.take(4)+4
	if nlit > 286 || ndist > 30 {
		return errDeflate
	}
	var codes [len(codeOrder)]uint8
	for i := range ncode {
		if i%16 == 0 {
			b.fill()
		}
		codes[codeOrder[i]] = uint8(b.take(3))
	}
	const first = 7 // all of it: no code of these is longer
	var table [1 << first]uint32
	if !makeTable(table[:], first, codes[:], plainEntry) {
		return errDeflate
	}
	for i := 0; i < nlit+ndist; {
		b.fill()
		e := table[b.buf&(1<<first-1)]
		if e == 0 {
			return errDeflate
		}
		b.take(uint(e & 15))
		sym := e >> valueShift
		if sym < 16 {
			z.lens[i] = uint8(sym)
			i++
			continue
		}
		n, what := 0, uint8(0)
		switch sym {
		case 16:
			if i == 0 {
				return errDeflate
			}
			n, what = 3+b.take(2), z.lens[i-1]
		case 17:
			n = 3 + b.take(3)
		default:
			n = 11 + b.take(7)
		}
		if i+n > nlit+ndist {
			return errDeflate
		}
		for range n {
			z.lens[i] = what
			i++
		}
	}
	if z.lens[256] == 0 || !makeTable(z.lit[:], litBits, z.lens[:nlit], litEntry) || !makeTable(z.dist[:], distBits, z.lens[nlit:nlit+ndist], distEntry) {
		return errDeflate
	}
	return nil
}

// block inflates one block with the tables that are made.
func (z *zinflater) block(dst []byte, at int, in *bitsIn) (int, error) {
	b := *in // in registers
	defer func() { *in = b }()
	for {
		b.fill()
		if b.at > len(b.src)+16 {
			return at, errShort
		}
		e := z.lit[b.buf&(1<<litBits-1)]
		if e&kindMask == kindLiteral && e != 0 {
			// There are bits for two more literals, or for any length and distance.
			b.buf >>= e & 15
			b.n -= uint(e & 15)
			if at >= len(dst) {
				return at, errSize
			}
			dst[at] = byte(e >> valueShift)
			at++
			if b.n < 48 {
				continue
			}
			e = z.lit[b.buf&(1<<litBits-1)]
		}
		if e&kindMask == kindTable {
			b.buf >>= litBits
			b.n -= litBits
			e = z.lit[(e>>valueShift)+uint32(b.buf)&(1<<(e>>extraShift&15)-1)]
		}
		if e == 0 {
			return at, errDeflate
		}
		b.buf >>= e & 15
		b.n -= uint(e & 15)
		switch e & kindMask {
		case kindLiteral:
			if at >= len(dst) {
				return at, errSize
			}
			dst[at] = byte(e >> valueShift)
			at++
			continue
		case kindEnd:
			return at, nil
		}
		extra := uint(e >> extraShift & 15)
		length := int(e>>valueShift) + int(b.buf&(1<<extra-1))
		b.buf >>= extra
		b.n -= extra
		// A length took 20 bits at most of 48, a distance takes 28.
		e = z.dist[b.buf&(1<<distBits-1)]
		if e&kindMask == kindTable {
			b.buf >>= distBits
			b.n -= distBits
			e = z.dist[(e>>valueShift)+uint32(b.buf)&(1<<(e>>extraShift&15)-1)]
		}
		if e == 0 {
			return at, errDeflate
		}
		b.buf >>= e & 15
		b.n -= uint(e & 15)
		extra = uint(e >> extraShift & 15)
		dist := int(e>>valueShift) + int(b.buf&(1<<extra-1))
		b.buf >>= extra
		b.n -= extra
		if dist > at {
			return at, errDeflate
		}
		if length > len(dst)-at {
			return at, errSize
		}
		from := at - dist
		if dist >= length {
			copy(dst[at:at+length], dst[from:from+length])
			at += length
			continue
		}
		for end := at + length; at < end; {
			at += copy(dst[at:end], dst[from:at])
		}
	}
}
