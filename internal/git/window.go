package git

import (
	"errors"

	"github.com/go-git/go-git/v5/plumbing"
)

// neighbor is an object that others are held against.
type neighbor struct {
	i             int32
	kind          plumbing.ObjectType
	content       []byte
	index         deltaIndex
	read, indexed bool
	gone          bool // it is in the window no more
	bytes         int
}

func (s *searcher) neighbor(i int32) *neighbor {
	c := &neighbor{}
	if n := len(s.free); n > 0 {
		c, s.free = s.free[n-1], s.free[:n-1]
	}
	*c = neighbor{i: i, content: c.content, index: c.index}
	return c
}

// forget empties the window.
func (s *searcher) forget() {
	for _, list := range []*[]*neighbor{&s.window, &s.roots} {
		for len(*list) > 0 {
			s.shift(list)
		}
	}
}

// shift takes the first out of a list.
func (s *searcher) shift(list *[]*neighbor) {
	s.drop((*list)[0])
	*list = append((*list)[:0], (*list)[1:]...)
}

func (s *searcher) drop(c *neighbor) {
	const most = 256 << 10 // bytes that are kept for the next one
	s.held -= c.bytes
	c.gone = true
	if cap(c.content)+c.index.bytes() <= most {
		s.free = append(s.free, c)
	}
}

// push adds a neighbor to the window, and takes out what has no place in it.
func (s *searcher) push(c *neighbor) {
	s.window = append(s.window, c)
	if len(s.window) <= windowMost {
		return
	}
	if old := s.window[0]; s.done[old.i].base < 0 {
		s.window = append(s.window[:0], s.window[1:]...)
		s.roots = append(s.roots, old)
	} else {
		s.shift(&s.window)
	}
	if len(s.roots) > windowRoots {
		s.shift(&s.roots)
	}
}

// hold counts what a neighbor takes. Of the others, the oldest go when that is
// too much.
func (s *searcher) hold(c *neighbor) {
	now := cap(c.content) + c.index.bytes()
	s.held += now - c.bytes
	c.bytes = now
	for _, list := range []*[]*neighbor{&s.roots, &s.window} {
		for s.held > windowBytes && len(*list) > 0 && (*list)[0] != c {
			s.shift(list)
		}
	}
}

// read reads what a neighbor has. Not ok: it is not what it was taken for, or
// too large.
func (s *searcher) read(c *neighbor) (ok bool, err error) {
	if c.read {
		return c.kind == s.info[c.i].kind, nil
	}
	kind, b, err := s.content(c.i, c.content, searchAbove)
	if err != nil && !errors.Is(err, errLarge) {
		return false, err
	}
	c.read = true
	if err != nil {
		return false, nil // and no kind: it is none that is looked for
	}
	c.kind, c.content = kind, b
	s.hold(c)
	return kind == s.info[c.i].kind, nil
}
