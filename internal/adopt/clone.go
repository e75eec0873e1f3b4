package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
	"deployhook/internal/release"
)

// clone reads a plain clone: its commit, and which of its files are not those
// of that commit.
func (s *Site) clone(ctx context.Context) error {
	s.Tool = Clone
	dir := s.file(".git")
	st, err := os.Lstat(dir)
	if err != nil {
		return reading(dir, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no directory: this is a worktree or a submodule of another clone; make it a clone of its own, or write strategy: in_place yourself", dir)
	}
	b, err := release.ReadPlain(filepath.Join(dir, "config"), configMost)
	if err != nil {
		return reading(filepath.Join(dir, "config"), err)
	}
	s.origin(originURL(string(b)))
	s.Branch = headBranch(dir)
	if s.Commit = release.CheckedOut(dir); s.Commit == "" {
		return fmt.Errorf("%s has no commit checked out: there is nothing to take over; write strategy: in_place, and the first deploy puts the files there", s.Path)
	}
	for _, name := range []string{"MERGE_HEAD", "rebase-merge", "rebase-apply", "index.lock"} {
		if exists(filepath.Join(dir, name)) {
			return fmt.Errorf("%s is there: git is at work in %s, or was cut short; let it finish, and adopt then", filepath.Join(dir, name), s.Path)
		}
	}
	if err := s.changes(ctx); err != nil {
		s.note("the files cannot be compared with commit %.7s: %v", s.Commit, err)
	}
	return nil
}

// changes finds the tracked files that are not as in the commit: each of them
// would stop the first deploy.
func (s *Site) changes(ctx context.Context) error {
	repo, err := git.OpenForeign(s.Path)
	if err != nil {
		return err
	}
	defer repo.Close()
	root, err := os.OpenRoot(s.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	return repo.List(ctx, s.Commit, func(f deploy.TreeFile) error {
		same, err := sameFile(root, f)
		if errors.Is(err, fs.ErrNotExist) {
			s.Removed++
			return nil
		}
		if err == nil && !same {
			s.Changed = append(s.Changed, f.Path)
		}
		return err
	})
}

// sameFile says whether a file has the content that a commit has of it.
func sameFile(root *os.Root, f deploy.TreeFile) (bool, error) {
	st, err := root.Lstat(f.Path)
	if err != nil {
		return false, err
	}
	sum := release.NewBlob(f.Size)
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(f.Path)
		if err != nil || f.Mode != deploy.TreeSymlink {
			return false, err
		}
		_, _ = io.WriteString(sum, target)
	case !st.Mode().IsRegular() || f.Mode == deploy.TreeSymlink || st.Size() != f.Size:
		return false, nil
	default:
		file, err := root.Open(f.Path)
		if err != nil {
			return false, err
		}
		defer file.Close()
		if _, err := io.Copy(sum, io.LimitReader(file, f.Size+1)); err != nil {
			return false, err
		}
	}
	return sum.Is(f.Blob), nil
}
