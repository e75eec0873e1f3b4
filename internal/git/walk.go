package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"deployhook/internal/deploy"
)

// Bounds of a tree: what is beyond them is no repository that people deploy.
const (
	filesMost = 2_000_000
	depthMost = 200
	linkMost  = 4096 // bytes of a symlink's target
)

// lfsHead is how a pointer of Git LFS begins, and lfsMost how long one is.
const (
	lfsHead = "version https://git-lfs.github.com/spec/v1"
	lfsMost = 1024
)

// Walk gives every file of a commit, in git's order. fn reads the content,
// which is valid until it returns, or leaves it; a link's content is its
// target. Submodules and LFS pointers are refused, and so are names that a
// file system could take for something else.
func (m *Mirror) Walk(ctx context.Context, commit string, fn func(deploy.TreeFile, io.Reader) error) error {
	return m.walk(ctx, commit, func(repo *gogit.Repository, f deploy.TreeFile, hash plumbing.Hash) error {
		blob, err := repo.BlobObject(hash)
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", f.Path, m.remote.Repository, err)
		}
		r, err := blob.Reader()
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", f.Path, m.remote.Repository, err)
		}
		defer r.Close()
		if f.Size > lfsMost || f.Size < int64(len(lfsHead)) {
			return fn(f, r)
		}
		b, err := io.ReadAll(io.LimitReader(r, f.Size+1))
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", f.Path, m.remote.Repository, err)
		}
		if bytes.HasPrefix(b, []byte(lfsHead)) {
			return fmt.Errorf("%q is stored in Git LFS, which this version cannot fetch", f.Path)
		}
		return fn(f, bytes.NewReader(b))
	})
}

// Measure counts a commit's files and their bytes, without reading them.
func (m *Mirror) Measure(ctx context.Context, commit string) (files int, size int64, err error) {
	err = m.walk(ctx, commit, func(_ *gogit.Repository, f deploy.TreeFile, _ plumbing.Hash) error {
		files++
		size += f.Size
		return nil
	})
	return files, size, err
}

func (m *Mirror) walk(ctx context.Context, commit string, fn func(*gogit.Repository, deploy.TreeFile, plumbing.Hash) error) error {
	repo, err := m.open()
	if err != nil {
		return err
	}
	c, err := repo.CommitObject(plumbing.NewHash(commit))
	if err != nil {
		return fmt.Errorf("reading commit %s of %s: %w", cut(commit), m.remote.Repository, err)
	}
	w := &walker{ctx: ctx, repo: repo, fn: fn, name: m.remote.Repository}
	return w.tree(c.TreeHash, "", 0)
}

type walker struct {
	ctx   context.Context
	repo  *gogit.Repository
	fn    func(*gogit.Repository, deploy.TreeFile, plumbing.Hash) error
	name  string
	files int
}

func (w *walker) tree(hash plumbing.Hash, prefix string, depth int) error {
	if depth > depthMost {
		return fmt.Errorf("%s has directories more than %d deep", w.name, depthMost)
	}
	t, err := object.GetTree(w.repo.Storer, hash)
	if err != nil {
		return fmt.Errorf("reading %q of %s: %w", prefix, w.name, err)
	}
	seen := make(map[string]bool, len(t.Entries))
	for _, e := range t.Entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := validEntry(e.Name); err != nil {
			return fmt.Errorf("%s has %q: %w", w.name, prefix+e.Name, err)
		}
		if seen[e.Name] {
			return fmt.Errorf("%s has %q twice", w.name, prefix+e.Name)
		}
		seen[e.Name] = true
		if err := w.entry(e, prefix+e.Name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(e object.TreeEntry, path string, depth int) error {
	f := deploy.TreeFile{Path: path, Blob: e.Hash.String()}
	switch e.Mode {
	case filemode.Dir:
		return w.tree(e.Hash, path+"/", depth+1)
	case filemode.Regular, filemode.Deprecated:
		f.Mode = deploy.TreePlain
	case filemode.Executable:
		f.Mode = deploy.TreeExecutable
	case filemode.Symlink:
		f.Mode = deploy.TreeSymlink
	case filemode.Submodule:
		return fmt.Errorf("%q is a submodule, which this version cannot fetch", path)
	default:
		return fmt.Errorf("%q has mode %v, which is none of git's", path, e.Mode)
	}
	if w.files++; w.files > filesMost {
		return fmt.Errorf("%s has more than %d files", w.name, filesMost)
	}
	size, err := w.repo.Storer.EncodedObjectSize(e.Hash)
	if err != nil {
		return fmt.Errorf("reading %q of %s: %w", path, w.name, err)
	}
	if f.Size = size; f.Mode == deploy.TreeSymlink && size > linkMost {
		return fmt.Errorf("the link %q points to a name of %d bytes", path, size)
	}
	return w.fn(w.repo, f, e.Hash)
}

// validEntry refuses names of tree entries that lead elsewhere, or that some
// file system takes for .git.
func validEntry(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return errors.New("this is not the name of a file")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("the name of a file has no slash and no NUL")
	case len(name) > 255:
		return errors.New("the name is over 255 bytes")
	}
	plain := strings.ToLower(strings.Map(func(r rune) rune {
		switch {
		// Characters that HFS+ ignores.
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name))
	plain, _, _ = strings.Cut(plain, ":") // NTFS streams
	plain = strings.TrimRight(plain, " .")
	if plain == ".git" || strings.HasPrefix(plain, "git~") && strings.Trim(plain[4:], "0123456789") == "" {
		return errors.New("a commit cannot hold .git")
	}
	return nil
}
