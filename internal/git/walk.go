package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"

	"deployhook/internal/deploy"
)

// Bounds of a tree: what is beyond them is no repository that people deploy.
const (
	depthMost = 200
	linkMost  = 4095 // bytes of a symlink's target, as Linux has it
)

// filesMost is how many files a commit may have, directories counted too.
var filesMost = 2_000_000

// Walk gives every file that is delivered, in git's order. fn reads the
// content, which is valid until it returns, or leaves it; a link's content is
// its target. Every content is held against its id. Names that a file system
// could take for something else are refused. What the mirror has lost is
// fetched anew on the way.
func (x *Export) Walk(ctx context.Context, fn func(deploy.TreeFile, io.Reader) error) error {
	return x.WalkSome(ctx, func(deploy.TreeFile) bool { return true }, fn)
}

// WalkSome is [Export.Walk] for the files that want says yes to. It is asked
// of every file once, in git's order, before the content and the size are known.
func (x *Export) WalkSome(ctx context.Context, want func(deploy.TreeFile) bool, fn func(deploy.TreeFile, io.Reader) error) error {
	w := x.walker(ctx, func(w *walker, it item) error {
		wanted := want(it.file)
		made, err := w.made(&it, wanted)
		switch {
		case err != nil || !wanted:
			return err
		case made != nil:
			if err := w.ahead.rest(); err != nil {
				return err
			}
			return made.give(w, it.file, fn)
		}
		return w.ahead.add(w.o, it.file, it.hash)
	})
	w.give = fn
	return w.run(x.view.Subdir)
}

