package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// What must be free beside the tree itself.
const (
	spareBytes  = 16 << 20
	spareInodes = 100
)

// Prepare looks whether a release can be made here, and makes its directory.
// Each refusal is one sentence. [ErrExists]: the name is taken.
func (p *Path) Prepare(s Spec) error {
	if !deploy.ValidReleaseID(s.Release) {
		return fmt.Errorf("%q is not the name of a release", s.Release)
	}
	if _, err := p.currentRelease(); err != nil {
		return err
	}
	if err := room(p.root, s); err != nil {
		// What failed is kept for people to look at, as long as there is room.
		p.removeFailed()
		if err := room(p.root, s); err != nil {
			return err
		}
	}
	for _, name := range s.SharedDirs {
		dir := filepath.Join(p.root, "shared", name)
		if st, err := os.Stat(dir); err == nil && !st.IsDir() {
			return fmt.Errorf("the shared directory %s is a file: write it under shared.files", dir)
		}
	}
	for _, name := range s.SharedFiles {
		file := filepath.Join(p.root, "shared", name)
		st, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the shared file %s is missing: make it first", file)
		}
		if err != nil {
			return fmt.Errorf("the shared file %s: %w", file, err)
		}
		if st.IsDir() {
			return fmt.Errorf("the shared file %s is a directory: write it under shared.dirs", file)
		}
	}
	dir := filepath.Join(p.root, "releases", s.Release)
	// Without -p: what is there belongs to somebody, and is neither used nor removed.
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return ErrExists
	} else if err != nil {
		return sentence(p.root, err)
	}
	p.filled()
	p.release, p.spec, p.made, p.whole = s.Release, s, true, false
	reached("made")
	tree, err := OpenDir(dir)
	if err == nil {
		p.tree = tree
		p.is, err = tree.Stat(".")
	}
	if err != nil {
		return err
	}
	if err := p.line(p.ours(deploy.ReleasePreparing)); err != nil {
		os.Remove(dir)
		return err
	}
	return nil
}

// Before is the directory of the release that current points to; empty when
// there is none.
func (p *Path) Before() string {
	target, err := p.currentRelease()
	if err != nil || target == "" {
		return ""
	}
	return filepath.Join(p.root, target)
}

// room says whether the file system has enough bytes and inodes.
func room(dir string, s Spec) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("asking for free space in %s: %w", dir, err)
	}
	free, need := int64(st.Bavail)*st.Bsize, s.Bytes+spareBytes
	if free < need {
		return fmt.Errorf("no space left in %s: the release needs %s, %s are free", dir, megabytes(need), megabytes(free))
	}
	// Some file systems have no fixed number of inodes and say zero.
	if st.Files > 0 && int64(st.Ffree) < int64(s.Files)+spareInodes {
		return fmt.Errorf("no inodes left in %s: the release needs %d, %d are free", dir, s.Files+spareInodes, st.Ffree)
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// Shared links the shared directories and files into the release. Directories
// are made where they are missing; what the commit has in their place gives way.
func (p *Path) Shared() error {
	dirs := len(p.spec.SharedDirs)
	for i, name := range append(append([]string{}, p.spec.SharedDirs...), p.spec.SharedFiles...) {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the shared path %q is not one below the release", name)
		}
		target := filepath.Join(p.root, "shared", name)
		if i < dirs {
			if err := os.MkdirAll(target, 0o755); err != nil {
				return fmt.Errorf("making the shared directory %s: %w", target, err)
			}
		}
		if err := p.linkShared(name, target); err != nil {
			return fmt.Errorf("linking the shared path %s: %w", name, err)
		}
	}
	p.whole = true
	p.filled()
	return nil
}

func (p *Path) linkShared(name, target string) error {
	// os.Root: a link in the commit must not lead this out of the release.
	root, err := p.Tree()
	if err != nil {
		return err
	}
	defer root.Close()
	parent := filepath.Dir(name)
	if parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	link, err := filepath.Rel(filepath.Join(p.Dir(), parent), target)
	if err != nil {
		return err
	}
	return root.Symlink(link, name)
}

