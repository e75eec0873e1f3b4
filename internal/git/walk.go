package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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

// lfsHead is how a pointer of Git LFS begins, and lfsMost how long one is.
const (
	lfsHead = "version https://git-lfs.github.com/spec/v1"
	lfsMost = 1024
)

// Walk gives every file of a commit, in git's order. fn reads the content,
// which is valid until it returns, or leaves it; a link's content is its
// target. Every content is held against its id. Submodules and LFS pointers
// are refused, and so are names that a file system could take for something
// else. What the mirror has lost is fetched anew on the way.
func (m *Mirror) Walk(ctx context.Context, commit string, fn func(deploy.TreeFile, io.Reader) error) error {
	return m.WalkSome(ctx, commit, func(deploy.TreeFile) bool { return true }, fn)
}

// WalkSome is [Mirror.Walk] for the files that want says yes to. It is asked
// of every file once, in git's order, before the content and the size are known.
func (m *Mirror) WalkSome(ctx context.Context, commit string, want func(deploy.TreeFile) bool, fn func(deploy.TreeFile, io.Reader) error) error {
	w := &walker{ctx: ctx, m: m, commit: commit}
	w.ahead = newAhead(func(r *readFile) error { return w.give(r, fn) })
	w.fn = func(w *walker, f deploy.TreeFile, hash plumbing.Hash) error {
		if !want(f) {
			return nil
		}
		return w.ahead.add(w.o, f, hash)
	}
	return w.walk()
}

// give gives one file to fn. What was not read ahead is read now.
func (w *walker) give(r *readFile, fn func(deploy.TreeFile, io.Reader) error) error {
	f, b := r.file, r.b
	if r.err == nil {
		f.Size = int64(len(b))
		return w.content(f, b, fn)
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
		return w.stream(f, obj, r.hash, fn)
	}
	return w.content(f, b, fn)
}

// content gives a file whose content is in memory.
func (w *walker) content(f deploy.TreeFile, b []byte, fn func(deploy.TreeFile, io.Reader) error) error {
	switch {
	case f.Mode == deploy.TreeSymlink && (f.Size == 0 || f.Size > linkMost || bytes.IndexByte(b, 0) >= 0):
		return fmt.Errorf("the link %q of %s points to what is no name", cut(f.Path), w.m.remote.Repository)
	case len(b) <= lfsMost && bytes.HasPrefix(b, []byte(lfsHead)):
		return fmt.Errorf("%q of %s is stored in Git LFS, which this version cannot fetch", cut(f.Path), w.m.remote.Repository)
	}
	return fn(f, bytes.NewReader(b))
}

// List gives every file of a commit, as [Mirror.Walk] does, with its size but
// without its content, which is not read.
func (m *Mirror) List(ctx context.Context, commit string, fn func(deploy.TreeFile) error) error {
	return m.walk(ctx, commit, func(w *walker, f deploy.TreeFile, hash plumbing.Hash) error {
		err := w.heal(func() (err error) {
			f.Size, err = w.o.size(hash)
			return err
		})
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", f.Path, w.m.remote.Repository, err)
		}
		return fn(f)
	})
}

// Measure counts a commit's files and their bytes, without reading them.
func (m *Mirror) Measure(ctx context.Context, commit string) (files int, size int64, err error) {
	err = m.List(ctx, commit, func(f deploy.TreeFile) error {
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

func (m *Mirror) walk(ctx context.Context, commit string, fn func(*walker, deploy.TreeFile, plumbing.Hash) error) error {
	return (&walker{ctx: ctx, m: m, commit: commit, fn: fn}).walk()
}

func (w *walker) walk() error {
	m, commit := w.m, w.commit
	if w.ahead != nil {
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
	var root plumbing.Hash
	err := w.heal(func() error {
		c, err := w.o.commit(plumbing.NewHash(commit))
		if err == nil {
			root = c.TreeHash
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading commit %s of %s: %w", cut(commit), m.remote.Repository, err)
	}
	if err := w.tree(root, "", 0); err != nil || w.ahead == nil {
		return err
	}
	return w.ahead.rest()
}

type walker struct {
	ctx     context.Context
	m       *Mirror
	commit  string
	fn      func(*walker, deploy.TreeFile, plumbing.Hash) error
	o       *objects
	renewed int64 // of the mirror that is open
	healed  bool  // it was fetched anew for this walk
	files   int
	ahead   *ahead // nil: nothing is read
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
		err = fn(f, newVerifier(r, plumbing.BlobObject, f.Size, hash))
	} else {
		err = fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
	}
	if errors.Is(err, errDamaged) {
		w.m.suspect.Store(true)
		return fmt.Errorf("reading %q of %s: %w; a retry fetches it anew", cut(f.Path), w.m.remote.Repository, err)
	}
	return err
}

func (w *walker) tree(hash plumbing.Hash, prefix string, depth int) error {
	name := w.m.remote.Repository
	if depth > depthMost {
		return fmt.Errorf("%s has directories more than %d deep", name, depthMost)
	}
	var list []entry
	err := w.heal(func() (err error) {
		list, err = w.o.tree(hash)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading %q of %s: %w", "/"+prefix, name, err)
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
		case len(path) > pathMost:
			return fmt.Errorf("%s has a path of more than %d bytes: %q", name, pathMost, cut(path))
		}
		seen[e.name] = true
		// Directories count: a few small objects can mean more of them than
		// anybody could ever walk.
		if w.files++; w.files > filesMost {
			return fmt.Errorf("%s has more than %d files and directories", name, filesMost)
		}
		if err := w.entry(e, path, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(e entry, path string, depth int) error {
	f := deploy.TreeFile{Path: path, Blob: e.hash.String()}
	name := w.m.remote.Repository
	switch e.mode {
	case filemode.Dir:
		return w.tree(e.hash, path+"/", depth+1)
	case filemode.Regular, filemode.Deprecated:
		f.Mode = deploy.TreePlain
	case filemode.Executable:
		f.Mode = deploy.TreeExecutable
	case filemode.Symlink:
		f.Mode = deploy.TreeSymlink
	case filemode.Submodule:
		return fmt.Errorf("%q of %s is a submodule, which this version cannot fetch", cut(path), name)
	default:
		return fmt.Errorf("%q of %s has mode %o, which is none of git's", cut(path), name, uint32(e.mode))
	}
	return w.fn(w, f, e.hash)
}
