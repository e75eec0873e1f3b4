package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// ErrHistory is an ancestry that cannot be read: a commit is missing, or the
// history is cut short.
var ErrHistory = errors.New("the history cannot be read")

// Commit is what is said of a commit.
type Commit struct {
	Message, Author string
	Time            time.Time
}

// Commit reads a commit that is in the mirror.
func (m *Mirror) Commit(ctx context.Context, sha string) (Commit, error) {
	var c Commit
	err := m.reading(ctx, sha, func(o *objects) error {
		found, err := o.commit(plumbing.NewHash(sha))
		if err == nil {
			c = Commit{Message: found.Message, Author: found.Author.Name, Time: found.Author.When}
		}
		return err
	})
	if err != nil {
		return Commit{}, fmt.Errorf("reading commit %s of %s: %w", cut(sha), m.remote.Repository, err)
	}
	return c, nil
}

// IsAncestor says whether one commit is another's ancestor, or the same, as
// git merge-base --is-ancestor. [ErrHistory]: it cannot be told from what is here.
func (m *Mirror) IsAncestor(ctx context.Context, ancestor, descendant string) (is bool, err error) {
	if _, err := os.Stat(m.dir); err != nil {
		return false, fmt.Errorf("%w: nothing of %s is here", ErrHistory, m.remote.Repository)
	}
	err = m.reading(ctx, descendant, func(o *objects) error {
		is, err = o.isAncestor(ctx, plumbing.NewHash(ancestor), plumbing.NewHash(descendant))
		return err
	})
	if errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: %w", ErrHistory, err)
	}
	return is, err
}

func (o *objects) isAncestor(ctx context.Context, want, from plumbing.Hash) (bool, error) {
	// What is not here is no damage: it may never have been.
	unknown := func(err error) error {
		if errors.Is(err, errNotHere) {
			return fmt.Errorf("%w: %s", ErrHistory, err.Error())
		}
		return err
	}
	if _, err := o.object(want); err != nil {
		return false, unknown(err)
	}
	edge, err := o.shallow()
	if err != nil {
		return false, err
	}
	seen := map[plumbing.Hash]bool{}
	todo := []plumbing.Hash{from}
	cutShort := false
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[h] {
			continue
		}
		seen[h] = true
		if h == want {
			return true, nil
		}
		if len(seen)%1000 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if edge[h] {
			cutShort = true
			continue
		}
		c, err := o.commit(h)
		if err != nil {
			return false, unknown(err)
		}
		todo = append(todo, c.ParentHashes...)
	}
	if cutShort {
		return false, fmt.Errorf("%w: it is cut short (depth)", ErrHistory)
	}
	return false, nil
}

// Changed lists the paths that differ between two commits, in git's order;
// before all zeros gives every path of after.
func (m *Mirror) Changed(ctx context.Context, before, after string) ([]string, error) {
	var paths []string
	err := m.reading(ctx, after, func(o *objects) error {
		paths = nil
		tree := func(sha string) (plumbing.Hash, error) {
			if strings.Trim(sha, "0") == "" {
				return plumbing.ZeroHash, nil
			}
			c, err := o.commit(plumbing.NewHash(sha))
			if errors.Is(err, errNotHere) {
				return plumbing.ZeroHash, errors.New(err.Error()) // no damage: it may never have been
			}
			if err != nil {
				return plumbing.ZeroHash, err
			}
			return c.TreeHash, nil
		}
		a, err := tree(before)
		if err != nil {
			return err
		}
		b, err := tree(after)
		if err != nil {
			return err
		}
		d := &differ{ctx: ctx, o: o, found: &paths}
		return d.trees(a, b, "", 0)
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %s and %s of %s: %w", cut(before), cut(after), m.remote.Repository, err)
	}
	return paths, nil
}

// differ compares two trees.
type differ struct {
	ctx   context.Context
	o     *objects
	found *[]string
	seen  int
}

func (d *differ) read(hash plumbing.Hash) ([]entry, error) {
	if hash.IsZero() {
		return nil, nil
	}
	return d.o.tree(hash)
}

func (d *differ) trees(a, b plumbing.Hash, prefix string, depth int) error {
	switch {
	case a == b:
		return nil
	case depth > depthMost:
		return fmt.Errorf("there are directories more than %d deep", depthMost)
	case d.ctx.Err() != nil:
		return d.ctx.Err()
	}
	olds, err := d.read(a)
	if err != nil {
		return err
	}
	news, err := d.read(b)
	if err != nil {
		return err
	}
	for len(olds)+len(news) > 0 {
		order := 1
		switch {
		case len(news) == 0:
			order = -1
		case len(olds) > 0:
			order = bytes.Compare(olds[0].key(), news[0].key())
		}
		var old, next entry
		if order <= 0 {
			old, olds = olds[0], olds[1:]
		}
		if order >= 0 {
			next, news = news[0], news[1:]
		}
		if err := d.entries(old, next, prefix, depth); err != nil {
			return err
		}
	}
	return nil
}

// entries compares two entries of one name, of which one may be absent.
func (d *differ) entries(old, next entry, prefix string, depth int) error {
	if old.hash == next.hash && old.mode == next.mode {
		return nil
	}
	if d.seen++; d.seen > filesMost {
		return fmt.Errorf("more than %d files differ", filesMost)
	}
	name := prefix + old.name
	if old.name == "" {
		name = prefix + next.name
	}
	if old.mode == filemode.Dir || next.mode == filemode.Dir {
		return d.trees(old.hash, next.hash, name+"/", depth+1)
	}
	*d.found = append(*d.found, name)
	return nil
}
