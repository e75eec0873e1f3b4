package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/deploy"
)

// Switch makes the tracked files those of the commit: first what must make
// room, then all new files by a rename each, then what the commit does not
// have any more. pops marks a rollback. [ErrNotBegun]: nothing was changed.
func (p *InPlace) Switch(pops bool) error {
	if err := p.maySwitch(); err != nil {
		return refusal{err}
	}
	pl := p.plan
	// What is renamed into place must be on disk before its name is.
	if pl.writes > 0 {
		if err := syncTree(p.path); err != nil {
			return refusal{err}
		}
	}
	in := deploy.Intent{
		Format: deploy.IntentFormat, Daemon: p.owner.Daemon, Run: p.owner.Run, Job: p.owner.Job, Attempt: p.owner.Attempt,
		From: p.known.Current, To: "releases/" + p.spec.Release, Phase: deploy.Switching, Pops: pops,
	}
	if old, _ := p.readIntent(); old != nil && old.Daemon == in.Daemon && old.Run == in.Run && old.Job == in.Job {
		in.From = old.From // where the first attempt came from
	}
	reached("in-place-before-intent")
	if err := p.writeIntent(in); err != nil {
		return refusal{err}
	}
	p.intent = &in
	reached("in-place-intent")
	// From here on each file may be the old one or the new one.
	if pl.writes+len(pl.gone) == 0 {
		return p.whole()
	}
	for i := range pl.files {
		p.known.add(pl.files[i].path, pl.files[i].entry)
	}
	p.known.Current, p.known.Whole = in.To, false
	if err := p.writeManifest(p.known); err != nil {
		return err
	}
	reached("in-place-listed")
	if err := p.change(); err != nil {
		return fmt.Errorf("in the middle of changing the files in %s, which the next deploy or rollback repairs: %w", p.path, err)
	}
	if err := syncTree(p.path); err != nil {
		return err
	}
	reached("in-place-changed")
	return p.whole()
}

// maySwitch looks once more, before anything is changed, whether all is as it
// was when it was compared.
func (p *InPlace) maySwitch() error {
	pl := p.plan
	if pl == nil {
		return errNoPlan
	}
	if err := p.held(); err != nil {
		return err
	}
	pl.dirs.back(0) // what was opened may have been moved
	check := func(at string, was fs.FileInfo) error {
		in, _, err := pl.dirs.at(path.Dir(at))
		var is fs.FileInfo
		if err == nil {
			is, err = in.Lstat(path.Base(at))
		}
		var way *inTheWay
		switch {
		case errors.As(err, &way) && pl.clear[way.path]:
			return nil
		case errors.Is(err, fs.ErrNotExist) && was == nil:
			return nil
		case err == nil && was == nil && is.IsDir() && pl.emptied[at]:
			return nil
		case err != nil || was == nil || !unchanged(was, is):
			return fmt.Errorf("%s in %s was changed while it was being deployed: look at it, and deploy again", shown(at), p.path)
		}
		return nil
	}
	for i := range pl.files {
		f := &pl.files[i]
		if f.keep {
			continue
		}
		if f.ino == 0 {
			return fmt.Errorf("%q was not sent", f.path)
		}
		if err := check(f.path, f.was); err != nil {
			return err
		}
	}
	for _, g := range pl.gone {
		if err := check(g.path, g.was); err != nil {
			return err
		}
	}
	return nil
}

// unchanged says whether a file is as it was, as far as its inode tells.
func unchanged(was, is fs.FileInfo) bool {
	a, b := was.Sys().(*syscall.Stat_t), is.Sys().(*syscall.Stat_t)
	return os.SameFile(was, is) && was.Mode() == is.Mode() && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

func (p *InPlace) change() error {
	pl := p.plan
	if err := p.makeRoom(); err != nil {
		return err
	}
	pl.dirs.back(0) // what is open may be gone
	reached("in-place-room")
	renamed := 0
	for i := range pl.files {
		f := &pl.files[i]
		if f.keep {
			continue
		}
		if err := p.put(f); err != nil {
			return fmt.Errorf("putting %q into place: %w", f.path, err)
		}
		switch renamed++; renamed {
		case 1:
			reached("in-place-renamed-first")
		case 3:
			reached("in-place-renamed-some")
		}
	}
	reached("in-place-renamed")
	if err := p.removeGone(func(string) bool { return true }); err != nil {
		return err
	}
	reached("in-place-removed")
	pl.dirs.back(0)
	return p.verify()
}

// makeRoom removes files where directories must be, and directories where files must be.
func (p *InPlace) makeRoom() error {
	pl := p.plan
	for at := range pl.clear {
		if err := pl.dirs.remove(at); err != nil {
			return err
		}
	}
	if len(pl.emptied) == 0 {
		return nil
	}
	below := func(at string) bool {
		for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
			if pl.emptied[dir] {
				return true
			}
		}
		return false
	}
	if err := p.removeGone(below); err != nil {
		return err
	}
	pl.dirs.back(0)
	for dir := range pl.emptied {
		if err := removeEmpty(pl.dirs, dir); err != nil {
			return err
		}
	}
	return nil
}

