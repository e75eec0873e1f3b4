package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// dirs opens directories below one, each as what it is: a link is no
// directory here, wherever it leads. It keeps those on the way to the last one
// open, as paths come in the order of a tree.
type dirs struct {
	root *os.Root
	open []level
}

type level struct {
	name string
	root *os.Root
}

// inTheWay is something else than a directory where one must be.
type inTheWay struct{ path string }

func (e *inTheWay) Error() string { return fmt.Sprintf("%q is not a directory", e.path) }

func openDirs(dir string) (*dirs, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &dirs{root: root}, nil
}

func (d *dirs) close() {
	d.back(0)
	d.root.Close()
}

// back closes the directories from a level on.
func (d *dirs) back(n int) {
	for _, l := range d.open[n:] {
		l.root.Close()
	}
	d.open = d.open[:n]
}

// at opens a directory, and gives the last one on the way to it that is there,
// and its path. The error is nil only for the directory itself: an
// [*inTheWay] names what is not one, fs.ErrNotExist says that the next is not there.
func (d *dirs) at(dir string) (last *os.Root, reached string, err error) {
	names := strings.Split(dir, "/")
	if dir == "." {
		names = nil
	}
	same := 0
	for same < len(names) && same < len(d.open) && d.open[same].name == names[same] {
		same++
	}
	d.back(same)
	last = d.root
	if same > 0 {
		last = d.open[same-1].root
	}
	for i := same; i < len(names); i++ {
		next, err := openDir(last, names[i])
		if err != nil {
			reached = path.Join(names[:i]...)
			var way *inTheWay
			if errors.As(err, &way) {
				way.path = path.Join(reached, names[i])
			}
			return last, orDot(reached), err
		}
		d.open = append(d.open, level{names[i], next})
		last = next
	}
	return last, dir, nil
}

func orDot(dir string) string {
	if dir == "" {
		return "."
	}
	return dir
}

// OpenDir opens a directory that is one, and no link to one: a step may have
// put something else in its place.
func OpenDir(dir string) (*os.Root, error) {
	up, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer up.Close()
	in, err := openDir(up, filepath.Base(dir))
	var way *inTheWay
	if errors.As(err, &way) {
		return nil, replaced(dir)
	}
	return in, err
}

// replaced is a directory of ours that something else stands in the place of.
func replaced(dir string) error {
	return fmt.Errorf("%s is not the directory any more that was made: something put another or a link in its place, which no step may", dir)
}

// openDir opens a directory that is one, and no link to one.
func openDir(in *os.Root, name string) (*os.Root, error) {
	was, err := in.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !was.IsDir() {
		return nil, &inTheWay{}
	}
	r, err := in.OpenRoot(name)
	if err != nil {
		// A link that has come to stand there meanwhile leads out, in a circle or to a file.
		var code syscall.Errno
		if !errors.As(err, &code) || code == syscall.ELOOP || code == syscall.ENOTDIR {
			err = &inTheWay{}
		}
		return nil, err
	}
	if is, err := r.Stat("."); err != nil || !os.SameFile(was, is) {
		r.Close()
		return nil, errors.Join(&inTheWay{}, err)
	}
	return r, nil
}

// remove takes away a file or a link at a path; what is not there is no error.
func (d *dirs) remove(p string) error {
	in, _, err := d.at(path.Dir(p))
	if err == nil {
		err = in.Remove(path.Base(p))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
