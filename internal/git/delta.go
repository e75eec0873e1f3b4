package git

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	errOtherBase = errors.New("the delta is of another base")
	errDeltaOp   = errors.New("the delta has an unknown instruction")
	errBeyond    = errors.New("the delta copies what the base does not have")
	errDeltaSize = errors.New("the delta makes another size than it says")
)

// deltaHead is how many bytes at most say the sizes at the beginning of a delta.
const deltaHead = 2 * binary.MaxVarintLen64

// deltaSizes reads the beginning of a delta: the size of its base, the size of
// what comes of it, and how long the beginning is.
func deltaSizes(delta []byte) (base, made int64, n int, err error) {
	b, n := binary.Uvarint(delta)
	if n <= 0 {
		return 0, 0, 0, errShort
	}
	m, k := binary.Uvarint(delta[n:])
	if k <= 0 {
		return 0, 0, 0, errShort
	}
	if b > deltaMost || m > deltaMost {
		return 0, 0, 0, fmt.Errorf("a delta of %d bytes makes %d, more than %d", b, m, int64(deltaMost))
	}
	return int64(b), int64(m), n + k, nil
}

// copyOp reads the arguments of an instruction to copy: a byte for each bit of
// it that is set.
func copyOp(op byte, delta []byte) (at, length int64, n int, err error) {
	var arg [8]byte // offset, 4 bytes, and length, 3, of which some are left out
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if n == len(delta) {
			return 0, 0, 0, errShort
		}
		arg[i] = delta[n]
		n++
	}
	at, length = int64(binary.LittleEndian.Uint32(arg[:])), int64(binary.LittleEndian.Uint32(arg[4:]))
	if length == 0 {
		length = 0x10000
	}
	return at, length, n, nil
}

// patch makes an object of its base and a delta. buf is used for it when it has
// the room.
//
// Source: git's Documentation/gitformat-pack.txt, "Deltified representation".
func patch(buf, base, delta []byte) ([]byte, error) {
	from, size, n, err := deltaSizes(delta)
	if err != nil {
		return nil, err
	}
	if from != int64(len(base)) {
		return nil, errOtherBase
	}
	delta = delta[n:]
	if size > memoryMost {
		return nil, fmt.Errorf("a delta makes %d bytes of what has %d", size, from)
	}
	out := buf[:0]
	if int64(cap(out)) < size {
		out = make([]byte, 0, size)
	}
	out = out[:size]
	made := 0
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		switch {
		case op == 0:
			return nil, errDeltaOp
		case op < 0x80:
			if int(op) > len(delta) {
				return nil, errShort
			}
			if int(op) > len(out)-made {
				return nil, errDeltaSize
			}
			made += copy(out[made:], delta[:op])
			delta = delta[op:]
		default:
			at, length, n, err := copyOp(op, delta)
			if err != nil {
				return nil, err
			}
			delta = delta[n:]
			if at > from || length > from-at {
				return nil, errBeyond
			}
			if length > int64(len(out)-made) {
				return nil, errDeltaSize
			}
			made += copy(out[made:], base[at:at+length])
		}
	}
	if made != len(out) {
		return nil, errDeltaSize
	}
	return out, nil
}

// patchStream is [patch] for what is too large for memory.
func patchStream(out io.Writer, base io.ReaderAt, baseSize int64, delta *bufio.Reader) (int64, error) {
	head, err := delta.Peek(deltaHead)
	if err != nil && err != io.EOF {
		return 0, err
	}
	from, size, n, err := deltaSizes(head)
	if err != nil {
		return 0, err
	}
	if from != baseSize {
		return 0, errOtherBase
	}
	if _, err := delta.Discard(n); err != nil {
		return 0, err
	}
	kept := blocks{r: base, size: baseSize, kept: map[int64][]byte{}}
	made := int64(0)
	for {
		op, err := delta.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		switch {
		case op == 0:
			return 0, errDeltaOp
		case op < 0x80:
			if made += int64(op); made > size {
				return 0, errDeltaSize
			}
			b, err := delta.Peek(int(op))
			if err == io.EOF {
				return 0, errShort
			}
			if err == nil {
				_, err = out.Write(b)
			}
			if err != nil {
				return 0, err
			}
			if _, err := delta.Discard(int(op)); err != nil {
				return 0, err
			}
		default:
			const most = 7 // bytes of arguments
			args, err := delta.Peek(most)
			if err != nil && err != io.EOF {
				return 0, err
			}
			at, l, n, err := copyOp(op, args)
			if err != nil {
				return 0, err
			}
			if _, err := delta.Discard(n); err != nil {
				return 0, err
			}
			if at > from || l > from-at {
				return 0, errBeyond
			}
			if made += l; made > size {
				return 0, errDeltaSize
			}
			if err := kept.copy(out, at, l); err != nil {
				return 0, err
			}
		}
	}
	if made != size {
		return 0, errDeltaSize
	}
	return made, nil
}

// blocks reads a base in blocks, of which the last are kept: a delta may be
// millions of copies of a few bytes.
type blocks struct {
	r    io.ReaderAt
	size int64
	kept map[int64][]byte // by place, at most blocksKept
	next []int64          // their places, the oldest first
}

const (
	blockSize  = 16 << 10
	blocksKept = 128
)

// block gives the one that holds a place.
func (b *blocks) block(at int64) ([]byte, error) {
	at -= at % blockSize
	if buf, ok := b.kept[at]; ok {
		return buf, nil
	}
	var buf []byte
	if len(b.next) < blocksKept {
		buf = make([]byte, 0, blockSize)
	} else {
		buf = b.kept[b.next[0]][:0]
		delete(b.kept, b.next[0])
		b.next = b.next[1:]
	}
	buf = buf[:min(blockSize, b.size-at)]
	if _, err := io.ReadFull(io.NewSectionReader(b.r, at, int64(len(buf))), buf); err != nil {
		return nil, err
	}
	b.kept[at] = buf
	b.next = append(b.next, at)
	return buf, nil
}

// copy writes a part of the base.
func (b *blocks) copy(out io.Writer, at, length int64) error {
	for length > 0 {
		buf, err := b.block(at)
		if err != nil {
			return err
		}
		buf = buf[at%blockSize:]
		buf = buf[:min(int64(len(buf)), length)]
		if _, err := out.Write(buf); err != nil {
			return err
		}
		at, length = at+int64(len(buf)), length-int64(len(buf))
	}
	return nil
}
