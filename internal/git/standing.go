package git

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// standing is where an object stands in the trees, and among its deltas.
type standing struct {
	name, path uint32 // a sum that is near for like names, and one that is another for each path
	turn       int32  // how many are newer; 0: it is in no tree that was read
	kind       plumbing.ObjectType
	height     int32 // deltas upon deltas upon it
}

// names finds out what the objects are called, and how old they are.
func (s *searcher) names() error {
	type commit struct {
		i    int32
		tree plumbing.Hash
		time int64
	}
	var commits []commit
	byPack := make([]int32, 0, len(s.done))
	for i := range s.done {
		if s.done[i].kind == plumbing.CommitObject {
			byPack = append(byPack, int32(i))
		}
	}
	// The small packs come first, and are the new ones.
	slices.SortStableFunc(byPack, func(a, b int32) int {
		return cmp.Compare(s.all[s.done[a].choice].pack, s.all[s.done[b].choice].pack)
	})
	for _, i := range byPack {
		if s.spent > nameWorkMost || s.hurry() {
			break
		}
		kind, b, err := s.content(i, s.buf, searchAbove)
		if errors.Is(err, errLarge) || err == nil && kind != plumbing.CommitObject {
			continue
		}
		if err != nil {
			return err
		}
		s.buf = b
		if tree, time, ok := commitHead(b); ok {
			commits = append(commits, commit{i, tree, time})
		}
	}
	s.spent = 0
	slices.SortStableFunc(commits, func(a, b commit) int { return cmp.Compare(b.time, a.time) })
	for _, c := range commits {
		s.see(c.i, standing{kind: plumbing.CommitObject})
		if root, ok := s.object(c.tree); ok {
			if err := s.tree(root); err != nil {
				return err
			}
		}
	}
	return nil
}

// commitHead reads a commit's tree, and when it was made, in seconds.
func commitHead(b []byte) (tree plumbing.Hash, time int64, ok bool) {
	p, ok := bytes.CutPrefix(b, []byte("tree "))
	if !ok || len(p) < 2*len(tree) || !plumbing.IsHash(string(p[:2*len(tree)])) {
		return tree, 0, false
	}
	tree = plumbing.NewHash(string(p[:2*len(tree)]))
	head, _, _ := bytes.Cut(p, []byte("\n\n"))
	_, who, _ := bytes.Cut(head, []byte("\ncommitter "))
	who, _, _ = bytes.Cut(who, []byte("\n"))
	if _, err := fmt.Sscan(string(who[bytes.LastIndexByte(who, '>')+1:]), &time); err != nil {
		time = 0
	}
	return tree, time, true
}

// see notes where an object stands, unless it was seen before.
func (s *searcher) see(i int32, at standing) bool {
	if s.info[i].turn > 0 {
		return false
	}
	s.turns++
	at.turn = s.turns
	s.info[i] = at
	return true
}

// tree reads what is below a tree that nothing is above of.
func (s *searcher) tree(root int32) error {
	if !s.see(root, standing{kind: plumbing.TreeObject, path: pathStart}) {
		return nil
	}
	todo := []int32{root}
	for len(todo) > 0 && s.spent <= nameWorkMost && !s.hurry() {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		kind, b, err := s.content(i, s.buf, searchAbove)
		if errors.Is(err, errLarge) || err == nil && kind != plumbing.TreeObject {
			continue
		}
		if err != nil {
			return err
		}
		s.buf = b
		list, err := parseTree(b)
		if err != nil {
			continue // it is as it was pushed
		}
		for _, e := range list {
			child, ok := s.object(e.hash)
			if !ok || e.mode == filemode.Submodule {
				continue
			}
			kind := plumbing.BlobObject
			if e.mode == filemode.Dir {
				kind = plumbing.TreeObject
			}
			if s.see(child, s.info[i].below(kind, e.name)) && kind == plumbing.TreeObject {
				todo = append(todo, child)
			}
		}
	}
	return nil
}

const pathStart = 2166136261 // of FNV-1

// below is where an entry of a directory stands. The end of a path counts the
// most in the sum of its name, so that files of one name in many directories,
// and those with one ending, stand together.
//
// Source: git's pack_name_hash (pack-objects.h).
func (d standing) below(kind plumbing.ObjectType, name string) standing {
	next := standing{name: d.name, path: d.path, kind: kind}
	for _, c := range []byte("/" + name) {
		next.path = (next.path ^ uint32(c)) * 16777619
		if c > ' ' && (c != '/' || d.path != pathStart) {
			next.name = next.name>>2 + uint32(c)<<24
		}
	}
	return next
}

// list is what is searched, in the order in which like stands beside like.
func (s *searcher) list() (list []int32) {
	for i := range s.info {
		if d := &s.info[i]; d.turn > 0 && d.kind != plumbing.CommitObject {
			list = append(list, int32(i))
		}
	}
	slices.SortFunc(list, func(a, b int32) int {
		return cmp.Or(s.info[a].compare(s.info[b]), cmp.Compare(s.info[a].turn, s.info[b].turn))
	})
	return list
}

// compare puts trees before files, and like names beside each other.
func (d standing) compare(other standing) int {
	return cmp.Or(cmp.Compare(d.kind, other.kind), cmp.Compare(d.name, other.name), cmp.Compare(d.path, other.path))
}
