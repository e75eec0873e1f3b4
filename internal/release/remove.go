package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveTree removes a directory with all that is in it, also where a step took
// the right to write from its own directories. What a step mounted in it is
// taken off first: where that fails nothing is removed, for the files there
// are somebody else's.
func RemoveTree(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	makeWritable(dir)
	return os.RemoveAll(dir)
}

// makeWritable gives the right to write to a directory and those in it. It
// follows no link, also not one that is put in the place of a directory
// meanwhile.
func makeWritable(dir string) {
	up, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return
	}
	defer up.Close()
	makeWritableIn(up, filepath.Base(dir))
}

func makeWritableIn(up *os.Root, name string) {
	if st, err := up.Lstat(name); err != nil || !st.IsDir() || up.Chmod(name, 0o700) != nil {
		return
	}
	in, err := openDir(up, name)
	if err != nil {
		return
	}
	defer in.Close()
	names, err := namesIn(in)
	if err != nil {
		return
	}
	for _, n := range names {
		makeWritableIn(in, n)
	}
}

// unmountBelow takes off the file systems that are mounted in a directory.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil // no /proc: nothing that can be known
	}
	real, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return nil // it is not there
	}
	dir = filepath.Join(real, filepath.Base(dir))
	points := mountPoints(string(b))
	for i := len(points) - 1; i >= 0; i-- { // what was mounted last comes off first
		p := points[i]
		if p != dir && !strings.HasPrefix(p, dir+"/") {
			continue
		}
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("a file system is mounted at %s: unmount it, and remove %s: %w", p, dir, err)
		}
	}
	return nil
}

// mountPoints reads the mount points of mountinfo, in its order.
func mountPoints(text string) []string {
	var points []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, unescapeOctal(f[4]))
		}
	}
	return points
}

// unescapeOctal reads \040 and its kin, as mountinfo writes blanks.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3' {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
