package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"deployhook/internal/deploy"
)

// Modes of files in a tree.
var treeModes = []deploy.TreeMode{1: deploy.TreePlain, 2: deploy.TreeExecutable, 3: deploy.TreeSymlink}

// blobLength is how many bytes the id of a blob has.
const blobLength = 20

// WriteFile writes one file of a tree; content has f.Size bytes.
func WriteFile(w *bufio.Writer, f deploy.TreeFile, content io.Reader) error {
	if err := writeHead(w, f); err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(content, f.Size))
	if err == nil && n != f.Size {
		err = fmt.Errorf("%q has %d bytes, not %d", f.Path, n, f.Size)
	}
	return err
}

// WriteName writes one file of a list: its blob's id in place of the content.
func WriteName(w *bufio.Writer, f deploy.TreeFile) error {
	blob, err := hex.DecodeString(f.Blob)
	if err != nil || len(blob) != blobLength {
		return fmt.Errorf("%q cannot be sent", f.Path)
	}
	if err := writeHead(w, f); err != nil {
		return err
	}
	_, err = w.Write(blob)
	return err
}

// EndTree marks the end of a tree or a list: without it, it is cut short.
func EndTree(w *bufio.Writer) error {
	if err := w.WriteByte(0); err != nil {
		return err
	}
	return w.Flush()
}

// ReadTree reads a tree; fn reads each file's content, what it leaves is
// passed over.
func ReadTree(r *bufio.Reader, fn func(f deploy.TreeFile, content io.Reader) error) error {
	return readFiles(r, func(f deploy.TreeFile) error {
		content := &io.LimitedReader{R: r, N: f.Size}
		if err := fn(f, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil || content.N > 0 {
			return errors.New("the tree was cut short")
		}
		return nil
	})
}

// ReadNames reads a list.
func ReadNames(r *bufio.Reader, fn func(f deploy.TreeFile) error) error {
	return readFiles(r, func(f deploy.TreeFile) error {
		var blob [blobLength]byte
		if _, err := io.ReadFull(r, blob[:]); err != nil {
			return fmt.Errorf("the tree was cut short: %w", err)
		}
		f.Blob = hex.EncodeToString(blob[:])
		return fn(f)
	})
}

func writeHead(w *bufio.Writer, f deploy.TreeFile) error {
	mode := byte(0)
	for i, m := range treeModes {
		if m == f.Mode {
			mode = byte(i)
		}
	}
	if mode == 0 || len(f.Path) == 0 || len(f.Path) > NameMost || f.Size < 0 {
		return fmt.Errorf("%q cannot be sent", f.Path)
	}
	head := binary.AppendUvarint(nil, uint64(len(f.Path)))
	head = append(head, f.Path...)
	head = binary.AppendUvarint(append(head, mode), uint64(f.Size))
	_, err := w.Write(head)
	return err
}

// readFiles reads heads until the end, which r's must be too; fn reads what
// follows each.
func readFiles(r *bufio.Reader, fn func(deploy.TreeFile) error) error {
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("the tree was cut short: %w", err)
		}
		if n == 0 {
			// An answer before the sender was told that all is read would
			// cut it off in its last word, and its connection with it.
			if _, err := r.ReadByte(); err != io.EOF {
				return errors.New("the tree does not end where it says")
			}
			return nil
		}
		if n > NameMost {
			return errors.New("a path in the tree is too long")
		}
		name := make([]byte, n)
		if _, err := io.ReadFull(r, name); err != nil {
			return fmt.Errorf("the tree was cut short: %w", err)
		}
		mode, err := r.ReadByte()
		if err != nil {
			return fmt.Errorf("the tree was cut short: %w", err)
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("the tree was cut short: %w", err)
		}
		if mode == 0 || int(mode) >= len(treeModes) || size > 1<<40 {
			return errors.New("the tree has a file that is none")
		}
		if err := fn(deploy.TreeFile{Path: string(name), Mode: treeModes[mode], Size: int64(size)}); err != nil {
			return err
		}
	}
}
