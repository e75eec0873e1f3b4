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

	"github.com/spf13/pflag"

	"deployhook/internal/deploy"
)

// File is deploy.yaml as it was understood.
type File struct {
	Path     string
	Deploy   *deploy.Config
	Server   Server
	Warnings Problems
}

// Load reads a file, with the variables DEPLOYHOOK_SERVER_… and the flags over
// its server section. Its error is [Problems] when the file was read and is
// wrong.
func Load(path string, flags *pflag.FlagSet) (*File, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	f, server, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	if f.Server, err = readServer(base(path), server, flags, true); err != nil {
		return nil, err
	}
	return f, nil
}

// Parse reads the text of a file, without variables and flags: also a text
// that was stored with a run.
func Parse(name string, text []byte) (*File, error) {
	f, server, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	f.Server, err = readServer(base(name), server, nil, false)
	return f, err
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there: copy deploy.yaml.example to it, or name another file with --config", path)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s cannot be read by this user: check its owner and mode", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, fileMost+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

func parse(name string, text []byte) (*File, *node, error) {
	c := &checker{file: base(name), broken: map[string]bool{}}
	tree, err := parseTree(text)
	var te *treeError
	if errors.As(err, &te) {
		return nil, nil, Problems{{File: c.file, Line: te.line, Column: te.column, Message: te.message}}
	}
	if err != nil {
		return nil, nil, err
	}
	if !tree.isMap {
		return nil, nil, Problems{{File: c.file, Line: tree.line, Column: tree.column, Message: "sections like hooks and pipelines are wanted here, not " + tree.what()}}
	}
	top := c.check(tree, root, "")
	if top == nil {
		c.problems.sort()
		return nil, nil, c.problems
	}
	cfg := c.build(top)
	if len(c.problems) > 0 {
		c.problems.sort()
		return nil, nil, c.problems
	}
	sum := sha256.Sum256(text)
	cfg.Digest, cfg.Text = hex.EncodeToString(sum[:]), string(text)
	c.warnings.sort()
	return &File{Path: name, Deploy: cfg, Warnings: c.warnings}, top.get("server"), nil
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
