// Package release keeps releases/, shared/ and current of one path on this
// machine: it prepares, switches, puts back and removes, and writes a journal
// of it that survives whatever ends the process.
package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Failpoint is nil in a running deployhook. Tests set it to end the process at
// a moment of a switch, which it is told by name.
var Failpoint func(name string)

func reached(name string) {
	if Failpoint != nil {
		Failpoint(name)
	}
}

// ErrExists is a release whose name is taken.
var ErrExists = errors.New("a release of this name is there already")

// lockWait is how long Open waits for whoever uses the path.
const lockWait = 60 * time.Second

// Owner is for whom a path is opened.
type Owner struct {
	Daemon  string
	Run     int64
	Job     string
	Attempt int
	Now     func() time.Time // what lines of the journal are dated with; nil: this machine's clock
}

func (o Owner) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Path is an opened release path. It is locked until [Path.Close].
type Path struct {
	journal

	release string // being prepared, or switched to
	spec    Spec
	made    bool           // the release's directory is this owner's
	tree    *os.Root       // that directory while it is filled, whatever comes to stand under its name; else nil
	is      fs.FileInfo    // that directory, after it was made here
	whole   bool           // all of the commit is in it
	intent  *deploy.Intent // of this owner's switch
	seen    *string        // where current pointed when the owner was told
}

// Spec says what a release is made of.
type Spec struct {
	Release, Repository, Commit string
	Files                       int
	Bytes                       int64
	SharedDirs, SharedFiles     []string
}

// Open locks a path for an owner, makes the directories that are missing, and
// repairs what a crash may leave: a torn line in the journal, temporary links.
// It waits a minute for whoever has the lock, and then names them.
func Open(ctx context.Context, root string, o Owner) (*Path, error) {
	if err := makePath(root); err != nil {
		return nil, err
	}
	p := newPath(root, o)
	if err := p.takeLock(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(p.repairLines(), p.removeTemporary()); err != nil {
		p.Close()
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	// A journal that cannot be made shorter now is as good as before.
	_ = p.compact()
	return p, nil
}

func makePath(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return sentence(root, err)
	}
	for _, name := range []string{".deployhook", "releases", "shared"} {
		dir := filepath.Join(root, name)
		err := os.Mkdir(dir, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return sentence(root, err)
		}
		// releases and shared may be links to a larger disk; the journal is ours.
		stat := os.Stat
		if name == ".deployhook" {
			stat = os.Lstat
		}
		if st, err := stat(dir); err != nil || !st.IsDir() {
			return fmt.Errorf("%s is not a directory: move it away", dir)
		}
		if err := unix.Access(dir, unix.W_OK); err != nil && name != "shared" {
			return sentence(root, err)
		}
	}
	if err := unix.Access(root, unix.W_OK); err != nil {
		return sentence(root, err)
	}
	return nil
}

// sentence says what keeps a path from being written, and what to do.
func sentence(root string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		name := userName()
		return fmt.Errorf("the release path %s cannot be written by %s: make it with: sudo install -d -o %s %s", root, name, name, root)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("no space left in %s", root)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no space left in %s: the disk quota is used up", root)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the release path %s is on a read-only file system", root)
	}
	return fmt.Errorf("writing in the release path %s: %w", root, err)
}

// userName is whom the files belong to that are made here.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

func newPath(root string, o Owner) *Path {
	return &Path{journal: journal{root: root, disk: root, dir: filepath.Join(root, ".deployhook"), owner: o}}
}

func (p *journal) takeLock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		f, err := openPlain(p.file("lock"), os.O_RDWR|os.O_CREATE)
		if err != nil {
			return sentence(p.root, err)
		}
		if p.lock, err = f, flock(ctx, f); err != nil {
			holder := holderOf(f)
			f.Close()
			if ctx.Err() != nil {
				return fmt.Errorf("%s is in use by %s", p.root, holder)
			}
			return fmt.Errorf("locking %s: %w", p.root, err)
		}
		if p.held() == nil {
			break
		}
		f.Close() // it was taken away while this one waited for it
	}
	_ = p.lock.Truncate(0)
	who := fmt.Sprintf("run %d job %s (agent pid %d)", p.owner.Run, p.owner.Job, os.Getpid())
	if p.owner.Run == 0 {
		who = fmt.Sprintf("deployhook %s (pid %d)", p.owner.Job, os.Getpid())
	}
	_, _ = p.lock.WriteAt([]byte(who+"\n"), 0)
	return nil
}

func flock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// holderOf reads who wrote themselves into a lock.
func holderOf(f *os.File) string {
	b := make([]byte, 200)
	n, _ := f.ReadAt(b, 0)
	first, _, _ := strings.Cut(string(b[:n]), "\n")
	if first == "" {
		return "somebody who did not say who it is"
	}
	return first
}

