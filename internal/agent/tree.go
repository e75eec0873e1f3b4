package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// putTree writes a tree into the workspace or the release that is being made.
func (a *Agent) putTree(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	dir := a.workspace
	if a.path != nil {
		dir = a.path.Dir()
	}
	a.mu.Unlock()
	if dir == "" {
		writeError(w, errors.New("no directory is open"))
		return
	}
	t, err := openTree(dir)
	if err == nil {
		defer t.close()
		err = readBody(r, func(b *bufio.Reader) error { return wire.ReadTree(b, t.write) })
	}
	if err != nil {
		writeError(w, t.sentence(err))
		return
	}
	_ = json.NewEncoder(w).Encode(wire.Empty{})
}

// reuse makes the files of a list from those of the release that is current,
// where their content still is the blob's, and answers which it could not.
func (a *Agent) reuse(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	p := a.path
	a.mu.Unlock()
	if p == nil || p.Dir() == "" {
		writeError(w, errors.New("no release is being made"))
		return
	}
	var lacking wire.Lacking
	t, err := openTree(p.Dir())
	if err == nil {
		defer t.close()
		// Without a release before, or with one that cannot be read, all is lacking.
		if before := p.Before(); before != "" {
			t.before, _ = os.OpenRoot(before)
		}
		lacking.Bits, err = readLacking(r, t.reuse)
	}
	if err != nil {
		writeError(w, t.sentence(err))
		return
	}
	_ = json.NewEncoder(w).Encode(lacking)
}

// readBody reads a tree or a list, which may be compressed.
func readBody(r *http.Request, read func(*bufio.Reader) error) error {
	body := io.Reader(r.Body)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "":
	case wire.Packed:
		u, err := wire.Unpack(r.Body)
		if err != nil {
			return err
		}
		defer u.Close()
		body = u
	default:
		return fmt.Errorf("a body with the encoding %.20q cannot be read", encoding)
	}
	return read(bufio.NewReaderSize(body, 256<<10))
}

// readLacking reads a list and gives the bits of the files that has says it
// does not have.
func readLacking(r *http.Request, has func(deploy.TreeFile) (bool, error)) ([]byte, error) {
	bits, n := []byte{}, 0
	err := readBody(r, func(b *bufio.Reader) error {
		return wire.ReadNames(b, func(f deploy.TreeFile) error {
			if n%8 == 0 {
				bits = append(bits, 0)
			}
			had, err := has(f)
			if !had {
				bits[n/8] |= 1 << (n % 8)
			}
			n++
			return err
		})
	})
	return bits, err
}

// tree writes files below a directory and nowhere else: what the tree's own
// links point to is never followed out of it.
type tree struct {
	dir     string
	root    *os.Root
	before  *os.Root // where unchanged files are; nil = nowhere
	made    map[string]bool
	copies  []byte // a buffer
	noClone bool   // the file system has no copies that share their blocks
}

func openTree(dir string) (*tree, error) {
	t := &tree{dir: dir, made: map[string]bool{".": true}}
	var err error
	t.root, err = os.OpenRoot(dir)
	return t, err
}

func (t *tree) close() {
	t.root.Close()
	if t.before != nil {
		t.before.Close()
	}
}

func (t *tree) sentence(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("no space left in %s", t.dir)
	}
	return err
}

// write makes one file.
func (t *tree) write(f deploy.TreeFile, content io.Reader) error {
	if err := t.parent(f.Path); err != nil {
		return err
	}
	if f.Mode == deploy.TreeSymlink {
		target, err := io.ReadAll(io.LimitReader(content, wire.NameMost))
		if err != nil {
			return err
		}
		return t.root.Symlink(string(target), f.Path)
	}
	file, err := t.create(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %q: %w", f.Path, err)
	}
	return nil
}

// parent makes the directory of a file.
func (t *tree) parent(path string) error {
	if err := release.ValidTreePath(path); err != nil {
		return err
	}
	parent := filepath.Dir(path)
	if t.made[parent] {
		return nil
	}
	if err := t.root.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", parent, err)
	}
	t.made[parent] = true
	return nil
}

func (t *tree) create(f deploy.TreeFile) (*os.File, error) {
	mode := fs.FileMode(0o644)
	if f.Mode == deploy.TreeExecutable {
		mode = 0o755
	}
	file, err := t.root.OpenFile(f.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("writing %q: %w", f.Path, err)
	}
	return file, nil
}

// reuse makes a file from the one of the same path in the release before, and
// says whether that was possible. What is there is never trusted to be what it
// was: the new file's own content must hash to the blob. It is a file of its
// own, as steps may edit either.
func (t *tree) reuse(f deploy.TreeFile) (bool, error) {
	if err := release.ValidTreePath(f.Path); err != nil {
		return false, err
	}
	if t.before == nil || f.Mode == deploy.TreeSymlink {
		return false, nil
	}
	// O_NONBLOCK: a pipe that a step put there has no writer.
	old, err := t.before.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil // it is sent
	}
	defer old.Close()
	if st, err := old.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != f.Size {
		return false, nil
	}
	if err := t.parent(f.Path); err != nil {
		return false, err
	}
	file, err := t.create(f)
	if err != nil {
		return false, err
	}
	same, werr := t.copy(file, old, f)
	if err := errors.Join(werr, file.Close()); err != nil {
		return false, fmt.Errorf("writing %q: %w", f.Path, err)
	}
	if !same {
		return false, t.root.Remove(f.Path)
	}
	return true, nil
}

// cloneFrom is the size from which asking the file system to share blocks
// costs less than copying them.
const cloneFrom = 128 << 10

// copy copies a file and says whether the copy is the blob. Its error is one
// of writing.
func (t *tree) copy(to, from *os.File, f deploy.TreeFile) (bool, error) {
	if t.copies == nil {
		t.copies = make([]byte, 128<<10)
	}
	sum := release.NewBlob(f.Size)
	if f.Size >= cloneFrom && !t.noClone {
		if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err == nil {
			n, err := io.CopyBuffer(sum, onlyReader{to}, t.copies)
			return err == nil && n == f.Size && sum.Is(f.Blob), nil
		}
		t.noClone = true
	}
	n := int64(0)
	for {
		got, err := from.Read(t.copies)
		sum.Write(t.copies[:got])
		if _, werr := to.Write(t.copies[:got]); werr != nil {
			return false, werr
		}
		n += int64(got)
		switch {
		case errors.Is(err, io.EOF):
			return n == f.Size && sum.Is(f.Blob), nil
		case err != nil, n > f.Size:
			return false, nil // it cannot be read, or grows
		}
	}
}

// onlyReader hides what else a reader can do: io.Copy would not use the buffer.
type onlyReader struct{ io.Reader }
