package git

import (
	"crypto/sha1" // git's ids are SHA-1
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	cacheBytes  = 8 << 20   // bases of deltas that are kept in memory
	streamAbove = 4 << 20   // a file above it is never held in memory whole
	objectMost  = 256 << 20 // bytes of a commit, tag or directory
	packsOpen   = 64        // files
)

// objects are those of a mirror, as they were when it was opened.
type objects struct {
	*filesystem.Storage // what is not packed, in a repository that others keep; nil in a mirror
	packs
	dir  string
	lost error  // of packs that could not be opened
	buf  []byte // what read gives
}

// open opens the mirror on disk.
func (m *Mirror) open() (*objects, error) {
	for _, name := range []string{"HEAD", "config"} {
		st, err := os.Stat(filepath.Join(m.dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		if st.Size() == 0 {
			return nil, fmt.Errorf("%w: %s is empty", errDamaged, name)
		}
	}
	list, lost, err := openPacks(m.dir, math.MaxInt)
	if err != nil {
		return nil, err
	}
	return &objects{packs: packs{tmp: filepath.Join(m.dir, "objects", "pack"), list: list}, dir: m.dir, lost: lost}, nil
}

// foreign opens a repository that others keep. Packs that cannot be opened are
// left to the library.
func foreign(dir string) *objects {
	o := &objects{dir: dir, Storage: filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(cacheBytes),
		filesystem.Options{LargeObjectThreshold: streamAbove, MaxOpenDescriptors: packsOpen})}
	// What cannot be opened, the library may still find elsewhere.
	o.list, _, _ = openPacks(dir, packsOpen)
	return o
}

func (o *objects) close() {
	closePacks(o.list)
	if o.Storage != nil {
		_ = o.Storage.Close()
	}
}

// openOrMake opens the mirror, or makes it. The lock is held.
func (m *Mirror) openOrMake() (*objects, error) {
	o, err := m.open()
	if !errors.Is(err, os.ErrNotExist) {
		return o, err
	}
	if err := os.RemoveAll(m.dir); err != nil { // half of one, left by a crash
		return nil, fmt.Errorf("removing half a mirror: %w", err)
	}
	for _, dir := range []string{"objects/pack", "refs"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o750); err != nil {
			return nil, fmt.Errorf("making the mirror: %w", err)
		}
	}
	// What git, too, takes for a bare repository. HEAD comes last: without it
	// there is none.
	for _, f := range [][2]string{{"config", "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"}, {"HEAD", "ref: refs/heads/main\n"}} {
		if err := writeFile(filepath.Join(m.dir, f[0]), f[1]); err != nil {
			return nil, fmt.Errorf("making the mirror: %w", err)
		}
	}
	return m.open()
}

// errNotHere is an object that the mirror does not have.
var errNotHere = errors.New("it is not here")

// object finds an object. An error is [errNotHere] or [errDamaged].
func (o *objects) object(hash plumbing.Hash) (plumbing.EncodedObject, error) {
	f, err := o.find(hash)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", hash, err)
	}
	if f != nil {
		return f, nil
	}
	switch {
	case o.lost != nil:
		return nil, fmt.Errorf("object %s: %w", hash, o.lost)
	case o.Storage == nil:
		return nil, fmt.Errorf("object %s: %w", hash, errNotHere)
	}
	obj, err := o.EncodedObject(plumbing.AnyObject, hash)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("object %s: %w", hash, errNotHere)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
	}
	return obj, nil
}

// read gives an object's content, which is valid until the next read, held
// against its id: what is deployed is what was pushed, whatever the disk says.
func (o *objects) read(hash plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	kind, b, err := o.take(hash, o.buf, objectMost)
	if cap(b) > cap(o.buf) && cap(b) <= streamAbove {
		o.buf = b
	}
	return kind, b, err
}

// take is read for any goroutine: the content is in buf when that has the room,
// and has room bytes at most. [errLarge]: there are more.
func (o *objects) take(hash plumbing.Hash, buf []byte, room int64) (kind plumbing.ObjectType, b []byte, err error) {
	p, at, err := o.locate(hash)
	if p != nil && err == nil {
		kind, b, err = o.load(p, at, buf, min(room, memoryMost))
		if err == nil {
			return kind, b, newVerifier(nil, kind, int64(len(b)), hash).all(b)
		}
		if errors.Is(err, errLarge) && room <= memoryMost {
			return kind, nil, err
		}
	}
	if err != nil && !errors.Is(err, errLarge) {
		return 0, nil, fmt.Errorf("object %s: %w", hash, err)
	}
	obj, err := o.object(hash)
	if err != nil {
		return 0, nil, err
	}
	if obj.Size() > room {
		return obj.Type(), nil, errLarge
	}
	b, err = o.content(obj, hash)
	return obj.Type(), b, err
}

func (o *objects) content(obj plumbing.EncodedObject, hash plumbing.Hash) ([]byte, error) {
	if obj.Size() > objectMost {
		return nil, fmt.Errorf("object %s has %d bytes, more than %d", hash, obj.Size(), objectMost)
	}
	r, err := obj.Reader()
	if err != nil {
		return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
	}
	defer r.Close()
	b := make([]byte, obj.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%w: object %s: %w", errDamaged, hash, err)
	}
	return b, newVerifier(nil, obj.Type(), obj.Size(), hash).all(b)
}

