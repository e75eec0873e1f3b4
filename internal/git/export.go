package git

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"

	"deployhook/internal/deploy"
)

// View says which files of a commit are wanted.
type View struct {
	Subdir string // only what is in this directory, by paths from there on; empty = all
	Rules  bool   // export-ignore and export-subst count, as in git archive
}

// Export is a commit as it is delivered. What its files become, the time in
// them included, stays the same from one call to the next.
type Export struct {
	m      *Mirror
	commit string
	view   View
	now    time.Time

	mu   sync.Mutex
	refs map[*Mirror]refsThen
}

// refsThen are the refs of a remote when they were first asked for.
type refsThen struct {
	list []refName
	head string
}

// Export gives a commit that is in the mirror, as v wants it.
func (m *Mirror) Export(commit string, v View) *Export {
	return &Export{m: m, commit: commit, view: v, now: time.Now(), refs: map[*Mirror]refsThen{}}
}

func (x *Export) refsOf(ctx context.Context, m *Mirror) (refsThen, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, ok := x.refs[m]
	if !ok {
		var err error
		if r.list, r.head, err = m.refNames(ctx); err != nil {
			return r, err
		}
		x.refs[m] = r
	}
	return r, nil
}

// item is a file on the way, by its blob in the repository.
type item struct {
	file  deploy.TreeFile
	hash  plumbing.Hash
	subst bool // it has placeholders that are filled in
}

// blob reads a small file's blob.
func (w *walker) blob(hash plumbing.Hash, most int64) ([]byte, error) {
	var b []byte
	err := w.heal(func() error {
		obj, err := w.o.object(hash)
		if err != nil {
			return err
		}
		if obj.Size() > most {
			return fmt.Errorf("it has %d bytes, more than %d", obj.Size(), most)
		}
		b, err = w.o.content(obj, hash)
		return err
	})
	return bytes.Clone(b), err
}

// named is a file of a directory; nil = there is none of that name that could be read.
func named(list []entry, name string) *entry {
	for i, e := range list {
		if e.name == name && (e.mode == filemode.Regular || e.mode == filemode.Executable || e.mode == filemode.Deprecated) {
			return &list[i]
		}
	}
	return nil
}

// enter takes in the attributes of a directory.
func (w *walker) enter(list []entry, dir string) error {
	text := ""
	if e := named(list, attributesName); e != nil {
		b, err := w.blob(e.hash, attributesMost)
		if err != nil {
			return fmt.Errorf("reading %q of %s: %w", cut(dir+attributesName), w.m.remote.Repository, err)
		}
		text = string(b)
	}
	if text != "" || dir == "" {
		w.attrs.enter(strings.TrimSuffix(dir, "/"), text)
	}
	return nil
}

// attributes gives those of an entry.
func (w *walker) attributes(path string, dir bool) (attrValues, error) {
	v, err := w.attrs.of(path, dir)
	if err != nil {
		err = fmt.Errorf("the attributes of %q of %s: %w", cut(path), w.m.remote.Repository, err)
	}
	return v, err
}

// below goes down to the directory that is wanted.
func (w *walker) below(hash plumbing.Hash, subdir string) error {
	dir := ""
	for _, name := range strings.Split(subdir, "/") {
		list, err := w.list(hash, dir)
		if err == nil {
			err = w.enter(list, dir)
		}
		if err != nil {
			return err
		}
		found := false
		for _, e := range list {
			if e.name == name && e.mode == filemode.Dir {
				hash, found = e.hash, true
			}
		}
		if !found {
			return fmt.Errorf("commit %.7s of %s has no directory %q, which release.subdir names", w.commit, w.m.remote.Repository, subdir)
		}
		dir += name + "/"
	}
	w.skip = dir
	return w.tree(hash, dir, 0)
}

// made is a content that is not the blob's.
type made struct {
	content []byte
}

func (c *made) give(_ *walker, f deploy.TreeFile, fn func(deploy.TreeFile, io.Reader) error) error {
	return fn(f, bytes.NewReader(c.content))
}

// made makes the content of a file that is not its blob's, and notes it in the
// item; nil = it is the blob, or is not wanted.
func (w *walker) made(it *item, wanted bool) (*made, error) {
	if !it.subst {
		return nil, nil
	}
	b, err := w.blob(it.hash, substMost)
	if err == nil {
		b, err = w.substituted(b)
	}
	if err != nil {
		return nil, fmt.Errorf("filling in %q of %s, which has the attribute export-subst: %w", cut(it.file.Path), w.m.remote.Repository, err)
	}
	it.file.Size, it.file.Blob = int64(len(b)), plumbing.ComputeHash(plumbing.BlobObject, b).String()
	return &made{content: b}, nil
}

func (w *walker) substituted(b []byte) ([]byte, error) {
	if w.pretty == nil {
		text, err := w.text()
		if err != nil {
			return nil, err
		}
		w.pretty = &pretty{c: text, env: &substEnv{w: w, commit: text.hash}}
	}
	return w.pretty.subst(b)
}

// text reads the commit as it was written.
func (w *walker) text() (*commitText, error) {
	hash := plumbing.NewHash(w.commit)
	var text *commitText
	err := w.heal(func() error {
		t, b, err := w.o.read(hash)
		if err != nil {
			return err
		}
		if t != plumbing.CommitObject {
			return &notCommit{what: w.commit, kind: t}
		}
		text, err = parseCommit(hash, b)
		return err
	})
	return text, err
}

// substEnv answers the placeholders of a walk.
type substEnv struct {
	w      *walker
	commit plumbing.Hash
	mail   mailmap // nil = not read
}

func (e *substEnv) abbreviate(h plumbing.Hash) (s string, err error) {
	err = e.w.heal(func() error {
		s, err = e.w.o.abbreviate(h, -1)
		return err
	})
	return s, err
}

func (e *substEnv) names() ([]string, error) {
	r, err := e.w.x.refsOf(e.w.ctx, e.w.m)
	return decorated(r.list, r.head, e.commit), err
}

func (e *substEnv) describe(opts describeOptions) (s string, err error) {
	r, err := e.w.x.refsOf(e.w.ctx, e.w.m)
	if err != nil {
		return "", err
	}
	err = e.w.heal(func() error {
		s, err = e.w.o.describe(e.w.ctx, e.commit, r.list, opts)
		return err
	})
	return s, err
}

func (e *substEnv) mapped(name, mail string) (string, string, error) {
	if e.mail == nil {
		list, err := e.w.list(e.w.root, "")
		if err != nil {
			return "", "", err
		}
		e.mail = mailmap{}
		if f := named(list, ".mailmap"); f != nil {
			b, err := e.w.blob(f.hash, mailmapMost)
			if err != nil {
				return "", "", fmt.Errorf("reading .mailmap: %w", err)
			}
			e.mail = parseMailmap(string(b))
		}
	}
	name, mail = e.mail.of(name, mail)
	return name, mail, nil
}

func (e *substEnv) date(p person, how byte) string { return p.date(e.w.x.now, how) }
