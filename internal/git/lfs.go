package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
)

const (
	pointerMost = 1024 // bytes of a pointer
	lfsFileMost = 1 << 40
	lfsTempEnd  = ".part"
)

// lfsCacheMost is how many bytes of one repository's LFS files are kept.
var lfsCacheMost int64 = 10 << 30

// pointer stands in the repository for a file that is kept in Git LFS.
type pointer struct {
	oid  string // SHA-256 of the content, hex
	size int64  // bytes
}

// parsePointer reads a pointer. What is none is a file like any other.
//
// Source: git-lfs docs/spec.md, "The Pointer".
func parsePointer(b []byte) (pointer, bool) {
	var p pointer
	if len(b) > pointerMost {
		return p, false
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 3 {
		return p, false
	}
	version, ok := strings.CutPrefix(lines[0], "version ")
	if !ok || version != "https://git-lfs.github.com/spec/v1" && version != "https://hawser.github.com/spec/v1" {
		return p, false
	}
	if p.oid, ok = strings.CutPrefix(lines[1], "oid sha256:"); !ok || !isOid(p.oid) {
		return p, false
	}
	text, ok := strings.CutPrefix(lines[2], "size ")
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || n < 0 || n > lfsFileMost || strconv.FormatInt(n, 10) != text {
		return p, false
	}
	p.size = n
	return p, true
}

func isOid(s string) bool {
	return len(s) == sha256.Size*2 && strings.Trim(s, "0123456789abcdef") == ""
}

// lfsFile is a content that is here.
type lfsFile struct {
	path string
	size int64
	blob plumbing.Hash // the id of a blob of this content
}

// give gives the content, which is held against its id once more.
func (f *lfsFile) give(w *walker, file deploy.TreeFile, fn func(deploy.TreeFile, io.Reader) error) error {
	r, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("reading %q of %s from the cache of LFS files: %w", cut(file.Path), w.m.remote.Repository, withoutPath(err))
	}
	defer r.Close()
	err = verified(file, r, f.blob, fn)
	if errors.Is(err, errDamaged) {
		_ = os.Remove(f.path)
		return fmt.Errorf("reading %q of %s: the LFS file in the cache is damaged; a retry fetches it anew", cut(file.Path), w.m.remote.Repository)
	}
	return err
}

// withoutPath is an error of a file without its name, which says nothing to
// whoever reads it.
func withoutPath(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// lfsDir is where the LFS files of a repository are kept, each called by its
// oid and the id that a blob of its content has. It stays when the mirror is
// made anew.
func (m *Mirror) lfsDir() string { return strings.TrimSuffix(m.dir, ".git") + ".lfs" }

// lfsHere looks for a content; nil = it is not here.
func (m *Mirror) lfsHere(oid string) (*lfsFile, error) {
	dir := filepath.Join(m.lfsDir(), oid[:2])
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		blob, ok := strings.CutPrefix(e.Name(), oid+"-")
		if !ok || !plumbing.IsHash(blob) {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &lfsFile{filepath.Join(dir, e.Name()), st.Size(), plumbing.NewHash(blob)}, nil
	}
	return nil, nil
}

// lfsKeep writes a content to the cache. Nothing of it stays that is not what
// its oid says, or has another size.
func (m *Mirror) lfsKeep(p pointer, r io.Reader) error {
	dir := filepath.Join(m.lfsDir(), p.oid[:2])
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(m.lfsDir(), "*"+lfsTempEnd)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum, blob := sha256.New(), newVerifier(nil, plumbing.BlobObject, p.size, plumbing.ZeroHash).sum
	n, err := io.Copy(io.MultiWriter(f, sum, blob), io.LimitReader(r, p.size+1))
	switch {
	case err != nil:
		return err
	case n > p.size:
		return &lfsWrong{fmt.Sprintf("what the server sent is more than the %d bytes that the pointer says", p.size)}
	case n < p.size:
		return &lfsWrong{fmt.Sprintf("what the server sent has %d bytes, and the pointer says %d", n, p.size)}
	case hex.EncodeToString(sum.Sum(nil)) != p.oid:
		return &lfsWrong{"what the server sent has another SHA-256 than the pointer says"}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, p.oid+"-"+hex.EncodeToString(blob.Sum(nil))))
}

