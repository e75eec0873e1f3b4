package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// local is a repository on this machine, by its path. It is read in this
// process: git-upload-pack is never run.
type local string

func (l local) connect(context.Context) (conversation, error) {
	return nil, errors.New("a path is read, not connected to")
}

// open opens a repository by its path, bare or with a work tree.
func (l local) open() (*objects, error) {
	for _, dir := range []string{string(l), filepath.Join(string(l), ".git"), string(l) + ".git"} {
		b, err := os.ReadFile(filepath.Join(dir, "config"))
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("deployhook's user may not read the repository at clone_url")
		}
		if err != nil {
			continue
		}
		conf := strings.Map(func(r rune) rune {
			if r == ' ' || r == '\t' {
				return -1
			}
			return r
		}, strings.ToLower(string(b)))
		switch {
		case strings.Contains(conf, "objectformat=sha256"):
			return nil, errSHA256
		case strings.Contains(conf, "refstorage=reftable"):
			return nil, errors.New("it keeps its refs as reftable, which is not supported")
		}
		return foreign(dir), nil
	}
	return nil, errors.New("there is no git repository at clone_url")
}

// refs gives its refs, HEAD as well.
func (l local) refs(fn func(advertised) error) error {
	o, err := l.open()
	if err != nil {
		return err
	}
	defer o.close()
	iter, err := o.IterReferences()
	if err != nil {
		return fmt.Errorf("its refs cannot be read: %s", cut(err.Error()))
	}
	head, herr := o.Reference(plumbing.HEAD)
	some := false
	give := func(r advertised) error {
		some = true
		return fn(r)
	}
	err = iter.ForEach(func(r *plumbing.Reference) error {
		if r.Type() != plumbing.HashReference || r.Name() == plumbing.HEAD {
			return nil
		}
		if herr == nil && head.Type() == plumbing.SymbolicReference && head.Target() == r.Name() {
			if err := give(advertised{name: "HEAD", id: r.Hash(), target: head.Target().String()}); err != nil {
				return err
			}
		}
		return give(advertised{name: r.Name().String(), id: r.Hash()})
	})
	if err != nil {
		return fmt.Errorf("its refs cannot be read: %s", cut(err.Error()))
	}
	if herr == nil && head.Type() == plumbing.HashReference {
		return give(advertised{name: "HEAD", id: head.Hash()})
	}
	if !some {
		return transport.ErrEmptyRemoteRepository
	}
	return nil
}

// copyFrom copies a commit, or a tag, and all that is before it, to the mirror.
// Commits that no ref names any more are copied too: there is nobody to hide
// them from on the same disk.
func (m *Mirror) copyFrom(ctx context.Context, path string, to *objects, hash plumbing.Hash) error {
	from, err := local(path).open()
	if err != nil {
		return m.explain(ctx, err)
	}
	defer func() { from.close() }()
	if !from.has(hash) {
		// Somebody may write to it now: what was listed may have another name since.
		from.close()
		if from, err = local(path).open(); err != nil {
			return m.explain(ctx, err)
		}
	}
	edge, err := from.shallow()
	if err != nil {
		return m.explain(ctx, errors.New("its list of shallow commits cannot be read"))
	}
	c := &copier{ctx: ctx, from: from, to: to, edge: edge, seen: map[plumbing.Hash]bool{}}
	if !from.has(hash) {
		if err := local(path).refs(func(advertised) error { return nil }); err != nil {
			return m.explain(ctx, err)
		}
		return m.gone(hash)
	}
	if err := c.add(hash); err != nil {
		return m.explain(ctx, sourceDamaged(err))
	}
	if len(edge) > 0 {
		own, err := to.shallow()
		if err != nil {
			return err
		}
		for h := range edge {
			if c.seen[h] {
				own[h] = true
			}
		}
		if err := to.setShallow(own); err != nil {
			return fmt.Errorf("writing the mirror of %s: %w", m.remote.Repository, err)
		}
	}
	err = keep(m.dir, func(f *os.File) (*indexer, error) { return c.pack(f) })
	if errors.Is(err, errDamaged) || errors.Is(err, errNotHere) {
		err = sourceDamaged(err)
	}
	if err != nil {
		return m.explain(ctx, err)
	}
	return nil
}

// sourceDamaged is a repository that lacks what belongs to it. What is wrong
// with it is nothing that the mirror could be mended of.
func sourceDamaged(err error) error {
	return errors.New("the repository at clone_url is damaged: " + cut(err.Error()))
}

// pack writes the objects of the list into f.
func (c *copier) pack(f io.Writer) (*indexer, error) {
	p, err := newPacker(f, len(c.list))
	if err != nil {
		return nil, err
	}
	for _, hash := range c.list {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		obj, err := c.from.object(hash)
		if err != nil {
			return nil, err
		}
		r, err := obj.Reader()
		if err != nil {
			return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
		}
		err = p.add(hash, obj.Type(), obj.Size(), newVerifier(r, obj.Type(), obj.Size(), hash))
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	return p.end()
}

// copier lists what the mirror lacks, and packs it.
type copier struct {
	ctx      context.Context
	from, to *objects
	edge     map[plumbing.Hash]bool
	seen     map[plumbing.Hash]bool
	list     []plumbing.Hash
}

// new says whether an object is to be copied. What the mirror has, it has with
// all that belongs to it.
func (c *copier) new(hash plumbing.Hash) bool {
	if c.seen[hash] {
		return false
	}
	c.seen[hash] = true
	if c.to.has(hash) {
		return false
	}
	c.list = append(c.list, hash)
	return true
}

func (c *copier) add(hash plumbing.Hash) error {
	todo := []plumbing.Hash{hash}
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if !c.new(h) {
			continue
		}
		obj, err := c.from.object(h)
		if err != nil {
			return err
		}
		switch obj.Type() {
		case plumbing.TagObject:
			tag, err := c.from.tag(h)
			if err != nil {
				return err
			}
			todo = append(todo, tag.Target)
		case plumbing.CommitObject:
			commit, err := c.from.commit(h)
			if err != nil {
				return err
			}
			if err := c.tree(commit.TreeHash, 0); err != nil {
				return err
			}
			if !c.edge[h] {
				todo = append(todo, commit.ParentHashes...)
			}
		case plumbing.TreeObject:
			if err := c.tree(h, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copier) tree(hash plumbing.Hash, depth int) error {
	if !c.new(hash) {
		return nil
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if depth > depthMost {
		return fmt.Errorf("it has directories more than %d deep", depthMost)
	}
	list, err := c.from.tree(hash)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch e.mode {
		case filemode.Dir:
			err = c.tree(e.hash, depth+1)
		case filemode.Submodule: // its commits are elsewhere
		default:
			c.new(e.hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
