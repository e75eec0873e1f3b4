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
	"path/filepath"
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
}

// Path is an opened release path. It is locked until [Path.Close].
type Path struct {
	root  string
	owner Owner
	lock  *os.File

	release string // being prepared, or switched to
	spec    Spec
	intent  *deploy.Intent // of this owner's switch
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
	p := &Path{root: root, owner: o}
	if err := p.takeLock(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(p.repairLines(), p.removeTemporary()); err != nil {
		p.Close()
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	return p, nil
}

func makePath(root string) error {
	for _, dir := range []string{root, filepath.Join(root, ".deployhook"), filepath.Join(root, "releases"), filepath.Join(root, "shared")} {
		var err error
		if dir == root {
			err = os.MkdirAll(dir, 0o755)
		} else {
			err = os.Mkdir(dir, 0o755)
		}
		if err == nil || errors.Is(err, fs.ErrExist) {
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				return fmt.Errorf("%s is not a directory", dir)
			}
			continue
		}
		return sentence(root, err)
	}
	if err := unix.Access(root, unix.W_OK); err != nil {
		return sentence(root, err)
	}
	return nil
}

// sentence says what keeps a path from being written, and what to do.
func sentence(root string, err error) error {
	user := os.Getenv("USER")
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the release path %s cannot be written by %s: make it with: sudo install -d -o %s %s", root, user, user, root)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("no space left in %s", root)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the release path %s is on a read-only file system", root)
	}
	return fmt.Errorf("making %s: %w", root, err)
}

func (p *Path) file(name string) string { return filepath.Join(p.root, ".deployhook", name) }

func (p *Path) takeLock(ctx context.Context) error {
	f, err := os.OpenFile(p.file("lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return sentence(p.root, err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return fmt.Errorf("locking %s: %w", p.root, err)
		}
		select {
		case <-ctx.Done():
			holder := make([]byte, 200)
			n, _ := f.ReadAt(holder, 0)
			f.Close()
			return fmt.Errorf("%s is in use by %s", p.root, strings.TrimSpace(string(holder[:n])))
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(fmt.Sprintf("run %d job %s (agent pid %d)\n", p.owner.Run, p.owner.Job, os.Getpid())), 0)
	p.lock = f
	return nil
}

// Close gives the lock back. The file stays: two could hold locks on two
// files of the same name.
func (p *Path) Close() error { return p.lock.Close() }

// Root is the path itself.
func (p *Path) Root() string { return p.root }

// Dir is the directory of the release that is being prepared.
func (p *Path) Dir() string { return filepath.Join(p.root, "releases", p.release) }

// Look reads a path without taking its lock.
func Look(root string) (*deploy.Found, error) {
	p := &Path{root: root}
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
	return f, err
}

// current is where the link points; empty when there is none.
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
	return target, nil
}

// removeTemporary removes links that a crash left beside current. Their names
// are ours alone.
func (p *Path) removeTemporary() error {
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
