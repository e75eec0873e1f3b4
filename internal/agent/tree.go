package agent

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

// putTree writes a tree into the workspace or the release that is being made.
func (a *Agent) putTree(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	dir, p := a.workspace, a.path
	a.mu.Unlock()
	if dir == "" && p == nil {
		writeError(w, errors.New("no directory is open"))
		return
	}
	t, err := openTree(dir, p)
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
	if p == nil {
		writeError(w, errors.New("no release is being made"))
		return
	}
	var lacking wire.Lacking
	t, err := openTree("", p)
	if err == nil {
		defer t.close()
		// Without a release before, or with one that cannot be read, all is lacking.
		if before := p.Before(); before != "" {
			t.before, _ = release.OpenDir(before)
		}
		lacking.Bits, err = t.reuseAll(r)
	}
	if err != nil {
		writeError(w, t.sentence(err))
		return
	}
	_ = json.NewEncoder(w).Encode(lacking)
}

// reuseMost is how many files are reused at once: a file system is slow to
// make files and quick to make several.
const reuseMost = 4

// reuseAll reuses what it can of a list, and gives the bits of what is lacking.
func (t *tree) reuseAll(r *http.Request) ([]byte, error) {
	type job struct {
		at   int
		file deploy.TreeFile
	}
	var mu sync.Mutex // of what follows
	var had []bool
	var failed error
	jobs := make(chan job, 64)
	var workers sync.WaitGroup
	for range min(reuseMost, runtime.GOMAXPROCS(0)) {
		u := &reuser{tree: t}
		workers.Go(func() {
			defer u.close()
			for j := range jobs {
				has, err := u.reuse(j.file)
				mu.Lock()
				had[j.at] = has
				failed = cmp.Or(failed, err)
				mu.Unlock()
			}
		})
	}
	bits, err := readLacking(r, func(f deploy.TreeFile) (bool, error) {
		if err := release.ValidTreePath(f.Path); err != nil {
			return false, err
		}
		mu.Lock()
		had = append(had, false)
		err := failed
		mu.Unlock()
		if err != nil || t.before == nil || f.Mode == deploy.TreeSymlink {
			return false, err
		}
		// One at a time makes the directories.
		if err := t.parent(f.Path); err != nil {
			return false, err
		}
		jobs <- job{len(had) - 1, f}
		return false, nil
	})
	close(jobs)
	workers.Wait()
	for i, has := range had {
		if has {
			bits[i/8] &^= 1 << (i % 8)
		}
	}
	return bits, cmp.Or(err, failed)
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
	dir    string
	root   *os.Root
	before *os.Root // where unchanged files are; nil = nowhere
	made   map[string]bool
}

// openTree opens the release that is being made at a path, or a directory.
func openTree(dir string, p *release.Path) (t *tree, err error) {
	t = &tree{dir: dir, made: map[string]bool{".": true}}
	if p == nil {
		t.root, err = release.OpenDir(dir)
		return t, err
	}
	t.dir = p.Dir()
	t.root, err = p.Tree()
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
	file, err := create(t.root, f.Path, f)
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

// create makes a file of that name in a directory.
func create(in *os.Root, name string, f deploy.TreeFile) (*os.File, error) {
	mode := fs.FileMode(0o644)
	if f.Mode == deploy.TreeExecutable {
		mode = 0o755
	}
	file, err := in.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("writing %q: %w", f.Path, err)
	}
	return file, nil
}

// reuser makes files from those of the release before. It keeps the
// directories of the file before open: the next one is likely to be there too.
type reuser struct {
	*tree
	dir      string
	old, new *os.Root // dir in the release before, nil = not there, and in this one
	copies   []byte   // a buffer
	noClone  bool     // the file system has no copies that share their blocks
}

func (u *reuser) close() {
	for _, r := range []*os.Root{u.old, u.new} {
		if r != nil {
			r.Close()
		}
	}
	u.old, u.new = nil, nil
}

// enter opens a directory in both releases.
func (u *reuser) enter(dir string) (err error) {
	if u.new != nil && u.dir == dir {
		return nil
	}
	u.close()
	u.dir = dir
	if u.new, err = u.root.OpenRoot(dir); err == nil {
		u.old, _ = u.before.OpenRoot(dir)
	}
	return err
}

// reuse makes a file from the one of the same path in the release before, and
// says whether that was possible. What is there is never trusted to be what it
// was: the new file's own content must hash to the blob. It is a file of its
// own, as steps may edit either. Its directory is there.
func (u *reuser) reuse(f deploy.TreeFile) (bool, error) {
	if err := u.enter(filepath.Dir(f.Path)); err != nil {
		return false, fmt.Errorf("writing %q: %w", f.Path, err)
	}
	if u.old == nil {
		return false, nil
	}
	name := filepath.Base(f.Path)
	// O_NONBLOCK: a pipe that a step put there has no writer.
	old, err := u.old.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil // it is sent
	}
	defer old.Close()
	if st, err := old.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != f.Size {
		return false, nil
	}
	file, err := create(u.new, name, f)
	if err != nil {
		return false, err
	}
	same, werr := u.copy(file, old, f)
	if err := errors.Join(werr, file.Close()); err != nil {
		return false, fmt.Errorf("writing %q: %w", f.Path, err)
	}
	if !same {
		return false, u.new.Remove(name)
	}
	return true, nil
}

// cloneFrom is the size from which asking the file system to share blocks
// costs less than copying them.
const cloneFrom = 128 << 10

// copy copies a file and says whether the copy is the blob. Its error is one
// of writing.
func (u *reuser) copy(to, from *os.File, f deploy.TreeFile) (bool, error) {
	if u.copies == nil {
		u.copies = make([]byte, 128<<10)
	}
	sum := release.NewBlob(f.Size)
	if f.Size >= cloneFrom && !u.noClone {
		if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err == nil {
			n, err := io.CopyBuffer(sum, onlyReader{to}, u.copies)
			return err == nil && n == f.Size && sum.Is(f.Blob), nil
		}
		u.noClone = true
	}
	n := int64(0)
	for {
		got, err := from.Read(u.copies)
		sum.Write(u.copies[:got])
		if _, werr := to.Write(u.copies[:got]); werr != nil {
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
