package agent

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper takes in the processes that steps leave behind: the agent is their
// subreaper, so whatever loses its parent becomes its child.
type reaper struct {
	mu    sync.Mutex
	own   map[int]bool // steps' own processes, whose status os/exec reads
	group *cgroup      // where the steps are; nil: in no group of their own
}

// start starts a step's process so that its status is never taken away.
func (r *reaper) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.own[cmd.Process.Pid] = true
	return nil
}

// waited forgets a step's process, whose status was read.
func (r *reaper) waited(pid int) {
	r.mu.Lock()
	delete(r.own, pid)
	r.mu.Unlock()
	r.sweep()
}

func (r *reaper) run() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGCHLD)
	for range sig {
		r.sweep()
	}
}

// siginfo is the part of siginfo_t that waitid fills in.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	_                  [108]byte
}

// sweep reaps adopted children that have ended. It looks before it takes: a
// wait for any child would steal a step's own status.
func (r *reaper) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var info siginfo
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
		if errno != 0 || info.pid == 0 || r.own[int(info.pid)] {
			return // a step's own: its waiter comes here again
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(int(info.pid), &status, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

// endTime bounds how long endAll chases processes that start others.
const endTime = 5 * time.Second

// endAll ends every descendant of the agent, at once, and gives the names of
// those it met. group is that of a step, or 0.
func (r *reaper) endAll(group int) []string {
	var names []string
	seen := map[int]bool{}
	for end := time.Now().Add(endTime); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		r.sweep()
		list := descendants(os.Getpid())
		if r.group != nil {
			list = union(list, r.group.left())
		}
		if len(list) == 0 {
			break
		}
		mine := map[int]bool{group: group != 0}
		for _, p := range list {
			mine[p.pid] = true
			if !seen[p.pid] {
				seen[p.pid] = true
				names = append(names, fmt.Sprintf("%s (pid %d)", p.name, p.pid))
			}
		}
		// A whole group dies at once; one by one, what forks fast gets away.
		// Only of groups that a descendant leads: a step may have put its
		// process into a group of somebody else's.
		for _, p := range list {
			if p.group > 1 && mine[p.group] {
				_ = unix.Kill(-p.group, unix.SIGKILL)
			}
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		if r.group != nil {
			r.group.kill()
		}
	}
	return names
}

// union adds to a list what only the other has.
func union(list, other []process) []process {
	has := map[int]bool{}
	for _, p := range list {
		has[p.pid] = true
	}
	for _, p := range other {
		if !has[p.pid] {
			list = append(list, p)
		}
	}
	return list
}

// hasChildren says whether the agent has any child at all.
func hasChildren() bool {
	var info siginfo
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	return errno != unix.ECHILD
}

type process struct {
	pid, parent, group int
	name               string // without control characters
}

// descendants lists the living processes below root.
func descendants(root int) []process {
	if root == os.Getpid() && !hasChildren() {
		return nil
	}
	all := map[int]process{}
	for _, pid := range processes() {
		if p, ok := readProcess(pid); ok {
			all[pid] = p
		}
	}
	var list []process
	for pid, p := range all {
		for up, n := p, 0; up.parent != 0 && n < 1000; n++ {
			if up.parent == root && pid != root {
				list = append(list, p)
				break
			}
			next, ok := all[up.parent]
			if !ok {
				break
			}
			up = next
		}
	}
	return list
}

// readProcess reads /proc/PID/stat; a zombie is not there any more.
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// The name stands in parentheses and may hold anything.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return process{}, false
	}
	f := bytes.Fields(b[to+1:])
	if len(f) < 3 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return process{}, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	group, gerr := strconv.Atoi(string(f[2]))
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, string(b[from+1:to]))
	return process{pid: pid, parent: parent, group: group, name: name}, err == nil && gerr == nil
}