// lfsWrong is what a server did that it must not; the text is a sentence.
type lfsWrong struct{ text string }

func (e *lfsWrong) Error() string { return e.text }

// lfsPrune removes what is kept beyond the bound, but none of used. What a
// crash left half is removed too.
func (m *Mirror) lfsPrune(used map[string]bool) error {
	const halfMost = 24 * time.Hour
	type kept struct {
		path string
		size int64
		time time.Time
	}
	var list []kept
	sum := int64(0)
	names, err := filepath.Glob(filepath.Join(globQuoted(m.lfsDir()), "*", "*"))
	if err != nil {
		return err
	}
	half, err := filepath.Glob(filepath.Join(globQuoted(m.lfsDir()), "*"+lfsTempEnd))
	if err != nil {
		return err
	}
	for _, name := range half {
		if st, err := os.Stat(name); err == nil && time.Since(st.ModTime()) > halfMost {
			_ = os.Remove(name)
		}
	}
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			continue
		}
		sum += st.Size()
		if oid, _, _ := strings.Cut(st.Name(), "-"); !used[oid] {
			list = append(list, kept{name, st.Size(), st.ModTime()})
		}
	}
	slices.SortFunc(list, func(a, b kept) int { return a.time.Compare(b.time) })
	for _, k := range list {
		if sum <= lfsCacheMost {
			break
		}
		if err := os.Remove(k.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		sum -= k.size
	}
	return nil
}

