package git

import (
	"encoding/binary"
	"math/bits"
)

// A delta is found by looking for blocks of the base in the content that is to
// be made, at every byte of it: where one is found, what is alike before and
// after it is copied, and the rest is written out.
const (
	blockLen  = 16       // bytes; to copy fewer costs nearly as much as they are long
	alikeMost = 32       // blocks with one sum that are looked at
	alikeLong = 4 << 10  // bytes that are long enough not to look for more
	copyMost  = 64 << 10 // bytes of one instruction to copy: git writes no more
	addMost   = 127      // bytes of one instruction to add
	rollBy    = 0x9E3779B1
)

// deltaIndex finds blocks of a base.
type deltaIndex struct {
	base  []byte
	first []int32 // of each sum, cut short: a block, counted from 1; 0: none
	next  []int32 // of each block: the next one whose sum is cut to the same
	shift int
}

// blockSum is the sum of the bytes of a block, which can be rolled on.
func blockSum(b []byte) (sum uint32) {
	for _, c := range b[:blockLen] {
		sum = sum*rollBy + uint32(c)
	}
	return sum
}

// rollOut is what the first byte of a block counts in its sum.
var rollOut = func() uint32 {
	out := uint32(1)
	for range blockLen - 1 {
		out *= rollBy
	}
	return out
}()

func (x *deltaIndex) slot(sum uint32) uint32 { return sum * 0x85EBCA6B >> x.shift }

// make begins an index of a base, in the memory of the one before. The base
// stays the caller's, and must not change.
func (x *deltaIndex) make(base []byte) {
	n := len(base) / blockLen
	wide := max(bits.Len(uint(n)), 4)
	x.base, x.shift = base, 32-wide
	if cap(x.first) < 1<<wide {
		x.first = make([]int32, 1<<wide)
	}
	x.first = x.first[:1<<wide]
	clear(x.first)
	if cap(x.next) < n+1 {
		x.next = make([]int32, n+1)
	}
	x.next = x.next[:n+1]
	// From the end, so that the first ones are found first.
	last := uint32(0)
	for i := n; i > 0; i-- {
		sum := blockSum(base[(i-1)*blockLen:])
		at := &x.first[x.slot(sum)]
		if i < n && sum == last && *at == int32(i+1) {
			x.next[i] = x.next[i+1] // of a block that repeats itself, the first is enough
		} else {
			x.next[i] = *at
		}
		*at, last = int32(i), sum
	}
}

// bytes is how much memory the index takes, beside its base.
func (x *deltaIndex) bytes() int { return 4 * (cap(x.first) + cap(x.next)) }

// longest looks for the longest piece of the base that the target has at a
// place. sum is that of its block there. What it took counts in looks.
func (x *deltaIndex) longest(target []byte, sum uint32, looks *int) (where, length int) {
	n := 0
	for i := x.first[x.slot(sum)]; i > 0 && n < alikeMost; i, n = x.next[i], n+1 {
		at := int(i-1) * blockLen
		l := alike(x.base[at:], target)
		*looks += 1 + l/blockLen
		if l > length {
			where, length = at, l
		}
		if l >= alikeLong {
			break
		}
	}
	return where, length
}

// alike is how many bytes two contents have in common at their beginnings.
func alike(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// encode appends to out, which is emptied, a delta of most bytes at most that
// makes the target of the base. Not ok: there is none, or none was found in a
// time that grows with the target's size alone.
func (x *deltaIndex) encode(out, target []byte, most int) (delta []byte, ok bool) {
	out = binary.AppendUvarint(out[:0], uint64(len(x.base)))
	out = binary.AppendUvarint(out, uint64(len(target)))
	const looksEach, looksLeast = 2, 4 << 10
	looks, from, at := -looksEach*len(target)-looksLeast, 0, 0
	sum, summed := uint32(0), false
	for at+blockLen <= len(target) {
		if len(out)+at-from > most || looks > 0 {
			return out, false
		}
		if !summed {
			sum, summed = blockSum(target[at:]), true
		}
		where, length := x.longest(target[at:], sum, &looks)
		if length < blockLen {
			if at+blockLen < len(target) {
				sum = (sum-uint32(target[at])*rollOut)*rollBy + uint32(target[at+blockLen])
			}
			at++
			continue
		}
		for at > from && where > 0 && target[at-1] == x.base[where-1] {
			at, where, length = at-1, where-1, length+1
		}
		out = appendAdd(out, target[from:at])
		out = appendCopy(out, where, length)
		at += length
		from, summed = at, false
	}
	out = appendAdd(out, target[from:])
	return out, len(out) <= most
}

// appendAdd adds the instructions that write out bytes.
func appendAdd(out, b []byte) []byte {
	for len(b) > 0 {
		n := min(len(b), addMost)
		out = append(append(out, byte(n)), b[:n]...)
		b = b[n:]
	}
	return out
}

// appendCopy adds the instructions that copy bytes of the base.
func appendCopy(out []byte, where, length int) []byte {
	for length > 0 {
		n := min(length, copyMost)
		op := len(out)
		out = append(out, 0x80)
		for i := range 4 {
			if c := byte(where >> (8 * i)); c != 0 {
				out[op] |= 1 << i
				out = append(out, c)
			}
		}
		for i := range 2 { // the largest length is written as none
			if c := byte(n >> (8 * i)); c != 0 {
				out[op] |= 0x10 << i
				out = append(out, c)
			}
		}
		where, length = where+n, length-n
	}
	return out
}
