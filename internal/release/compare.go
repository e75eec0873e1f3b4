package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Bounds of what is told of a comparison.
const (
	namesBytes   = 2500 // of names in one sentence
	restoredMost = 20   // names
)

// plan is what must be done to a directory so that its tracked files are those
// of a commit. Making it changes nothing.
type plan struct {
	overwrite bool
	now       time.Time // when it was begun: what changed since then is looked at again
	dirs      *dirs

	files    []planned
	index    map[string]int
	gone     []gone            // files that the commit does not have any more
	clear    map[string]bool   // files and links in whose place a directory must be
	emptied  map[string]bool   // directories in whose place a file must be
	writable map[string]bool   // directories that were asked
	reasons  map[string]string // path -> why it is in the way
	restored []string
	bytes    int64
	writes   int

	prefix string // of the temporary names
}

// planned is a file of the commit.
type planned struct {
	path string
	entry
	keep bool        // it stands there already
	was  fs.FileInfo // what stands in its place; nil = nothing
	temp string      // path of the file that takes its place
	ino  uint64      // of that
}

// gone is a file to remove.
type gone struct {
	path string
	was  fs.FileInfo
}

// Begin begins to compare the directory with a commit, whose files [InPlace.Compare]
// is then called for, in the order of its tree.
func (p *InPlace) Begin(s Spec, overwrite bool) error {
	switch {
	case p.damage != nil:
		return p.damage
	case !deploy.ValidReleaseID(s.Release):
		return fmt.Errorf("%q is not the name of a release", s.Release)
	}
	if err := p.Discard(); err != nil {
		return err
	}
	d, err := openDirs(p.path)
	if err != nil {
		return siteSentence(p.path, err)
	}
	p.spec = s
	p.plan = &plan{
		overwrite: overwrite, now: time.Now(), dirs: d, index: map[string]int{}, clear: map[string]bool{}, emptied: map[string]bool{},
		writable: map[string]bool{}, reasons: map[string]string{}, prefix: ".deployhook-" + unique() + "-",
	}
	return nil
}

// Base makes the content of a file ours: it is one of the commit that somebody
// else put here before deployhook came.
func (p *InPlace) Base(f deploy.TreeFile) error {
	if p.damage != nil {
		return p.damage
	}
	if err := ValidTreePath(f.Path); err != nil {
		return err
	}
	e, err := entryOf(f)
	if err == nil {
		p.known.add(f.Path, e)
	}
	return err
}

// errNoPlan is a change that was not begun.
var errNoPlan = errors.New("no deploy was begun here")

// Compare looks at one file of the commit, and says whether it stands there
// already.
func (p *InPlace) Compare(f deploy.TreeFile) (bool, error) {
	if p.plan == nil {
		return false, errNoPlan
	}
	if err := ValidTreePath(f.Path); err != nil {
		return false, err
	}
	e, err := entryOf(f)
	if err != nil {
		return false, err
	}
	n := planned{path: f.Path, entry: e}
	if _, twice := p.plan.index[f.Path]; twice {
		return false, fmt.Errorf("the tree has %q twice", f.Path)
	}
	if err := p.compare(&n); err != nil {
		return false, fmt.Errorf("looking at %q: %w", path.Join(p.path, f.Path), err)
	}
	if !n.keep {
		p.plan.writes++
		p.plan.bytes += n.size
	}
	p.plan.index[f.Path] = len(p.plan.files)
	p.plan.files = append(p.plan.files, n)
	return n.keep, nil
}

func (p *InPlace) compare(n *planned) error {
	pl := p.plan
	dir, name := path.Split(n.path)
	in, reached, err := pl.dirs.at(path.Clean(dir))
	var way *inTheWay
	switch {
	case errors.As(err, &way):
		if err := p.clearable(in, way.path); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	}
	if err == nil {
		if n.was, err = in.Lstat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && n.was.IsDir() {
			pl.emptied[n.path], n.was = true, nil
		} else if err == nil {
			if n.keep, err = p.replaceable(in, name, n); err != nil || n.keep {
				n.was = nil
				return err
			}
		} else if p.known.files[n.path] != nil && p.known.Whole {
			if len(pl.restored) < restoredMost {
				pl.restored = append(pl.restored, n.path)
			}
		}
	}
	n.temp = path.Join(reached, pl.prefix+strconv.Itoa(len(pl.files)))
	return p.writable(in, reached)
}

// replaceable says whether the file at a name is the commit's; where it is
// another one, and not ours, it is in the way.
func (p *InPlace) replaceable(in *os.Root, name string, n *planned) (keep bool, err error) {
	known := p.known.files[n.path]
	have, err := look(in, name, n.was, append([]entry{n.entry}, known...), p.plan.now)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	switch {
	case have.mode == n.mode && have.same(n.entry):
		n.seen = have.seen
		return true, nil
	case have.mode != "" && (have.same(n.entry) || p.known.has(n.path, have)) || p.plan.overwrite:
		return false, nil
	case err != nil:
		p.plan.stop(n.path, cannotBeRead)
	case known != nil:
		p.plan.stop(n.path, changedByHand)
	default:
		p.plan.stop(n.path, notFromADeploy)
	}
	return false, nil
}

// clearable looks at a file or link where a directory must be.
func (p *InPlace) clearable(in *os.Root, at string) error {
	if p.plan.clear[at] {
		return nil
	}
	p.plan.clear[at] = true
	if p.plan.overwrite {
		return nil
	}
	ours, err := p.ours(in, at)
	if err == nil && !ours {
		p.plan.stop(at, mustBeADirectory)
	}
	return err
}