func globQuoted(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// lfs gives the content that a pointer stands for. The first one that is not
// here has all of the commit's fetched that are not.
func (w *walker) lfs(p pointer, path string) (*lfsFile, error) {
	name := w.m.remote.Repository
	f, err := w.m.lfsHere(p.oid)
	if err == nil && f == nil {
		if err := w.lfsBring(); err != nil {
			return nil, err
		}
		f, err = w.m.lfsHere(p.oid)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the LFS files of %s: %w", name, withoutPath(err))
	case f == nil:
		return nil, fmt.Errorf("the LFS file %q of %s was removed from the cache while it was wanted: it holds %d bytes at most", cut(path), name, lfsCacheMost)
	case f.size != p.size:
		return nil, fmt.Errorf("the LFS file %q of %s has %d bytes, and its pointer says %d", cut(path), name, f.size, p.size)
	}
	now := time.Now()
	_ = os.Chtimes(f.path, now, now) // what was used last is removed last
	return f, nil
}

// lfsBring fetches all LFS files of the walk's repository that are not here.
func (w *walker) lfsBring() error {
	used := map[string]bool{}
	var want []lfsWant
	look := &walker{ctx: w.ctx, m: w.m, commit: w.commit, x: w.x, files: new(int), count: new(int), alone: true}
	look.fn = func(l *walker, it item) error {
		p, ok, err := l.pointer(it)
		if err != nil || !ok || p.size == 0 || used[p.oid] {
			return err
		}
		used[p.oid] = true
		f, err := w.m.lfsHere(p.oid)
		if err == nil && f == nil {
			want = append(want, lfsWant{p, it.file.Path})
		}
		return err
	}
	if err := look.run(w.subdir); err != nil {
		return err
	}
	if err := w.lfsFetch(want); err != nil {
		return err
	}
	if err := w.m.lfsPrune(used); err != nil {
		w.m.m.log.Warn("removing LFS files that are not used", "repo", w.m.remote.Repository, "err", err)
	}
	return nil
}

// pointer reads the pointer of a file that should be one.
func (w *walker) pointer(it item) (pointer, bool, error) {
	if !it.lfs {
		return pointer{}, false, nil
	}
	size, err := w.size(it)
	if err != nil || size > pointerMost {
		return pointer{}, false, err
	}
	b, err := w.blob(it.hash, pointerMost)
	if err != nil {
		return pointer{}, false, fmt.Errorf("reading %q of %s: %w", cut(it.file.Path), w.m.remote.Repository, err)
	}
	p, ok := parsePointer(b)
	return p, ok, nil
}

// lfsWant is a content to be fetched, and a file that it is for.
type lfsWant struct {
	pointer
	path string
}

// lfsSource is where LFS files come from.
type lfsSource interface {
	// fetch gets contents, all of which it was asked for or an error.
	fetch(ctx context.Context, want []lfsWant, keep func(pointer, io.Reader) error) error
}

// lfsBatch is how many contents are asked for at once, as many as git-lfs does.
const lfsBatch = 100

// lfsFetch fetches contents into the cache.
func (w *walker) lfsFetch(want []lfsWant) error {
	name := w.m.remote.Repository
	if len(want) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(w.ctx, fetchTime)
	defer cancel()
	from, err := w.lfsSource(ctx)
	if err != nil {
		return w.lfsExplain(ctx, err)
	}
	w.m.m.log.Info("fetching LFS files", "repo", name, "commit", w.commit, "files", len(want))
	for batch := range slices.Chunk(want, lfsBatch) {
		if err := from.fetch(ctx, batch, w.m.lfsKeep); err != nil {
			return w.lfsExplain(ctx, err)
		}
	}
	return nil
}

// lfsExplain says in a sentence what kept LFS files from being fetched.
func (w *walker) lfsExplain(ctx context.Context, err error) error {
	err = w.m.explain(ctx, err)
	if text, ok := strings.CutPrefix(err.Error(), "fetching "+w.m.remote.Repository+": "); ok {
		return fmt.Errorf("fetching the LFS files of %s: %s", w.m.remote.Repository, text)
	}
	return err
}

// lfsSource finds out where the LFS files of a repository are.
//
// Source: git-lfs docs/api/server-discovery.md.
func (w *walker) lfsSource(ctx context.Context) (lfsSource, error) {
	remote, err := w.m.connector()
	if err != nil {
		return nil, err
	}
	set, err := w.lfsConfig()
	if err != nil {
		return nil, err
	}
	switch remote := remote.(type) {
	case web:
		return remote.lfs(set)
	case *secure:
		return remote.lfs(ctx, set)
	case local:
		return remote, nil
	}
	return nil, errors.New("LFS files come over https, ssh and from paths")
}

// lfsConfig is the address in .lfsconfig, or empty.
func (w *walker) lfsConfig() (string, error) {
	const most = 64 << 10 // bytes
	list, err := w.list(w.root, "")
	if err != nil {
		return "", err
	}
	e := named(list, ".lfsconfig")
	if e == nil {
		return "", nil
	}
	b, err := w.blob(e.hash, most)
	if err != nil {
		return "", &lfsWrong{".lfsconfig cannot be read: " + err.Error()}
	}
	sections, err := parseConfig(string(b))
	if err != nil {
		return "", &lfsWrong{".lfsconfig cannot be read: " + err.Error()}
	}
	address := ""
	for _, s := range sections {
		if s.name == "lfs" && s.sub == "" && s.key == "url" {
			address = s.value
		}
	}
	return address, nil
}

// fetch reads the LFS files of a repository on this machine where git-lfs
// keeps them.
func (l local) fetch(ctx context.Context, want []lfsWant, keep func(pointer, io.Reader) error) error {
	o, err := l.open()
	if err != nil {
		return err
	}
	defer o.close()
	for _, p := range want {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(o.dir, "lfs", "objects", p.oid[:2], p.oid[2:4], p.oid))
		if errors.Is(err, os.ErrNotExist) {
			return &lfsWrong{fmt.Sprintf("%q is not there: git lfs fetch --all in the repository at clone_url brings it", cut(p.path))}
		}
		if err != nil {
			return withoutPath(err)
		}
		err = keep(p.pointer, f)
		f.Close()
		if err != nil {
			return lfsOf(p, err)
		}
	}
	return nil
}

// lfsOf names the file that a server was wrong about.
func lfsOf(p lfsWant, err error) error {
	if wrong := (*lfsWrong)(nil); errors.As(err, &wrong) {
		return &lfsWrong{fmt.Sprintf("%q: %s", cut(p.path), wrong.text)}
	}
	return err
}