// removeEmpty removes a directory with the empty ones in it. One with a file
// in it is an error, and stays.
func removeEmpty(d *dirs, dir string) error {
	in, _, err := d.at(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []string
	err = fs.WalkDir(in.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(all)
	for _, name := range all {
		if name == "." {
			break
		}
		if err := in.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	up, _, err := d.at(path.Dir(dir))
	if err == nil {
		err = up.Remove(path.Base(dir))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// put renames a new file into its place.
func (p *InPlace) put(f *planned) error {
	d := p.plan.dirs
	if err := makeDirs(d, path.Dir(f.path)); err != nil {
		return err
	}
	from, _, err := d.at(path.Dir(f.temp))
	if err != nil {
		return err
	}
	temp := path.Base(f.temp)
	if f.mode != deploy.TreeSymlink {
		mode := fs.FileMode(0o644)
		if f.mode == deploy.TreeExecutable {
			mode = 0o755
		}
		if err := from.Chmod(temp, mode); err != nil {
			return err
		}
	}
	to := f.path
	if dir := path.Dir(f.temp); dir != "." {
		to = strings.TrimPrefix(f.path, dir+"/")
	}
	return from.Rename(temp, to)
}

// makeDirs makes a directory with those on the way to it.
func makeDirs(d *dirs, dir string) error {
	for {
		last, reached, err := d.at(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		rest := dir
		if reached != "." {
			rest = strings.TrimPrefix(dir, reached+"/")
		}
		next, _, _ := strings.Cut(rest, "/")
		if err := last.Mkdir(next, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// removeGone removes files that the commit does not have any more, and the
// directories that are empty then. What became another file meanwhile stays,
// as on a file system that takes a and A for one name.
func (p *InPlace) removeGone(which func(string) bool) error {
	pl := p.plan
	dirs := map[string]bool{}
	for _, g := range pl.gone {
		if !which(g.path) {
			continue
		}
		in, _, err := pl.dirs.at(path.Dir(g.path))
		if err != nil {
			continue // it made room with its directory
		}
		if is, err := in.Lstat(path.Base(g.path)); err != nil || !unchanged(g.was, is) {
			continue
		}
		if err := in.Remove(path.Base(g.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %q: %w", g.path, err)
		}
		for dir := path.Dir(g.path); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	// The deepest first; one that is not empty stays.
	for _, dir := range slices.Backward(sorted(dirs)) {
		if in, _, err := pl.dirs.at(path.Dir(dir)); err == nil {
			if st, err := in.Lstat(path.Base(dir)); err == nil && st.IsDir() {
				_ = in.Remove(path.Base(dir))
			}
		}
	}
	return nil
}

// verify looks whether each new file stands under its name: a file system may
// take two names for one.
func (p *InPlace) verify() error {
	now := time.Now()
	for i := range p.plan.files {
		f := &p.plan.files[i]
		if f.keep {
			continue
		}
		in, _, err := p.plan.dirs.at(path.Dir(f.path))
		if err != nil {
			return err
		}
		st, err := in.Lstat(path.Base(f.path))
		if err != nil {
			return err
		}
		if st.Sys().(*syscall.Stat_t).Ino != f.ino {
			return fmt.Errorf("%q is not what was put there: somebody changed it just now, or this file system takes another name of the commit for it", f.path)
		}
		f.seen = stampOf(st, now)
	}
	return nil
}

// whole records that all files are those of the commit.
func (p *InPlace) whole() error {
	pl := p.plan
	m := &manifest{Format: manifestFormat, Path: p.path, Current: p.intent.To, Whole: true, files: make(map[string][]entry, len(pl.files))}
	for i := range pl.files {
		m.files[pl.files[i].path] = []entry{pl.files[i].entry}
	}
	if err := p.writeManifest(m); err != nil {
		return err
	}
	p.known = m
	pl.dirs.close()
	p.plan = nil
	reached("in-place-whole")
	if err := p.unstage(); err != nil {
		return err
	}
	return p.line(p.about(p.spec, deploy.ReleasePrepared))
}

// Adopt makes what stands at the tracked paths ours: the steps of a deploy that was cut
// short may have changed it.
func (p *InPlace) Adopt() error {
	if p.damage != nil || !p.known.Whole {
		return nil
	}
	return p.rescan()
}

// rescan looks at the tracked files after the steps: what those changed is no
// change by hand. It also remembers what files look like that were written
// just before, so that they need not be read again the next time.
func (p *InPlace) rescan() error {
	if p.damage != nil || !p.known.Whole {
		return nil
	}
	d, err := openDirs(p.path)
	if err != nil {
		return siteSentence(p.path, err)
	}
	defer d.close()
	now, changed := time.Now(), false
	for _, at := range p.known.paths() {
		in, _, err := d.at(path.Dir(at))
		if err != nil {
			continue // removed, or something else now: the next deploy sees it
		}
		st, err := in.Lstat(path.Base(at))
		if err != nil || st.IsDir() {
			continue
		}
		have, err := look(in, path.Base(at), st, p.known.files[at], now)
		if err != nil || have.mode == "" {
			continue
		}
		if !p.known.has(at, have) {
			if have.mode != deploy.TreeSymlink {
				if have.blob, err = hashFile(in, path.Base(at), st); err != nil {
					continue
				}
			}
			p.known.add(at, have)
			changed = true
			continue
		}
		for i, e := range p.known.files[at] {
			if e.same(have) && e.seen != have.seen {
				p.known.files[at][i].seen = have.seen
				changed = true
			}
		}
	}
	if !changed {
		return nil
	}
	return p.writeManifest(p.known)
}

func sorted(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for k := range set {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
