package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// outputFile is where a step writes its outputs. Its directory is kept open: a
// step may put something else in that one's place.
type outputFile struct {
	dir  *os.File
	path string
}

const outputName = "output"

// newOutput makes the empty file of the next step.
func (a *Agent) newOutput() (*outputFile, error) {
	dir, err := a.workDir()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	o := &outputFile{dir: f, path: filepath.Join(dir, outputName)}
	// The step before may have made anything of its own.
	fd, err := -1, os.RemoveAll(o.path)
	if err == nil {
		fd, err = unix.Openat(int(f.Fd()), outputName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	if err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return o, nil
}

func (o *outputFile) close() { o.dir.Close() }

// read gives what the step wrote, or a sentence about what it made of the file.
func (o *outputFile) read() (content []byte, wrong string) {
	// Nothing that a step may have put there is followed or waited for.
	fd, err := unix.Openat(int(o.dir.Fd()), outputName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, ""
	case errors.Is(err, unix.ELOOP):
		return nil, "$" + deploy.OutputVariable + " is no file any more, but a link"
	case err != nil:
		return nil, fmt.Sprintf("$%s cannot be read: %v", deploy.OutputVariable, err)
	}
	f := os.NewFile(uintptr(fd), outputName)
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		return nil, "$" + deploy.OutputVariable + " is no file any more"
	}
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(f, deploy.OutputsBytes+1))
	}
	if err != nil {
		return nil, fmt.Sprintf("$%s cannot be read: %v", deploy.OutputVariable, err)
	}
	return content, ""
}
