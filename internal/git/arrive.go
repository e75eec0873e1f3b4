package git

import (
	"bytes"
	"crypto/sha1" // the checksum of packs
	"hash"
	"io"
	"math"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
)

// arriving is a file that is being written.
type arriving struct {
	f    io.ReaderAt
	mu   sync.Mutex
	more *sync.Cond
	have int64 // bytes
	err  error // why no more comes; io.EOF: it is whole
	sum  plumbing.Hash
}

func newArriving(f io.ReaderAt) *arriving {
	a := &arriving{f: f}
	a.more = sync.NewCond(&a.mu)
	return a
}

// copy writes what comes from r, and ends with r.
func (a *arriving) copy(w io.Writer, r io.Reader) {
	buf := make([]byte, 64<<10)
	sum := sha1.New()
	tail := make([]byte, 0, 2*len(plumbing.Hash{})) // the last bytes are the checksum
	for {
		n, err := r.Read(buf)
		if n > 0 {
			tail = hashed(sum, tail, buf[:n])
			if _, werr := w.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		a.mu.Lock()
		a.have += int64(n)
		if err != nil {
			if a.err = err; err == io.EOF && (len(tail) < int(idLen) || !bytes.Equal(tail, sum.Sum(nil))) {
				a.sum = plumbing.ZeroHash
			} else {
				a.sum = plumbing.Hash(sum.Sum(nil))
			}
		}
		a.more.Broadcast()
		a.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// hashed adds to a sum all but the last bytes, which it gives.
func hashed(sum hash.Hash, tail, b []byte) []byte {
	keep := int(idLen)
	if len(b) >= keep {
		sum.Write(tail)
		sum.Write(b[:len(b)-keep])
		return append(tail[:0], b[len(b)-keep:]...)
	}
	tail = append(tail, b...)
	if over := len(tail) - keep; over > 0 {
		sum.Write(tail[:over])
		tail = append(tail[:0], tail[over:]...)
	}
	return tail
}

// wait waits until there are n bytes, or no more to come. It says how many
// there are.
func (a *arriving) wait(n int64) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.have < n && a.err == nil {
		a.more.Wait()
	}
	if a.err != nil && a.err != io.EOF {
		return a.have, a.err
	}
	return a.have, nil
}

// all waits until it is whole.
func (a *arriving) all() (int64, error) { return a.wait(math.MaxInt64) }

// follower reads what arrives from a place on.
type follower struct {
	a  *arriving
	at int64
}

func (f *follower) Read(p []byte) (int, error) {
	have, err := f.a.wait(f.at + 1)
	if err != nil {
		return 0, err
	}
	if have <= f.at {
		return 0, io.EOF
	}
	n, err := f.a.f.ReadAt(p[:min(int64(len(p)), have-f.at)], f.at)
	f.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}
