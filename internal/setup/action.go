package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Action is one thing that init does, or finds done.
type Action struct {
	Text  string   // what is made, or the command
	Shown []string // lines of a file, for a dry run
	Done  bool     // nothing is to do
	makes string   // path of what is made and can be taken back; empty: nothing
	again bool     // the daemon must be started again for it
	do    func(ctx context.Context) error
}

// dir makes a directory of root's.
func (m *Machine) dir(path string, mode fs.FileMode) Action {
	a := Action{Text: fmt.Sprintf("directory  %s (%04o, root)", path, mode), makes: path}
	st, err := os.Lstat(m.at(path))
	switch {
	case err == nil && !st.IsDir():
		a.do = func(context.Context) error { return fmt.Errorf("%s is there, and is no directory", path) }
	case err == nil && st.Mode().Perm()&^mode == 0:
		a.Done = true
	case err == nil:
		a.Text = fmt.Sprintf("mode       %s (%04o)", path, mode)
		a.makes = ""
		a.do = func(context.Context) error { return os.Chmod(m.at(path), mode) }
	default:
		a.do = func(context.Context) error {
			return errors.Join(os.MkdirAll(m.at(path), mode), os.Chmod(m.at(path), mode))
		}
	}
	return a
}

// file writes a file of root's that init owns: one of another content is
// written anew.
func (m *Machine) file(path, text string, mode fs.FileMode) Action {
	a := Action{Text: fmt.Sprintf("file       %s (%04o, root)", path, mode), Shown: lines(text), makes: path}
	if old, err := m.read(path); err == nil && old == text {
		a.Done = true
		return a
	}
	a.do = func(context.Context) error { return m.write(path, []byte(text), mode) }
	return a
}

// once writes a file that a person may change afterwards: one that is there
// stays. text is made only when it is needed.
func (m *Machine) once(path string, mode fs.FileMode, text func() ([]byte, error)) Action {
	a := Action{Text: fmt.Sprintf("file       %s (%04o, root)", path, mode), makes: path}
	if m.has(path) {
		a.Done = true
		return a
	}
	a.do = func(context.Context) error {
		b, err := text()
		if err != nil {
			return err
		}
		return m.write(path, b, mode)
	}
	return a
}

// write puts a whole file in its place, or none.
func (m *Machine) write(path string, b []byte, mode fs.FileMode) error {
	at := m.at(path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(at), ".deployhook-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), at)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// command runs a program.
func (m *Machine) command(name string, args ...string) Action {
	return Action{Text: "command    " + strings.Join(append([]string{name}, args...), " "), do: func(ctx context.Context) error {
		_, err := m.Run(ctx, name, args...)
		return err
	}}
}

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }
