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
	made := int64(0)
	for {
		op, err := delta.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		var piece io.Reader
		var length int64
		switch {
		case op == 0:
			return 0, errDeltaOp
		case op < 0x80:
			piece, length = delta, int64(op)
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
			piece, length = io.NewSectionReader(base, at, l), l
		}
		if made += length; made > size {
			return 0, errDeltaSize
		}
		if _, err := io.CopyN(out, piece, length); err == io.EOF {
			return 0, errShort
		} else if err != nil {
			return 0, err
		}
	}
	if made != size {
		return 0, errDeltaSize
	}
	return made, nil
}
