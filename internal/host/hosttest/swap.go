package hosttest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Outside is a directory to which nothing may come, and of which nothing may go.
// A link to it is put in the place of others while files are written there, as
// what a step left running may do.
type Outside struct {
	Dir  string
	t    testing.TB
	had  string
	link string
}

// NewOutside makes one with these files in it.
func NewOutside(t testing.TB, files ...string) *Outside {
	t.Helper()
	dir := t.TempDir()
	o := &Outside{Dir: filepath.Join(dir, "outside"), t: t, link: filepath.Join(dir, "link")}
	for _, f := range files {
		path := filepath.Join(o.Dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(o.Dir, o.link); err != nil {
		t.Fatal(err)
	}
	o.had = o.list()
	return o
}

// list says all that is there: paths, modes and contents.
func (o *Outside) list() string {
	var b strings.Builder
	err := filepath.WalkDir(o.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", strings.TrimPrefix(path, o.Dir), st.Mode())
		if st.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", text)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return b.String()
}

// During runs fn while a directory and a link to outside change places all the
// time, and says how often they did. In the end there is no link, and the test
// fails if anything outside is not as it was.
func (o *Outside) During(dir string, fn func()) (swaps int) {
	o.t.Helper()
	var end atomic.Bool
	began, ended := make(chan bool), make(chan error)
	go func() {
		begin := sync.OnceFunc(func() { close(began) })
		for {
			// What is not there has just been taken away, and is made again.
			err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, o.link, unix.RENAME_EXCHANGE)
			if err == nil {
				swaps++
			}
			begin()
			st, lerr := os.Lstat(dir)
			switch {
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				ended <- err
				return
			case end.Load() && (lerr != nil || st.Mode()&fs.ModeSymlink == 0):
				ended <- nil
				return
			}
		}
	}()
	<-began
	fn()
	end.Store(true)
	err := <-ended
	if target, _ := os.Readlink(o.link); target != o.Dir {
		// The link was taken away, and this is what had been in its place.
		err = errors.Join(err, os.RemoveAll(o.link), os.Symlink(o.Dir, o.link))
	}
	if err != nil {
		o.t.Fatalf("putting a link in the place of %s: %v", dir, err)
	}
	if now := o.list(); now != o.had {
		o.t.Fatalf("outside was\n%s\nand is\n%s", o.had, now)
	}
	return swaps
}
