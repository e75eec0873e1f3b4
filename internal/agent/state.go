package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
)

// state is an agent's directory: DIR/agents/NONCE is locked while it lives,
// DIR/work/NONCE holds its workspace and files. A file that nobody locks is an
// agent that was killed: what it left is ended and removed by the next one.
type state struct {
	dir   string
	nonce string
	lock  *os.File
}

func openState(nonce string) (*state, error) {
	dir := os.Getenv(wire.StateVariable)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("looking for a directory to work in: %w", err)
		}
		dir = filepath.Join(cache, "deployhook", "agent")
	}
	s := &state{dir: dir, nonce: nonce}
	for _, d := range []string{s.path("agents"), s.path("work")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("making a directory to work in: %w", err)
		}
	}
	var err error
	if s.lock, err = os.OpenFile(s.path("agents", nonce), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("marking the agent as alive: %w", err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("marking the agent as alive: %w", err)
	}
	return s, nil
}

func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// work is this agent's own directory.
func (s *state) work() string { return s.path("work", s.nonce) }

// close removes what the agent had, its mark last.
func (s *state) close() {
	removeTree(s.work())
	os.Remove(s.path("agents", s.nonce))
	s.lock.Close()
}

var nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// buryDead ends the processes that killed agents left, and removes their
// directories.
func (s *state) buryDead() error {
	entries, err := os.ReadDir(s.path("agents"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == s.nonce || !nonceForm.MatchString(name) {
			continue
		}
		f, err := os.OpenFile(s.path("agents", name), os.O_RDWR, 0)
		if err != nil {
			continue // it has ended by itself meanwhile
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			endMarked(name)
			removeTree(s.path("work", name))
			os.Remove(s.path("agents", name))
		}
		f.Close()
	}
	return nil
}

// endMarked ends this user's processes that a dead agent's steps started, and
// comes back until there is none: one that is ended may have started another.
func endMarked(nonce string) {
	mark := []byte(wire.MarkerVariable + "=" + nonce + "\x00")
	for range 20 {
		found := false
		for _, pid := range processes() {
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil || pid == os.Getpid() {
				continue
			}
			if bytes.HasPrefix(env, mark) || bytes.Contains(env, append([]byte{0}, mark...)) {
				found = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !found {
			return
		}
	}
}

// processes lists all processes.
func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeTree removes a directory, also where a step took the right to write.
func removeTree(dir string) {
	if err := os.RemoveAll(dir); err == nil || !errors.Is(err, fs.ErrPermission) {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
