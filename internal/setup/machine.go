package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Machine is what is set up.
type Machine struct {
	Root   string // before every path; empty on a real machine
	Binary string // of this program, as it was started
	Units  fs.FS  // units and deployhook.sysusers
	// Run runs a program and gives what it printed.
	Run func(ctx context.Context, name string, args ...string) (string, error)
}

// Exec runs programs on this machine.
func Exec(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+searchPath)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed", name)
	}
	if err != nil {
		last := text[strings.LastIndexByte(text, '\n')+1:]
		if last == "" {
			last = err.Error()
		}
		return text, fmt.Errorf("%s: %s", strings.Join(append([]string{name}, args...), " "), last)
	}
	return text, nil
}

// searchPath is where programs of the system are, whoever has started this one.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// find gives the whole path of a program of the system; empty: it is not there.
func (m *Machine) find(name string) string {
	for _, dir := range filepath.SplitList(searchPath) {
		if st, err := os.Stat(m.at(filepath.Join(dir, name))); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// at is where a path of the machine is.
func (m *Machine) at(path string) string { return filepath.Join(m.Root, path) }

func (m *Machine) has(path string) bool {
	_, err := os.Lstat(m.at(path))
	return err == nil
}

func (m *Machine) read(path string) (string, error) {
	b, err := os.ReadFile(m.at(path))
	return string(b), err
}

// HasSystemd says whether systemd runs the machine.
func (m *Machine) HasSystemd() bool { return m.has("/run/systemd/system") }