// has says whether an object is here, without reading it. The library's own
// HasEncodedObject does not find what is packed when files are listed once.
func (o *objects) has(hash plumbing.Hash) bool {
	if p, _, err := o.locate(hash); p != nil || err != nil || o.Storage == nil {
		return p != nil && err == nil
	}
	_, err := o.size(hash)
	return err == nil
}

// verifier reads an object's content and says at its end whether it is the
// one that its id says.
type verifier struct {
	r    io.Reader
	sum  hash.Hash
	want plumbing.Hash
}

func newVerifier(r io.Reader, t plumbing.ObjectType, size int64, want plumbing.Hash) *verifier {
	v := &verifier{r: r, sum: sha1.New(), want: want} // see above
	fmt.Fprintf(v.sum, "%s %d\x00", t, size)
	return v
}

func (v *verifier) check() error {
	if got := plumbing.Hash(v.sum.Sum(nil)); got != v.want {
		return fmt.Errorf("%w: object %s has another content", errDamaged, v.want)
	}
	return nil
}

// all checks a content that is in memory.
func (v *verifier) all(b []byte) error {
	v.sum.Write(b)
	return v.check()
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	switch {
	case err == io.EOF:
		if bad := v.check(); bad != nil {
			return n, bad
		}
	case err != nil:
		err = fmt.Errorf("%w: object %s: %w", errDamaged, v.want, err)
	}
	return n, err
}

// commit reads a commit.
func (o *objects) commit(hash plumbing.Hash) (*object.Commit, error) {
	t, b, err := o.read(hash)
	if err != nil {
		return nil, err
	}
	if t != plumbing.CommitObject {
		return nil, &notCommit{what: hash.String(), kind: t}
	}
	c := &object.Commit{}
	if err := c.Decode(memory(t, b)); err != nil {
		return nil, fmt.Errorf("commit %s cannot be read: %s", hash, cut(err.Error()))
	}
	return c, nil
}

// tag reads an annotated tag.
func (o *objects) tag(hash plumbing.Hash) (*object.Tag, error) {
	t, b, err := o.read(hash)
	if err != nil {
		return nil, err
	}
	tag := &object.Tag{}
	if err := tag.Decode(memory(t, b)); err != nil {
		return nil, fmt.Errorf("tag %s cannot be read: %s", hash, cut(err.Error()))
	}
	return tag, nil
}

// memory is an object for the library's decoders.
func memory(t plumbing.ObjectType, b []byte) plumbing.EncodedObject {
	obj := &plumbing.MemoryObject{}
	obj.SetType(t)
	_, _ = obj.Write(b)
	return obj
}

// notCommit is an id that does not lead to a commit.
type notCommit struct {
	what string // the id, or the tag that leads to it
	kind plumbing.ObjectType
}

func (e *notCommit) Error() string {
	kind := map[plumbing.ObjectType]string{plumbing.TreeObject: "a directory", plumbing.BlobObject: "a file"}[e.kind]
	if kind == "" {
		kind = "something else"
	}
	return fmt.Sprintf("%s is %s, not a commit", e.what, kind)
}

// tagsMost is how many tags may stand between a ref and its commit.
const tagsMost = 10

// peel gives the commit that an object is, or that it names as a tag.
func (o *objects) peel(hash plumbing.Hash) (string, error) {
	what := hash.String()
	for range tagsMost {
		obj, err := o.object(hash)
		if err != nil {
			return "", err
		}
		switch obj.Type() {
		case plumbing.CommitObject:
			c, err := o.commit(hash)
			if err != nil {
				return "", err
			}
			if _, err := o.object(c.TreeHash); err != nil {
				return "", fmt.Errorf("%w: commit %s: %w", errDamaged, hash, err)
			}
			return hash.String(), nil
		case plumbing.TagObject:
			tag, err := o.tag(hash)
			if err != nil {
				return "", err
			}
			what, hash = "what tag "+cut(tag.Name)+" names", tag.Target
		default:
			return "", &notCommit{what: what, kind: obj.Type()}
		}
	}
	return "", fmt.Errorf("%s is more than %d tags away from a commit", what, tagsMost)
}

// shallow lists the commits whose parents were left out.
func (o *objects) shallow() (map[plumbing.Hash]bool, error) {
	b, err := os.ReadFile(filepath.Join(o.dir, "shallow"))
	if errors.Is(err, os.ErrNotExist) {
		return map[plumbing.Hash]bool{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	list := map[plumbing.Hash]bool{}
	for _, line := range strings.Fields(string(b)) {
		if !plumbing.IsHash(line) {
			return nil, fmt.Errorf("%w: the list of shallow commits", errDamaged)
		}
		list[plumbing.NewHash(line)] = true
	}
	return list, nil
}

func (o *objects) setShallow(list map[plumbing.Hash]bool) error {
	var b strings.Builder
	for h := range list {
		b.WriteString(h.String() + "\n")
	}
	return writeFile(filepath.Join(o.dir, "shallow"), b.String())
}

// writeFile replaces a small file whole.
func writeFile(path, text string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o640); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// size gives an object's size in bytes without reading it.
func (o *objects) size(hash plumbing.Hash) (int64, error) {
	obj, err := o.object(hash)
	if err != nil {
		return 0, err
	}
	return obj.Size(), nil
}
