package release

import (
	"bytes"
	"crypto/sha1" // git's ids are SHA-1
	"encoding/hex"
	"fmt"
	"hash"
	"path/filepath"
	"strconv"
	"strings"
)

// Blob is the id of a git blob whose content is written to it.
type Blob struct{ hash.Hash }

// NewBlob begins a blob of so many bytes.
func NewBlob(size int64) Blob {
	b := Blob{sha1.New()}
	b.Write(strconv.AppendInt([]byte("blob "), size, 10))
	b.Write([]byte{0})
	return b
}

// Is says whether what was written has this id, in hex.
func (b Blob) Is(id string) bool {
	want, err := hex.DecodeString(id)
	return err == nil && bytes.Equal(b.Sum(nil), want)
}

// ValidTreePath refuses what may not stand in a tree, whoever sent it.
func ValidTreePath(p string) error {
	if strings.IndexByte(p, 0) >= 0 || filepath.IsAbs(p) {
		return fmt.Errorf("the tree has the path %q", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") {
			return fmt.Errorf("the tree has the path %q", p)
		}
	}
	return nil
}
