package git

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"

	"deployhook/internal/deploy"
)

// Foreign is a repository on this machine that others keep. It is only read,
// and nothing that it configures is run.
type Foreign struct {
	o     *objects
	files int
}

// OpenForeign opens a repository: a bare one, or a clone by its work tree.
func OpenForeign(path string) (*Foreign, error) {
	o, err := local(path).open()
	if err != nil {
		return nil, err
	}
	return &Foreign{o: o}, nil
}

// Close closes its files.
func (f *Foreign) Close() { f.o.close() }

// abbreviated is how few digits of a commit are taken for one.
const abbreviated = 7

// Full gives the whole id of a commit of which some digits are known; empty
// when none or several have them.
func (f *Foreign) Full(digits string) string {
	even := digits[:len(digits)&^1]
	prefix, err := hex.DecodeString(even)
	if err != nil || len(digits) < abbreviated {
		return ""
	}
	all, err := f.o.HashesWithPrefix(prefix)
	if err != nil {
		return ""
	}
	found := ""
	for _, h := range all {
		if !strings.HasPrefix(h.String(), digits) {
			continue
		}
		if obj, err := f.o.EncodedObject(plumbing.CommitObject, h); err != nil || obj.Type() != plumbing.CommitObject || found == h.String() {
			continue
		}
		if found != "" {
			return ""
		}
		found = h.String()
	}
	return found
}

// List gives every file of a commit with its size, without its content.
func (f *Foreign) List(ctx context.Context, commit string, fn func(deploy.TreeFile) error) error {
	c, err := f.o.commit(plumbing.NewHash(commit))
	if err != nil {
		return err
	}
	return f.tree(ctx, c.TreeHash, "", 0, fn)
}

func (f *Foreign) tree(ctx context.Context, hash plumbing.Hash, prefix string, depth int, fn func(deploy.TreeFile) error) error {
	list, err := f.o.tree(hash)
	if err != nil {
		return err
	}
	for _, e := range list {
		if f.files++; f.files > filesMost || depth > depthMost || len(prefix) > pathMost {
			return fmt.Errorf("it has more than %d files, or directories more than %d deep", filesMost, depthMost)
		}
		if err := errors.Join(ctx.Err(), validEntry(e.name)); err != nil {
			return err
		}
		file := deploy.TreeFile{Path: prefix + e.name, Blob: e.hash.String(), Mode: deploy.TreePlain}
		switch e.mode {
		case filemode.Dir:
			if err := f.tree(ctx, e.hash, file.Path+"/", depth+1, fn); err != nil {
				return err
			}
			continue
		case filemode.Submodule:
			continue // its files are another repository's
		case filemode.Executable:
			file.Mode = deploy.TreeExecutable
		case filemode.Symlink:
			file.Mode = deploy.TreeSymlink
		}
		if file.Size, err = f.o.size(e.hash); err != nil {
			return err
		}
		if err := fn(file); err != nil {
			return err
		}
	}
	return nil
}
