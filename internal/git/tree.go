package git

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// entry is one line of a tree object.
type entry struct {
	name string
	mode filemode.FileMode
	hash plumbing.Hash
}

// key is what git sorts entries by: a directory as if it had a slash.
func (e entry) key() []byte {
	if e.mode == filemode.Dir {
		return append([]byte(e.name), '/')
	}
	return []byte(e.name)
}

// tree reads a tree object.
func (o *objects) tree(hash plumbing.Hash) ([]entry, error) {
	t, b, err := o.read(hash)
	if err != nil {
		return nil, err
	}
	if t != plumbing.TreeObject {
		return nil, fmt.Errorf("object %s is no directory", hash)
	}
	list, err := parseTree(b)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", hash, err)
	}
	return list, nil
}

// parseTree reads the content of a tree object: mode, space, name, NUL and 20
// bytes of an id, again and again. The names are as they were written by
// whoever pushed: see [validEntry].
func parseTree(b []byte) ([]entry, error) {
	var list []entry
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte{0})
		mode, name, sp := bytes.Cut(head, []byte{' '})
		if !ok || !sp || len(rest) < len(plumbing.Hash{}) {
			return nil, errors.New("it is cut short")
		}
		m, err := strconv.ParseUint(string(mode), 8, 32)
		if err != nil || len(mode) > 7 {
			return nil, errors.New("it has an entry without a mode")
		}
		e := entry{name: string(name), mode: filemode.FileMode(m)}
		copy(e.hash[:], rest)
		list, b = append(list, e), rest[len(e.hash):]
	}
	return list, nil
}

// nameMost is the longest name of a file, in bytes, and pathMost of a path:
// Linux has no longer ones, and some of a path is the release's own.
const (
	nameMost = 255
	pathMost = 3500
)

// validEntry refuses names of tree entries that lead elsewhere, or that some
// file system takes for .git.
func validEntry(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return errors.New("this is not the name of a file")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("the name of a file has no slash and no NUL")
	case len(name) > nameMost:
		return fmt.Errorf("the name is over %d bytes", nameMost)
	}
	// A backslash is a slash where the commit may be checked out elsewhere.
	for _, part := range strings.Split(name, `\`) {
		if isDotGit(part) {
			return errors.New("a commit cannot hold .git")
		}
	}
	return nil
}

// isDotGit says whether HFS+, NTFS or a file system without case takes a name
// for .git.
//
// Source: git's is_hfs_dotgit (utf8.c) and is_ntfs_dotgit (path.c).
func isDotGit(name string) bool {
	plain := strings.Map(func(r rune) rune {
		switch {
		// Characters that HFS+ ignores.
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	plain, _, _ = strings.Cut(strings.ToLower(plain), ":") // NTFS streams
	plain = strings.TrimRight(plain, " .")
	return plain == ".git" || strings.HasPrefix(plain, "git~") && strings.Trim(plain[4:], "0123456789") == ""
}
