package release

import (
	"bufio"
	"crypto/sha1" // git's ids are SHA-1
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// Bounds of a manifest that is read back.
const (
	manifestFiles = 5_000_000
	manifestLine  = 64 << 10 // bytes
)

// manifestFormat is the version of the file that this program writes.
const manifestFormat = 1

// manifest says which files of a directory are deployhook's, and with what
// content: whatever else stands there is somebody else's. After a deploy that
// was cut short a path has several entries, and each of them is ours.
type manifest struct {
	Format  int    `json:"format"`
	Path    string `json:"path"`
	Current string `json:"current"` // "releases/<id>" whose files these are; empty = nothing was deployed yet
	Whole   bool   `json:"whole"`   // all files are those of Current; false: its deploy was cut short

	files map[string][]entry
}

// entry is one content of a file.
type entry struct {
	mode deploy.TreeMode
	size int64
	blob [sha1.Size]byte
	seen stamp // zero: look at the content
}

// same says whether two entries have the same content, of a file or of a link.
func (e entry) same(o entry) bool {
	return e.blob == o.blob && (e.mode == deploy.TreeSymlink) == (o.mode == deploy.TreeSymlink)
}

// stamp tells whether a file may have been written to since it was looked at.
// The change time cannot be set by who writes; the number of the file tells
// one that was put in its place.
type stamp struct {
	mtime, ctime int64 // ns
	ino, dev     uint64
}

// stampOf reads the stamp of a file. It is zero for one that was changed just
// now: a second change within a tick of the clock would not be seen.
func stampOf(st fs.FileInfo, now time.Time) stamp {
	const settled = 2 * time.Second // the coarsest clock of a file system
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	s := stamp{mtime: sys.Mtim.Nano(), ctime: sys.Ctim.Nano(), ino: sys.Ino, dev: sys.Dev}
	if max(s.mtime, s.ctime) > now.Add(-settled).UnixNano() {
		return stamp{}
	}
	return s
}

// entryOf is a file of a commit.
func entryOf(f deploy.TreeFile) (entry, error) {
	e := entry{mode: f.Mode, size: f.Size}
	if !e.setBlob(f.Blob) {
		return entry{}, fmt.Errorf("the tree has a file without an id: %q", f.Path)
	}
	return e, nil
}

// setBlob reads an id in hex, and says whether it is one.
func (e *entry) setBlob(id string) bool {
	if len(id) != 2*sha1.Size {
		return false
	}
	_, err := hex.Decode(e.blob[:], []byte(id))
	return err == nil
}

// add makes a content one that is ours.
func (m *manifest) add(path string, e entry) {
	for i, o := range m.files[path] {
		if o.same(e) && o.mode == e.mode {
			if e.seen != (stamp{}) {
				m.files[path][i].seen = e.seen
			}
			return
		}
	}
	m.files[path] = append(m.files[path], e)
}

// has says whether a content at a path is ours.
func (m *manifest) has(path string, e entry) bool {
	return slices.ContainsFunc(m.files[path], e.same)
}

// paths are those of the files, in order.
func (m *manifest) paths() []string { return slices.Sorted(maps.Keys(m.files)) }

// readManifest reads the manifest of a directory, by parse: the whole of it,
// or its head.
func (p *journal) readManifest(path string, parse func(*bufio.Scanner) (*manifest, error)) (*manifest, error) {
	f, err := openPlain(p.file("manifest"), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return &manifest{Format: manifestFormat, Path: path, Whole: true, files: map[string][]entry{}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := parse(manifestScanner(f))
	if err == nil && m.Path != path {
		err = fmt.Errorf("it is about %q", m.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("the list of files in %s: %w", p.file("manifest"), err)
	}
	return m, nil
}

func manifestScanner(r io.Reader) *bufio.Scanner {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 4096), manifestLine)
	return sc
}

var modeLetters = map[deploy.TreeMode]string{deploy.TreePlain: "f", deploy.TreeExecutable: "x", deploy.TreeSymlink: "l"}

// parseManifest reads a manifest strictly: what is not understood is acted
// upon by nobody.
func parseManifest(sc *bufio.Scanner) (*manifest, error) {
	m, err := parseManifestHead(sc)
	if err != nil {
		return nil, err
	}
	for n := 0; sc.Scan(); n++ {
		if sc.Text() == fmt.Sprintf("end %d", n) {
			if sc.Scan() {
				return nil, errors.New("something follows its end")
			}
			return m, nil
		}
		path, e, err := parseEntry(sc.Text())
		if err != nil || n >= manifestFiles {
			return nil, fmt.Errorf("line %d cannot be read", n+2)
		}
		m.files[path] = append(m.files[path], e)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	return nil, errors.New("it is cut short")
}

func parseManifestHead(sc *bufio.Scanner) (*manifest, error) {
	m := &manifest{files: map[string][]entry{}}
	if !sc.Scan() || json.Unmarshal(sc.Bytes(), m) != nil {
		return nil, errors.New("its first line cannot be read")
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("it has format %d, this deployhook writes %d", m.Format, manifestFormat)
	}
	if id, ok := strings.CutPrefix(m.Current, "releases/"); m.Current != "" && (!ok || !deploy.ValidReleaseID(id)) {
		return nil, errors.New("it names a release that is none")
	}
	return m, nil
}

func parseEntry(line string) (path string, e entry, err error) {
	f := strings.SplitN(line, " ", 8)
	if len(f) != 8 {
		return "", e, errors.New("fields are missing")
	}
	for mode, letter := range modeLetters {
		if f[1] == letter {
			e.mode = mode
		}
	}
	if e.mode == "" || !e.setBlob(f[0]) {
		return "", e, errors.New("not a file")
	}
	var errs [6]error
	e.size, errs[0] = strconv.ParseInt(f[2], 10, 64)
	e.seen.mtime, errs[1] = strconv.ParseInt(f[3], 10, 64)
	e.seen.ctime, errs[2] = strconv.ParseInt(f[4], 10, 64)
	e.seen.ino, errs[3] = strconv.ParseUint(f[5], 10, 64)
	e.seen.dev, errs[4] = strconv.ParseUint(f[6], 10, 64)
	path, errs[5] = strconv.Unquote(f[7])
	if err := errors.Join(errs[:]...); err != nil {
		return "", e, err
	}
	return path, e, ValidTreePath(path)
}

// writeManifest replaces the manifest as a whole, on disk before it returns.
func (p *journal) writeManifest(m *manifest) error { return p.rewrite("manifest", m.write) }

func (m *manifest) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 256<<10)
	head, err := json.Marshal(m)
	if err != nil {
		return err
	}
	w.Write(append(head, '\n')) // bufio keeps the first error for Flush
	n := 0
	for _, path := range m.paths() {
		for _, e := range m.files[path] {
			fmt.Fprintf(w, "%x %s %d %d %d %d %d %s\n", e.blob, modeLetters[e.mode], e.size,
				e.seen.mtime, e.seen.ctime, e.seen.ino, e.seen.dev, strconv.Quote(path))
			n++
		}
	}
	fmt.Fprintf(w, "end %d\n", n)
	return w.Flush()
}

// look reads what stands at a name, as far as it takes to tell whether it is
// one of those that it may be. A file of another size has no blob; what is
// neither a file nor a link has no mode.
func look(in *os.Root, name string, st fs.FileInfo, may []entry, now time.Time) (entry, error) {
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := in.Readlink(name)
		if err != nil {
			return entry{}, err
		}
		e := entry{mode: deploy.TreeSymlink, size: int64(len(target))}
		sum := NewBlob(e.size)
		io.WriteString(sum, target)
		copy(e.blob[:], sum.Sum(nil))
		return e, nil
	case !st.Mode().IsRegular():
		return entry{}, nil
	}
	e := entry{mode: deploy.TreePlain, size: st.Size(), seen: stampOf(st, now)}
	if st.Mode()&0o100 != 0 {
		e.mode = deploy.TreeExecutable
	}
	worth := false
	for _, m := range may {
		if m.mode == deploy.TreeSymlink || m.size != e.size {
			continue
		}
		if m.seen != (stamp{}) && m.seen == e.seen {
			e.blob = m.blob
			return e, nil
		}
		worth = true
	}
	if !worth {
		return e, nil
	}
	var err error
	e.blob, err = hashFile(in, name, st)
	return e, err
}

// hashFile reads the id of a file's content; st is what the name stands for.
func hashFile(in *os.Root, name string, st fs.FileInfo) (id [sha1.Size]byte, err error) {
	// O_NONBLOCK: a pipe that came in its place has no writer.
	f, err := in.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return id, err
	}
	defer f.Close()
	if is, err := f.Stat(); err != nil || !os.SameFile(is, st) || !is.Mode().IsRegular() {
		return id, errors.Join(fmt.Errorf("%q was changed while it was looked at", name), err)
	}
	sum := NewBlob(st.Size())
	// Of a file that grows no more than it had: its id is then another one.
	if _, err := io.Copy(sum, io.LimitReader(f, st.Size()+1)); err != nil {
		return id, err
	}
	copy(id[:], sum.Sum(nil))
	return id, nil
}