// deliver gives one file. What was not read ahead is read now.
func (w *walker) deliver(r *readFile) error {
	f, b := r.file, r.b
	if r.err == nil {
		f.Size = int64(len(b))
		return w.content(f, b)
	}
	var obj plumbing.EncodedObject
	err := w.heal(func() (err error) {
		if obj, err = w.o.object(r.hash); err == nil && obj.Size() <= streamAbove {
			b, err = w.o.content(obj, r.hash)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading %q of %s: %w", f.Path, w.m.remote.Repository, err)
	}
	if f.Size = obj.Size(); f.Size > streamAbove && f.Mode != deploy.TreeSymlink {
		return w.stream(f, obj, r.hash, w.give)
	}
	return w.content(f, b)
}

// content gives a file whose content is in memory.
func (w *walker) content(f deploy.TreeFile, b []byte) error {
	if f.Mode == deploy.TreeSymlink && (f.Size == 0 || f.Size > linkMost || bytes.IndexByte(b, 0) >= 0) {
		return fmt.Errorf("the link %q of %s points to what is no name", cut(f.Path), w.m.remote.Repository)
	}
	return w.give(f, bytes.NewReader(b))
}

// List gives every file that is delivered, with its size but without its
// content. Size and blob are those of what [Export.Walk] gives, also where
// that is not what the repository holds.
func (x *Export) List(ctx context.Context, fn func(deploy.TreeFile) error) error {
	return x.walk(ctx, func(w *walker, it item) error {
		made, err := w.made(&it, true)
		if err != nil {
			return err
		}
		if made == nil {
			if it.file.Size, err = w.size(it); err != nil {
				return err
			}
		}
		return fn(it.file)
	})
}

func (w *walker) size(it item) (size int64, err error) {
	err = w.heal(func() (err error) {
		size, err = w.o.size(it.hash)
		return err
	})
	if err != nil {
		err = fmt.Errorf("reading %q of %s: %w", it.file.Path, w.m.remote.Repository, err)
	}
	return size, err
}

// Bring fetches what a commit needs that is not in its repository.
func (x *Export) Bring(ctx context.Context) error {
	return x.walk(ctx, func(w *walker, it item) error {
		it.subst = false
		_, err := w.made(&it, true)
		return err
	})
}

// Measure counts the files that are delivered and their bytes. What is kept
// elsewhere than in the repository is here after it.
func (x *Export) Measure(ctx context.Context) (files int, size int64, err error) {
	err = x.List(ctx, func(f deploy.TreeFile) error {
		files++
		size += f.Size
		return nil
	})
	return files, size, err
}

// reading runs fn on the mirror, and again on one fetched anew when fn finds
// it damaged.
func (m *Mirror) reading(ctx context.Context, commit string, fn func(*objects) error) error {
	w := &walker{ctx: ctx, m: m, commit: commit}
	if err := w.open(); err != nil {
		return err
	}
	defer func() { w.o.close() }()
	return w.heal(func() error { return fn(w.o) })
}

func (x *Export) walker(ctx context.Context, fn func(*walker, item) error) *walker {
	return &walker{ctx: ctx, m: x.m, commit: x.commit, x: x, fn: fn, files: new(int), count: new(int)}
}

func (x *Export) walk(ctx context.Context, fn func(*walker, item) error) error {
	return x.walker(ctx, fn).run(x.view.Subdir)
}

// run walks one repository.
func (w *walker) run(subdir string) error {
	w.subdir = subdir
	if w.give != nil {
		w.ahead = newAhead(w.deliver)
		defer w.ahead.end()
	}
	if err := w.open(); err != nil {
		return err
	}
	defer func() {
		if w.ahead != nil {
			w.ahead.settle()
		}
		w.o.close()
	}()
	err := w.heal(func() error {
		c, err := w.o.commit(plumbing.NewHash(w.commit))
		if err == nil {
			w.root = c.TreeHash
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading commit %s of %s: %w", cut(w.commit), w.m.remote.Repository, err)
	}
	if subdir != "" {
		err = w.below(w.root, subdir)
	} else {
		err = w.tree(w.root, "", 0)
	}
	if err != nil || w.ahead == nil {
		return err
	}
	return w.ahead.rest()
}

type walker struct {
	ctx     context.Context
	m       *Mirror
	commit  string
	x       *Export
	fn      func(*walker, item) error
	o       *objects
	renewed int64 // of the mirror that is open
	healed  bool  // it was fetched anew for this walk
	files   *int  // seen so far, those of other repositories in this one too

	give  func(deploy.TreeFile, io.Reader) error // gets what is read; nil = nothing is
	ahead *ahead                                 // nil = nothing is read

	root   plumbing.Hash // the commit's tree
	skip   string        // what paths in the repository begin with and delivered ones do not
	subdir string
	alone  bool              // submodules are passed by
	prefix string            // what delivered paths begin with: where a submodule is
	count  *int              // submodules seen so far
	depth  int               // submodules around this one
	mods   map[string]module // nil until one is met
	attrs  attributes
	pretty *pretty // nil until a file has placeholders
}

func (w *walker) open() error {
	w.renewed = w.m.renewed.Load()
	o, err := w.m.open()
	switch {
	case errors.Is(err, errDamaged) || errors.Is(err, os.ErrNotExist):
		if err := w.renew(err); err != nil {
			return err
		}
		w.renewed = w.m.renewed.Load()
		o, err = w.m.open()
	}
	if err != nil {
		return fmt.Errorf("opening the mirror of %s: %w", w.m.remote.Repository, err)
	}
	w.o = o
	return nil
}

// renew has the mirror fetched anew, unless that was done since it was opened.
func (w *walker) renew(cause error) error {
	hash, err := w.m.id(w.commit)
	if err != nil {
		return err
	}
	if err := w.m.hold(w.ctx); err != nil {
		return err
	}
	defer w.m.release()
	if w.m.renewed.Load() != w.renewed {
		return nil
	}
	ctx, cancel := context.WithTimeout(w.ctx, fetchTime)
	defer cancel()
	_, err = w.m.anew(ctx, hash, "", cause)
	return err
}

// heal runs fn, and again when the mirror was damaged and is fetched anew: by
// this walk once, by others as often as they do.
func (w *walker) heal(fn func() error) error {
	err := fn()
	for errors.Is(err, errDamaged) || errors.Is(err, errNotHere) {
		if w.m.renewed.Load() == w.renewed {
			if w.healed {
				return err
			}
			w.healed = true
			if rerr := w.renew(err); rerr != nil {
				return fmt.Errorf("%w, and it could not be fetched anew: %w", err, rerr)
			}
		}
		if w.ahead != nil {
			w.ahead.settle()
		}
		w.o.close()
		if oerr := w.open(); oerr != nil {
			return oerr
		}
		err = fn()
	}
	return err
}

// stream gives a file that is too large for memory. Damage is found when half
// of it may be gone out already: then the walk ends, and the next Fetch makes
// the mirror anew.
func (w *walker) stream(f deploy.TreeFile, obj plumbing.EncodedObject, hash plumbing.Hash, fn func(deploy.TreeFile, io.Reader) error) error {
	r, err := obj.Reader()
	if err == nil {
		defer r.Close()
		err = verified(f, r, hash, fn)
	} else {
		err = fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
	}
	if errors.Is(err, errDamaged) {
		w.m.suspect.Store(true)
		return fmt.Errorf("reading %q of %s: %w; a retry fetches it anew", cut(f.Path), w.m.remote.Repository, err)
	}
	return err
}

// verified gives fn a content that is held against its id.
func verified(f deploy.TreeFile, r io.Reader, hash plumbing.Hash, fn func(deploy.TreeFile, io.Reader) error) error {
	v := newVerifier(r, plumbing.BlobObject, f.Size, hash)
	c := &counter{r: v}
	err := fn(f, c)
	if err == nil && c.n == f.Size {
		err = v.check() // who reads no further than the size does not meet the end
	}
	return err
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// list reads a directory.
func (w *walker) list(hash plumbing.Hash, dir string) ([]entry, error) {
	var list []entry
	err := w.heal(func() (err error) {
		list, err = w.o.tree(hash)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %q of %s: %w", "/"+dir, w.m.remote.Repository, err)
	}
	return list, nil
}

func (w *walker) tree(hash plumbing.Hash, prefix string, depth int) error {
	name := w.m.remote.Repository
	if depth > depthMost {
		return fmt.Errorf("%s has directories more than %d deep", name, depthMost)
	}
	list, err := w.list(hash, prefix)
	if err != nil {
		return err
	}
	defer w.attrs.leave(len(w.attrs.files))
	if err := w.enter(list, prefix); err != nil {
		return err
	}
	seen := make(map[string]bool, len(list))
	for _, e := range list {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		path := prefix + e.name
		switch err := validEntry(e.name); {
		case err != nil:
			return fmt.Errorf("%s has %q: %w", name, cut(path), err)
		case seen[e.name]:
			return fmt.Errorf("%s has %q twice", name, cut(path))
		case len(w.prefix)+len(path) > pathMost:
			return fmt.Errorf("%s has a path of more than %d bytes: %q", name, pathMost, cut(path))
		}
		seen[e.name] = true
		// Directories count: a few small objects can mean more of them than
		// anybody could ever walk.
		if *w.files++; *w.files > filesMost {
			return fmt.Errorf("%s has more than %d files and directories", name, filesMost)
		}
		if err := w.entry(e, path, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(e entry, path string, depth int) error {
	name := w.m.remote.Repository
	attrs, err := w.attributes(path, e.mode == filemode.Dir || e.mode == filemode.Submodule)
	if err != nil || w.x.view.Rules && attrs.set(exportIgnore) {
		return err
	}
	it := item{file: deploy.TreeFile{Path: w.prefix + strings.TrimPrefix(path, w.skip), Blob: e.hash.String()}, hash: e.hash}
	switch e.mode {
	case filemode.Dir:
		return w.tree(e.hash, path+"/", depth+1)
	case filemode.Regular, filemode.Deprecated:
		it.file.Mode = deploy.TreePlain
	case filemode.Executable:
		it.file.Mode = deploy.TreeExecutable
	case filemode.Symlink:
		it.file.Mode = deploy.TreeSymlink
		return w.fn(w, it)
	case filemode.Submodule:
		return w.submodule(e, path, it.file.Path)
	default:
		return fmt.Errorf("%q of %s has mode %o, which is none of git's", cut(path), name, uint32(e.mode))
	}
	it.subst = w.x.view.Rules && attrs.set(exportSubst)
	it.lfs = attrs.is(filterName, "lfs")
	return w.fn(w, it)
}
