package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// cacheDepth is how many levels a cached directory may have: each level keeps
// its directories open.
const cacheDepth = 200

// Flags of what is opened in a directory that steps have written to: no link
// is followed, and a pipe that has no writer keeps nobody.
const (
	openDirFlags  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	openFileFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
)

// openAt opens a directory in another.
func openAt(in *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(in.Fd()), name, openDirFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openBelow opens the directory in which a path below dir ends, and gives its
// last name. A link on the way is an error; with makes, what is missing is made.
func openBelow(dir, below string, makes bool) (parent *os.File, name string, err error) {
	fd, err := unix.Open(dir, openDirFlags, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	parent = os.NewFile(uintptr(fd), dir)
	names := strings.Split(path.Clean(below), "/")
	for _, name := range names[:len(names)-1] {
		next, err := openAt(parent, name)
		if errors.Is(err, os.ErrNotExist) && makes {
			if err = unix.Mkdirat(int(parent.Fd()), name, 0o755); err == nil {
				next, err = openAt(parent, name)
			}
		}
		parent.Close()
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return nil, "", fmt.Errorf("%s is not a directory", name)
		}
		if err != nil {
			return nil, "", err
		}
		parent = next
	}
	return parent, names[len(names)-1], nil
}

// cacheCount is what a directory holds.
type cacheCount struct {
	files int
	bytes int64
}

// errTooLarge is a directory that does not fit into what a set may have.
var errTooLarge = errors.New("it is too large")

// add counts one more, within what is left.
func (c *cacheCount) add(st *unix.Stat_t, left cacheCount) error {
	c.files++
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		c.bytes += st.Size
	}
	if c.files > left.files || c.bytes > left.bytes {
		return errTooLarge
	}
	return nil
}

// eachIn calls fn for everything in a directory, in parts: it may be large.
func eachIn(ctx context.Context, dir *os.File, fn func(name string, st *unix.Stat_t) error) error {
	for {
		names, err := dir.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for _, name := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return &os.PathError{Op: "stat", Path: name, Err: err}
			}
			if err := fn(name, &st); err != nil {
				return err
			}
		}
	}
}

// measure counts what is in a directory, up to what is left. Another file
// system in it is an error: it is not the workspace's.
func measure(ctx context.Context, dir *os.File, left cacheCount) (c cacheCount, err error) {
	var top unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &top); err != nil {
		return c, err
	}
	var walk func(dir *os.File, depth int) error
	walk = func(dir *os.File, depth int) error {
		if depth > cacheDepth {
			return fmt.Errorf("it is more than %d levels deep", cacheDepth)
		}
		return eachIn(ctx, dir, func(name string, st *unix.Stat_t) error {
			if err := c.add(st, left); err != nil {
				return err
			}
			if st.Dev != top.Dev {
				return fmt.Errorf("another file system is mounted at %s", name)
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return nil
			}
			below, err := openAt(dir, name)
			if err != nil {
				return err
			}
			defer below.Close()
			return walk(below, depth+1)
		})
	}
	return c, walk(dir, 1)
}

// cacheCopy copies directories. Files, directories and links are copied, with
// their times, which tools compare; what else there is, as sockets, is not.
type cacheCopy struct {
	ctx     context.Context
	left    cacheCount // what the copy may be
	count   cacheCount
	merge   bool // what is there already stays
	noClone bool // the file system has no copies that share their blocks
}

// dir copies what is in from into to, which is there. Its mode and times are
// the caller's matter.
func (c *cacheCopy) dir(from, to *os.File, depth int) error {
	if depth > cacheDepth {
		return fmt.Errorf("it is more than %d levels deep", cacheDepth)
	}
	return eachIn(c.ctx, from, func(name string, st *unix.Stat_t) error {
		if err := c.count.add(st, c.left); err != nil {
			return err
		}
		var err error
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = c.below(from, to, name, st, depth)
		case unix.S_IFREG:
			err = c.file(from, to, name, st)
		case unix.S_IFLNK:
			err = c.link(from, to, name, st)
		}
		if c.merge && errors.Is(err, os.ErrExist) {
			err = nil
		}
		return err
	})
}

func (c *cacheCopy) below(from, to *os.File, name string, st *unix.Stat_t, depth int) error {
	made := unix.Mkdirat(int(to.Fd()), name, 0o700)
	if made != nil && !(c.merge && errors.Is(made, unix.EEXIST)) {
		return &os.PathError{Op: "mkdir", Path: name, Err: made}
	}
	target, err := openAt(to, name)
	if err != nil {
		if made != nil { // something else than a directory is there, and stays
			return os.ErrExist
		}
		return err
	}
	defer target.Close()
	source, err := openAt(from, name)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := c.dir(source, target, depth+1); err != nil {
		return err
	}
	if made != nil {
		return nil
	}
	return finish(to, target, name, st)
}

// finish gives a copy its mode, without setuid and its kin, and its times.
func finish(in, f *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Fchmod(int(f.Fd()), st.Mode&0o777); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return times(in, name, st)
}

func times(in *os.File, name string, st *unix.Stat_t) error {
	t := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(int(in.Fd()), name, t, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

func (c *cacheCopy) file(from, to *os.File, name string, st *unix.Stat_t) error {
	fd, err := unix.Openat(int(from.Fd()), name, openFileFlags, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	source := os.NewFile(uintptr(fd), name)
	defer source.Close()
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil || is.Ino != st.Ino || is.Dev != st.Dev {
		return fmt.Errorf("%q was replaced while it was copied", name)
	}
	fd, err = unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	target := os.NewFile(uintptr(fd), name)
	if err = c.content(target, source, st.Size); err == nil {
		err = finish(to, target, name, st)
	}
	return errors.Join(err, target.Close())
}

// content copies a file's bytes: shared blocks where the file system has that,
// else within the kernel.
func (c *cacheCopy) content(to, from *os.File, size int64) error {
	if size >= cloneFrom && !c.noClone {
		if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
			return nil
		}
		c.noClone = true
	}
	// Not more than was counted: it may grow.
	n, err := io.Copy(to, io.LimitReader(from, size))
	if err == nil && n != size {
		err = fmt.Errorf("%q has become shorter while it was copied", from.Name())
	}
	return err
}

func (c *cacheCopy) link(from, to *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(from.Fd()), name, buf)
	if err != nil {
		return &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	if err := unix.Symlinkat(string(buf[:n]), int(to.Fd()), name); err != nil {
		return &os.PathError{Op: "symlink", Path: name, Err: err}
	}
	return times(to, name, st)
}

// setLeft is what a set may hold beside what it has.
func setLeft(dirs map[string]keptDir) cacheCount {
	left := cacheCount{deploy.CacheSetFiles, deploy.CacheSetBytes}
	for _, d := range dirs {
		left.files -= d.Files
		left.bytes -= d.Bytes
	}
	return left
}

// lockDir takes a shared or exclusive lock on a directory if nobody is in the
// way; it is given back when the directory is closed.
func lockDir(d *os.File, how int) bool {
	for {
		if err := unix.Flock(int(d.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// waitLock takes an exclusive lock on a file, for as long as ctx lasts.
func waitLock(ctx context.Context, f *os.File) error {
	for !lockDir(f, unix.LOCK_EX) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