// Prepared writes the release to disk and records that it is whole.
func (p *Path) Prepared() error {
	if err := errors.Join(p.held(), p.stands()); err != nil {
		return err
	}
	if err := syncTree(p.Dir()); err != nil {
		return err
	}
	reached("synced")
	err := p.line(p.ours(deploy.ReleasePrepared))
	reached("prepared-line")
	return err
}

// Bad records that the release at hand will never be live. A tree that never
// was whole is removed at once.
func (p *Path) Bad() error {
	p.filled()
	switch {
	case p.release == "":
		return nil
	case p.made && !p.whole:
		return p.remove(p.release)
	}
	return p.line(p.ours(deploy.ReleaseBad))
}

// Sweep removes the trees that a crash left half made: those with a line
// preparing, of this daemon, and none after it.
func (p *Path) Sweep() error {
	f, err := p.Found()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range deploy.Releases(f) {
		if r.State != deploy.ReleasePreparing || r.Current || !p.madeHere(f, r.ID) {
			continue
		}
		errs = append(errs, p.remove(r.ID))
	}
	return errors.Join(errs...)
}

func (p *Path) madeHere(f *deploy.Found, id string) bool {
	for _, l := range f.Lines {
		if l.Release == id && l.State == deploy.ReleasePreparing {
			return l.Daemon == p.owner.Daemon
		}
	}
	return false
}

// Prune removes old releases and gives the names of those that are gone.
func (p *Path) Prune(keep, keepFailed int) ([]string, error) {
	f, err := p.Found()
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	var used map[string]bool
	for _, id := range deploy.PruneList(f, keep, keepFailed, func(id string) bool {
		if used == nil {
			used = p.inUse()
		}
		return used[id]
	}) {
		if err := p.remove(id); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(errs...)
}

// removeFailed removes all releases that never were live.
func (p *Path) removeFailed() {
	if f, err := p.Found(); err == nil && len(deploy.PruneList(f, len(f.Lines), 0, func(string) bool { return false })) > 0 {
		_, _ = p.Prune(len(f.Lines), 0) // the question that follows is whether there is room
	}
}

// remove takes a release away: out of its name first, so that nobody meets
// half of it.
func (p *Path) remove(id string) error {
	if !p.known(id) {
		return fmt.Errorf("%q is not the name of a release", id)
	}
	dir := filepath.Join(p.root, "releases", id)
	trash := filepath.Join(p.root, ".deployhook", "trash-"+unique())
	err := os.Rename(dir, trash)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing release %s: %w", id, err)
	}
	err = p.removed(id)
	terr := p.emptyTrash()
	if err != nil {
		err = p.removed(id) // on a full disk there is room for it only now
	}
	return errors.Join(err, terr)
}

// emptyTrash removes what was taken away, now or before a crash.
func (p *Path) emptyTrash() error {
	names, err := filepath.Glob(p.file("trash-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		errs = append(errs, RemoveTree(n))
	}
	return errors.Join(errs...)
}

// inUse finds the releases that a process works in or runs from, as far as
// /proc shows it to this user.
func (p *Path) inUse() map[string]bool {
	used := map[string]bool{}
	base := filepath.Join(p.root, "releases") + "/"
	if real, err := filepath.EvalSymlinks(filepath.Join(p.root, "releases")); err == nil {
		base = real + "/"
	}
	note := func(link string) {
		if rest, ok := strings.CutPrefix(link, base); ok {
			id, _, _ := strings.Cut(rest, "/")
			used[strings.TrimSuffix(id, " (deleted)")] = true
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		for _, name := range []string{"cwd", "exe", "root"} {
			if link, err := os.Readlink(proc + "/" + name); err == nil {
				note(link)
			}
		}
		fds, _ := filepath.Glob(proc + "/fd/*")
		for _, fd := range fds {
			if link, err := os.Readlink(fd); err == nil {
				note(link)
			}
		}
		if maps, err := os.ReadFile(proc + "/maps"); err == nil && strings.Contains(string(maps), base) {
			for line := range strings.Lines(string(maps)) {
				if i := strings.IndexByte(line, '/'); i >= 0 {
					note(strings.TrimSpace(line[i:]))
				}
			}
		}
	}
	return used
}