// ours says whether the file at a path is one that a deploy put there; in is
// its directory.
func (p *InPlace) ours(in *os.Root, at string) (bool, error) {
	st, err := in.Lstat(path.Base(at))
	if err != nil || st.IsDir() {
		return false, err
	}
	have, err := look(in, path.Base(at), st, p.known.files[at], p.plan.now)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return err == nil && have.mode != "" && p.known.has(at, have), err
}

// Why a file keeps the deploy from being made, in the order in which it is told.
const (
	changedByHand    = "changed by hand"
	changedAndGone   = "changed by hand, and not in the commit any more"
	notFromADeploy   = "there already with another content, and not from a deploy"
	mustBeADirectory = "there already, where the commit has a directory"
	cannotBeRead     = "there already, and cannot be read"
)

var reasons = []string{changedByHand, changedAndGone, notFromADeploy, mustBeADirectory, cannotBeRead}

// stop notes a path that keeps the deploy from being made.
func (pl *plan) stop(at, why string) {
	if pl.reasons[at] == "" {
		pl.reasons[at] = why
	}
}

// shown is a path as people read it: quoted where it has to be.
func shown(path string) string {
	if q := strconv.Quote(path); q != `"`+path+`"` || strings.ContainsAny(path, " ,()") || path == "" {
		return q
	}
	return path
}

// writable asks whether a directory that must change may be written.
func (p *InPlace) writable(in *os.Root, dir string) error {
	if p.plan.writable[dir] {
		return nil
	}
	p.plan.writable[dir] = true
	f, err := in.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Faccessat(int(f.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return siteSentence(path.Join(p.path, dir), err)
	}
	return nil
}

// Compared ends the comparison: it looks for what the commit does not have any
// more, and refuses, with their names, where files were changed by hand, and
// where there is no room. Until now nothing was changed.
func (p *InPlace) Compared() error {
	pl := p.plan
	if pl == nil {
		return errNoPlan
	}
	for _, at := range p.known.paths() {
		if _, stays := pl.index[at]; stays {
			continue
		}
		if err := p.compareGone(at); err != nil {
			return fmt.Errorf("looking at %q: %w", path.Join(p.path, at), err)
		}
	}
	if err := p.compareEmptied(); err != nil {
		return err
	}
	if err := p.stopped(); err != nil {
		return err
	}
	if pl.writes == 0 {
		return nil
	}
	return room(p.path, Spec{Files: pl.writes, Bytes: pl.bytes})
}

// compareGone looks at a file that was tracked and is not any more.
func (p *InPlace) compareGone(at string) error {
	pl := p.plan
	in, dir, err := pl.dirs.at(path.Dir(at))
	var way *inTheWay
	if errors.As(err, &way) || errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone with its directory
	}
	if err != nil {
		return err
	}
	st, err := in.Lstat(path.Base(at))
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := p.ours(in, at)
	if err != nil {
		return err
	}
	if !ours && !pl.overwrite {
		pl.stop(at, changedAndGone)
		return nil
	}
	pl.gone = append(pl.gone, gone{at, st})
	return p.writable(in, dir)
}

// compareEmptied looks at the directories where files must be: what is in them
// must go, so that nothing of anybody else may be there.
func (p *InPlace) compareEmptied() error {
	pl := p.plan
	if len(pl.emptied) == 0 {
		return nil
	}
	going := map[string]bool{}
	for _, g := range pl.gone {
		going[g.path] = true
	}
	for dir := range pl.emptied {
		in, _, err := pl.dirs.at(dir)
		if err != nil {
			return err
		}
		stays := ""
		err = fs.WalkDir(in.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			at := path.Join(dir, name)
			if err == nil && !d.IsDir() && !going[at] && pl.reasons[at] == "" {
				stays = at
				return fs.SkipAll
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("looking at %q: %w", path.Join(p.path, dir), err)
		}
		if stays != "" {
			return fmt.Errorf("the commit has a file %s, and in %s that is a directory with files of somebody else (%s): move it away",
				shown(dir), p.path, shown(stays))
		}
	}
	return nil
}

// stopped is the refusal of a deploy that would lose what somebody changed.
func (p *InPlace) stopped() error {
	if len(p.plan.reasons) == 0 {
		return nil
	}
	groups := map[string][]string{}
	for at, why := range p.plan.reasons {
		groups[why] = append(groups[why], shown(at))
	}
	var text strings.Builder
	room := namesBytes
	for _, why := range reasons {
		names := groups[why]
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		fmt.Fprintf(&text, "%s: ", why)
		for i, name := range names {
			if room -= len(name); room < 0 && i > 0 {
				fmt.Fprintf(&text, " and %d more", len(names)-i)
				break
			}
			if i > 0 {
				text.WriteString(", ")
			}
			text.WriteString(deploy.Cut(name, namesBytes))
		}
		text.WriteString("; ")
	}
	return fmt.Errorf("files in %s are in the way, and nothing was deployed: %sput them back or move them away, or let the deploy replace them with release.overwrite: true", p.path, &text)
}

// Begun says what [InPlace.Switch] will do.
type Begun struct {
	Write, Remove, Keep int
	Restored            []string // of what is written: had been removed by hand
}

// Begun sums the comparison up.
func (p *InPlace) Begun() Begun {
	pl := p.plan
	return Begun{Write: pl.writes, Remove: len(pl.gone), Keep: len(pl.files) - pl.writes, Restored: pl.restored}
}
