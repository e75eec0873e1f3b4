package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/release"
)

// state is an agent's directory: DIR/agents/NONCE is locked while it lives and
// holds its process id, DIR/work/NONCE holds its workspace and files. A mark
// that nobody locks is an agent that was killed: what it left is ended and
// removed by the next one.
type state struct {
	dir   string
	nonce string
	lock  *os.File
}

// newMark ends the name of a mark that is not locked yet.
const newMark = ".new"

// openState makes an agent's directory; far is an agent that sshd has started,
// whose user has it in the home.
func openState(nonce string, far bool) (*state, error) {
	dir := os.Getenv(wire.StateVariable)
	if dir == "" && far {
		var err error
		if dir, err = userState(); err != nil {
			return nil, err
		}
	}
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
	return s, s.mark()
}

// userState is where a user's agents are.
//
// Source: XDG Base Directory Specification, XDG_STATE_HOME.
func userState() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("looking for a directory to work in: %w", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "deployhook", "agent"), nil
}

// mark says that this agent lives. The mark gets its name when it is locked:
// before that another agent would take it for one of the dead.
func (s *state) mark() error {
	made := s.path("agents", s.nonce+newMark)
	f, err := os.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		s.lock = f
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_, err = fmt.Fprintln(f, os.Getpid())
		}
		if err == nil {
			err = os.Rename(made, s.path("agents", s.nonce))
		}
		if err != nil {
			os.Remove(made)
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("marking the agent as alive: %w", err)
	}
	return nil
}

func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// work is this agent's own directory.
func (s *state) work() string { return s.path("work", s.nonce) }

// close removes what the agent had, its mark last. What cannot be removed now
// the next agent tries again.
func (s *state) close() error {
	err := release.RemoveTree(s.work())
	return errors.Join(err, os.Remove(s.path("agents", s.nonce)), s.lock.Close())
}

var nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// buryDead ends the processes that killed agents left, and removes their
// directories.
func (s *state) buryDead() error {
	// One at a time, of all agents: a mark that another one buries looks like
	// one of the living.
	turn, err := os.Open(s.path("agents"))
	if err != nil {
		return err
	}
	defer turn.Close()
	for {
		if err = unix.Flock(int(turn.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("waiting for another agent: %w", err)
	}
	// Before the marks: who makes a directory now has made its mark before.
	works, err := os.ReadDir(s.path("work"))
	if err != nil {
		return err
	}
	marks, err := os.ReadDir(s.path("agents"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range marks {
		switch name := e.Name(); {
		case name == s.nonce:
		case nonceForm.MatchString(name):
			errs = append(errs, s.buryOne(name))
		case strings.HasSuffix(name, newMark):
			// It was killed in the moment of its birth. A time to come is that
			// of a clock that was ahead.
			if st, err := e.Info(); err == nil && time.Since(st.ModTime()).Abs() > time.Minute {
				os.Remove(s.path("agents", name))
			}
		}
	}
	for _, e := range works {
		if name := e.Name(); name != s.nonce && nonceForm.MatchString(name) {
			if _, err := os.Lstat(s.path("agents", name)); os.IsNotExist(err) {
				errs = append(errs, release.RemoveTree(s.path("work", name)))
			}
		}
	}
	// What cannot be removed is in nobody's way.
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "removing what an earlier agent left:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

func (s *state) buryOne(nonce string) error {
	f, err := os.OpenFile(s.path("agents", nonce), os.O_RDWR, 0)
	if err != nil {
		return nil // it has ended by itself meanwhile
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // it lives
	}
	endMarked(nonce)
	return errors.Join(release.RemoveTree(s.path("work", nonce)), os.Remove(s.path("agents", nonce)))
}

// endOthers waits until the agents that live now have ended, and kills those
// that have not after most.
func (s *state) endOthers(most time.Duration) {
	end := time.Now().Add(most)
	marks, _ := os.ReadDir(s.path("agents"))
	for _, e := range marks {
		if name := e.Name(); name != s.nonce && nonceForm.MatchString(name) {
			s.endOther(name, time.Until(end))
		}
	}
}

// await waits until other agents have ended.
func (a *Agent) await(r *http.Request, q wire.Await) (wire.Awaited, error) {
	names := q.Nonces
	if len(names) == 0 {
		marks, _ := os.ReadDir(a.state.path("agents"))
		for _, e := range marks {
			names = append(names, e.Name())
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return !nonceForm.MatchString(name) || name == a.nonce || slices.Contains(q.Except, name)
	})
	lives := func(name string) bool {
		_, lives := living(a.state.path("agents", name))
		return lives
	}
	for end := time.Now().Add(time.Duration(q.Wait) * time.Millisecond); ; time.Sleep(10 * time.Millisecond) {
		names = slices.DeleteFunc(names, func(name string) bool { return !lives(name) })
		if len(names) == 0 || r.Context().Err() != nil || time.Now().After(end) {
			break
		}
	}
	if q.Kill {
		for _, name := range names {
			a.state.endOther(name, 0)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !lives(name) })
	}
	return wire.Awaited{Alive: len(names)}, a.state.buryDead()
}

// endOther waits until an agent has ended, and kills it when it has not after
// most. A mark that does not name its process any more has been tampered with
// by a step: such an agent is left to whoever started it.
func (s *state) endOther(nonce string, most time.Duration) {
	const afterKill = 10 * time.Second
	end, killed := time.Now().Add(most), false
	for {
		pid, lives := living(s.path("agents", nonce))
		switch late := time.Now().After(end); {
		case !lives:
			return
		case late && killed:
			fmt.Fprintln(os.Stderr, "an agent cannot be killed: process", pid)
			return
		case late:
			fmt.Fprintln(os.Stderr, "an agent does not end: it is killed: process", pid)
			if pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			end, killed = time.Now().Add(afterKill), true
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// living says whether the agent of a mark lives, and its process id.
func living(mark string) (pid int, lives bool) {
	f, err := os.OpenFile(mark, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false
	}
	b := make([]byte, 20)
	n, _ := f.Read(b)
	pid, _ = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid, true
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
