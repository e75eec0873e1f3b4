// Package config reads deploy.yaml: one table of keys drives the reader, the
// JSON schema, the reference in docs and what check prints. All errors of a
// file come at once, each with its place.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deployhook/internal/deploy"
)

// File is deploy.yaml as it was understood.
type File struct {
	Path     string
	Deploy   *deploy.Config
	Server   Server
	Warnings Problems

	written map[string]*value // by path, what stands in the file
	given   map[string]string // by path, the variable or flag that counts over it
}

// Load reads a file, with the variables DEPLOYHOOK_SERVER_… and the flags over
// its server section. Its error is [Problems] when the file was read and is
// wrong.
func Load(path string, flags *pflag.FlagSet) (*File, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	f, err := parse(path, text, func(name string, server *node) (Server, map[string]string, Problems) {
		return readServer(name, server, flags, true)
	})
	if err == nil {
		f.Warnings = append(f.Warnings, strangeVariables()...)
	}
	return f, err
}

// Parse reads the text of a file, without variables and flags: also a text
// that was stored with a run.
func Parse(name string, text []byte) (*File, error) {
	return parse(name, text, func(name string, server *node) (Server, map[string]string, Problems) {
		return readServer(name, server, nil, false)
	})
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not there: copy deploy.yaml.example to it, or name another file with --config", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s cannot be read by this user: check its owner and mode", path)
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name the file in it", path)
	}
	b, err := io.ReadAll(io.LimitReader(file, fileMost+4))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, errors.Unwrap(err))
	}
	return b, nil
}

// parse reads a file and, with server, its section server. Everything that is
// wrong with either comes at once.
func parse(name string, text []byte, server func(string, *node) (Server, map[string]string, Problems)) (*File, error) {
	c := newChecker(base(name))
	tree, err := parseTree(text)
	var te *treeError
	if errors.As(err, &te) {
		return nil, Problems{{File: c.file, Line: te.line, Column: te.column, Message: te.message}}
	}
	if err != nil {
		return nil, err
	}
	if !tree.isMap {
		return nil, Problems{{File: c.file, Line: tree.line, Column: tree.column, Message: "sections like hooks and pipelines are wanted here, not " + tree.what()}}
	}
	f := &File{Path: name, Deploy: &deploy.Config{}, written: map[string]*value{}, given: map[string]string{}}
	top := c.check(tree, root, "")
	if top != nil {
		f.Deploy = c.build(top)
	}
	s, given, problems := server(name, top.get("server"))
	f.Server = s
	if c.within("server.tls") {
		// What is missing there may be what was written wrongly.
		problems = slices.DeleteFunc(problems, func(p Problem) bool { return strings.HasPrefix(p.Path, "server.tls") })
	}
	if problems = append(c.problems, problems...); len(problems) > 0 {
		return nil, problems.inOrder()
	}
	sum := sha256.Sum256(text)
	f.Deploy.Digest, f.Deploy.Text = hex.EncodeToString(sum[:]), string(text)
	noteWritten(top, f.written)
	for key, from := range given {
		f.given["server."+key] = from
	}
	f.Warnings = append(c.warnings, f.atOdds()...).inOrder()
	return f, nil
}

// noteWritten notes what stands in the file.
func noteWritten(n *node, into map[string]*value) {
	into[n.path] = n.v
	for _, k := range n.keys {
		noteWritten(k, into)
	}
	for _, i := range n.items {
		if i != nil && i.path != n.path {
			noteWritten(i, into)
		}
	}
}

// Find gives the file that a command means: its flag, $DEPLOYHOOK_CONFIG,
// ./deploy.yaml, /etc/deployhook/deploy.yaml.
func Find(flag string) string {
	if flag != "" {
		return flag
	}
	if env := os.Getenv("DEPLOYHOOK_CONFIG"); env != "" {
		return env
	}
	if _, err := os.Stat("deploy.yaml"); err == nil {
		return "deploy.yaml"
	}
	return "/etc/deployhook/deploy.yaml"
}
