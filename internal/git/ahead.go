package git

import (
	"runtime"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
)

// While one file is written, others are read: a walk is as fast as whichever
// takes longer.
const (
	aheadMost  = 32        // files that are read before it is their turn
	aheadBytes = 256 << 10 // of each; larger ones are read when it is
)

// ahead reads files in other goroutines, and gives them in order in the one of
// the walk.
type ahead struct {
	give  func(*readFile) error
	queue []*readFile
	free  []*readFile
	work  chan *readFile
	group sync.WaitGroup
}

// readFile is a file that is read, or why it is not.
type readFile struct {
	file deploy.TreeFile
	hash plumbing.Hash
	o    *objects
	buf  []byte
	b    []byte
	err  error
	done chan struct{}
}

func newAhead(give func(*readFile) error) *ahead {
	a := &ahead{give: give, work: make(chan *readFile, aheadMost)}
	for range min(runtime.GOMAXPROCS(0), workersMax) {
		a.group.Go(func() {
			for f := range a.work {
				if _, f.b, f.err = f.o.take(f.hash, f.buf, aheadBytes); f.err == nil && cap(f.b) > cap(f.buf) {
					f.buf = f.b
				}
				f.done <- struct{}{}
			}
		})
	}
	return a
}

// add has a file read, and gives the first one when there are many.
func (a *ahead) add(o *objects, file deploy.TreeFile, hash plumbing.Hash) error {
	var f *readFile
	if n := len(a.free); n > 0 {
		f, a.free = a.free[n-1], a.free[:n-1]
	} else {
		f = &readFile{done: make(chan struct{}, 1)}
	}
	f.file, f.hash, f.o = file, hash, o
	a.work <- f
	a.queue = append(a.queue, f)
	if len(a.queue) < aheadMost {
		return nil
	}
	return a.first()
}

// first gives the first file.
func (a *ahead) first() error {
	f := a.queue[0]
	a.queue = append(a.queue[:0], a.queue[1:]...)
	<-f.done
	err := a.give(f)
	f.b, f.o = nil, nil
	a.free = append(a.free, f)
	return err
}

// rest gives all that are left.
func (a *ahead) rest() error {
	for len(a.queue) > 0 {
		if err := a.first(); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until nothing is being read.
func (a *ahead) settle() {
	for _, f := range a.queue {
		<-f.done
		f.done <- struct{}{} // for whoever gives it
	}
}

// end ends the goroutines.
func (a *ahead) end() {
	close(a.work)
	a.group.Wait()
}
