package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// adoptWait is how long [Adopt] waits for whoever uses the path.
const adoptWait = 5 * time.Second

// Ownership is whose the files of a journal are.
type Ownership struct{ UID, GID int }

// give makes a file its owner's; nil leaves it as it is.
func (o *Ownership) give(f *os.File) error {
	if o == nil {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == o.UID && int(sys.Gid) == o.GID {
		return nil
	}
	return f.Chown(o.UID, o.GID)
}

// Adopt tells the journal of a path about releases that another tool made
// there, the oldest first, and gives the lines that it wrote: of releases that
// it knows already none. Only .deployhook in root is made and written; current
// must point to the release that is named, and is not touched.
func Adopt(ctx context.Context, root, current string, lines []deploy.ReleaseLine, owner *Ownership) ([]deploy.ReleaseLine, error) {
	dir, owner, err := openJournal(root, owner)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Through the open directory: root must not be led elsewhere by a link
	// that somebody puts in its place meanwhile.
	p := newPath(root, Owner{Job: "adopt"})
	p.dir, p.files = fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), owner
	wait, cancel := context.WithTimeout(ctx, adoptWait)
	defer cancel()
	if err := p.takeLock(wait); err != nil {
		return nil, err
	}
	defer p.lock.Close()
	if err := errors.Join(owner.give(p.lock), p.removeWriting(), p.repairLines()); err != nil {
		return nil, sentence(root, err)
	}
	reached("adopt-locked")
	had, lines, err := p.unknown(lines)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	if now, err := p.current(); err != nil || now != "releases/"+current {
		return nil, errors.Join(fmt.Errorf("%s/current was pointed elsewhere just now: adopt once that deploy has ended", root), err)
	}
	for i := range lines {
		lines[i].Time = time.Now().UTC()
		if !lines[i].Valid() {
			return nil, fmt.Errorf("the journal cannot tell of release %q", lines[i].Release)
		}
		b, err := json.Marshal(lines[i])
		if err != nil {
			return nil, err
		}
		had = append(append(had, b...), '\n')
	}
	if err := p.replace("releases.ndjson", had); err != nil {
		return nil, err
	}
	reached("adopt-written")
	return lines, syncDir(root)
}

// AdoptPlan gives the lines that [Adopt] would write, and writes nothing.
func AdoptPlan(root string, lines []deploy.ReleaseLine) ([]deploy.ReleaseLine, error) {
	_, lines, err := newPath(root, Owner{}).unknown(lines)
	return lines, err
}

// unknown gives the journal's text, and those of the lines that are about
// releases of which it does not tell. A switch that was not finished is an error.
func (p *Path) unknown(lines []deploy.ReleaseLine) (had []byte, fresh []deploy.ReleaseLine, err error) {
	if in, foreign := p.readIntent(); in != nil || foreign != "" {
		return nil, nil, fmt.Errorf("a switch of deployhook is unfinished in %s: deployhook unlock local:%s --abandon drops it", p.root, p.root)
	}
	had, err = readBounded(p.file("releases.ndjson"), compactMost)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, sentence(p.root, err)
	}
	told, err := parseLines(strings.NewReader(string(had)), false)
	if err != nil {
		return nil, nil, err
	}
	known := map[string]bool{}
	for _, l := range told {
		known[l.Release] = l.State != deploy.ReleaseRemoved
	}
	// What is live now comes again after what is newer: it goes with that.
	for i, l := range lines {
		pops := l.Pops && len(fresh) > 0 && i > 0 && fresh[len(fresh)-1].Release == lines[i-1].Release
		if !known[l.Release] && !l.Pops || pops {
			fresh = append(fresh, l)
		}
	}
	return had, fresh, nil
}

// openJournal makes .deployhook in a release path and opens it: never a link
// that somebody made under that name. One that is there already keeps its
// owner, to whom what is made in it belongs too.
func openJournal(root string, owner *Ownership) (*os.File, *Ownership, error) {
	at, err := os.Open(root)
	if err != nil {
		return nil, nil, adoptSentence(root, err)
	}
	defer at.Close()
	if err := unix.Mkdirat(int(at.Fd()), ".deployhook", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, adoptSentence(root, err)
	}
	reached("adopt-made")
	name := filepath.Join(root, ".deployhook")
	fd, err := unix.Openat(int(at.Fd()), ".deployhook", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil, fmt.Errorf("%s is not a directory: move it away", name)
	}
	if err != nil {
		return nil, nil, adoptSentence(root, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && owner != nil && int(st.Uid) != os.Geteuid() {
		owner = &Ownership{int(st.Uid), int(st.Gid)}
	}
	if err == nil {
		err = owner.give(dir)
	}
	if err == nil {
		err = unix.Access(fmt.Sprintf("/proc/self/fd/%d", fd), unix.W_OK)
	}
	if err != nil {
		dir.Close()
		return nil, nil, adoptSentence(root, err)
	}
	return dir, owner, nil
}

// adoptSentence says what keeps a tree from being adopted, and what to do.
func adoptSentence(root string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s cannot be written by %s: sudo deployhook adopt %s", root, userName(), root)
	}
	return sentence(root, err)
}

// removeWriting removes files of the journal that a crash left half written.
func (p *journal) removeWriting() error {
	files, err := filepath.Glob(p.file(tempPrefix + "*"))
	for _, n := range files {
		os.Remove(n)
	}
	return err
}

// CurrentOf is where current points in a release path, for a release
// "releases/<name>"; empty when there is none.
func CurrentOf(root string) (string, error) { return newPath(root, Owner{}).current() }

// Knows says whether the journal of a path tells of a release, and whether
// there is a journal.
func Knows(root, name string) (known, journal bool, err error) {
	p := newPath(root, Owner{})
	if _, err := os.Lstat(p.file("releases.ndjson")); errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	lines, err := p.readLines()
	return slices.ContainsFunc(lines, func(l deploy.ReleaseLine) bool { return l.Release == name }), true, err
}

// ReadPlain reads a file of so many bytes at most. What is no file is neither
// followed nor waited for.
func ReadPlain(name string, most int64) ([]byte, error) { return readBounded(name, most) }

// CheckedOut is the commit of a clone's .git; empty where it cannot be told.
func CheckedOut(git string) string { return checkedOut(git) }

// InUse lists the releases of a path that a process works in or runs from, as
// far as this user can see it.
func InUse(root string) map[string]bool { return newPath(root, Owner{}).inUse() }