// held says whether the lock still is the one that others would wait for: a
// step may have removed the file.
func (p *journal) held() error {
	mine, err := p.lock.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Lstat(p.file("lock")); err != nil || !os.SameFile(mine, there) {
		return fmt.Errorf("%s was taken away while the path was in use: no step may touch %s", p.file("lock"), p.file(""))
	}
	return nil
}

// Close gives the lock back. The file stays: two could hold locks on two
// files of the same name.
func (p *Path) Close() error {
	p.filled()
	return p.lock.Close()
}

// Dir is the directory of the release that is being prepared; empty = none is.
func (p *Path) Dir() string {
	if p.release == "" {
		return ""
	}
	return filepath.Join(p.root, "releases", p.release)
}

// Tree opens the directory of the release that is being prepared, until its
// shared links are made.
func (p *Path) Tree() (*os.Root, error) {
	if p.tree == nil {
		return nil, errors.New("no release is being made")
	}
	return p.tree.OpenRoot(".")
}

// filled ends what holds the directory of the release: who looks for releases
// in use would find it.
func (p *Path) filled() {
	if p.tree != nil {
		p.tree.Close()
		p.tree = nil
	}
}

// stands says whether the directory that was made for the release still is
// the one under its name.
func (p *Path) stands() error {
	if st, err := os.Lstat(p.Dir()); p.is != nil && (err != nil || !os.SameFile(st, p.is)) {
		return replaced(p.Dir())
	}
	return nil
}

// Look reads a path without taking its lock.
func Look(root string) (*deploy.Found, error) {
	p := newPath(root, Owner{})
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return &deploy.Found{}, nil
	}
	return p.Found()
}

// Found reads intent, current and the last lines of the journal.
func (p *Path) Found() (*deploy.Found, error) {
	f := &deploy.Found{}
	var err error
	f.Intent, f.Foreign = p.readIntent()
	if f.Current, err = p.current(); err != nil {
		return nil, err
	}
	f.Lines, err = p.readLines()
	f.Lines = p.gone(f.Lines)
	if seen := f.Current; p.seen == nil {
		p.seen = &seen
	}
	return f, err
}

// current is where the link points, for a release as "releases/<id>" however
// the link says it; empty when there is none.
func (p *Path) current() (string, error) {
	name := filepath.Join(p.root, "current")
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	if st.Mode()&fs.ModeSymlink == 0 {
		kind := "a file"
		if st.IsDir() {
			kind = "a directory"
		}
		return "", fmt.Errorf("%s is %s, not a link to a release: move it away first", name, kind)
	}
	target, err := os.Readlink(name)
	if err != nil {
		return "", err
	}
	return p.relative(target), nil
}

// relative gives "releases/<id>" for a link that leads there in another way:
// Capistrano's links are absolute.
func (p *Path) relative(target string) string {
	clean := filepath.Clean(target)
	dir, id := filepath.Split(clean)
	if !deploy.ValidReleaseName(id) {
		return target
	}
	if !filepath.IsAbs(clean) {
		dir = filepath.Join(p.root, dir)
	}
	releases := filepath.Join(p.root, "releases")
	if filepath.Clean(dir) != releases {
		there, err := os.Stat(dir)
		ours, oerr := os.Stat(releases)
		if err != nil || oerr != nil || !os.SameFile(there, ours) {
			return target
		}
	}
	return "releases/" + id
}

// known says whether a name is one that deployhook gives, or that of a release
// which the journal tells of: one that was adopted.
func (p *Path) known(id string) bool {
	if deploy.ValidReleaseID(id) {
		return true
	}
	lines, err := p.readLines()
	return err == nil && slices.ContainsFunc(lines, func(l deploy.ReleaseLine) bool { return l.Release == id })
}

// currentRelease is where current points, which must be a release or nothing.
func (p *Path) currentRelease() (string, error) {
	target, err := p.current()
	if err != nil {
		return "", err
	}
	id, ok := strings.CutPrefix(target, "releases/")
	switch {
	case target == "" || ok && p.known(id):
	case ok && deploy.ValidReleaseName(id):
		return "", fmt.Errorf("%s/current points to %q, which is no release of deployhook: deployhook adopt %s takes over what another tool made", p.root, target, p.root)
	default:
		return "", fmt.Errorf("%s/current points to %q, which is no release: move it away first", p.root, target)
	}
	return target, nil
}

// removeTemporary removes links and files that a crash left half made. Their
// names are ours alone.
func (p *Path) removeTemporary() error {
	if err := p.removeWriting(); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(p.root, ".current-*"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if st, err := os.Lstat(n); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			if err := os.Remove(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncDir makes the names in a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
