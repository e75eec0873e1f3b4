package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/agent/wire"
)

// controllers are what a job's limits need.
var controllers = []string{"cpu", "memory", "pids"}

// cgroup is the control group of the agent's unit, where systemd has delegated
// it (Delegate=): the agent moves into one group below it, its steps run in
// another. So limits end steps and never the agent, and nothing that a step
// has started gets away, whoever it runs as.
//
// Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and
// https://systemd.io/CGROUP_DELEGATION.
type cgroup struct {
	dir   string   // of the steps
	group *os.File // the same, for the kernel
	oom   int64    // processes of steps that were killed so far because memory was short
	forks int64    // processes that were refused so far
}

// openCgroup takes the agent's own control group over. nil: there is none for
// the agent alone, as where the daemon has started it.
func openCgroup(root, proc string) *cgroup {
	unit, ok := ownCgroup(root, proc)
	if !ok {
		return nil
	}
	own, steps := filepath.Join(unit, "agent"), filepath.Join(unit, "steps")
	// In this order: a group with processes of its own cannot give
	// controllers to those below it.
	err := errors.Join(os.Mkdir(own, 0o755), os.Mkdir(steps, 0o755))
	if err == nil {
		err = writeCgroup(own, "cgroup.procs", strconv.Itoa(os.Getpid()))
	}
	if err != nil {
		return nil
	}
	for _, c := range controllers {
		_ = writeCgroup(unit, "cgroup.subtree_control", "+"+c) // a limit that needs it says so
	}
	group, err := os.Open(steps)
	if err != nil {
		return nil
	}
	// One that is out of memory is ended as a whole: a half of a step is no result.
	_ = writeCgroup(steps, "memory.oom.group", "1")
	return &cgroup{dir: steps, group: group}
}

// ownCgroup finds the control group of this process, if it has it for itself
// and may change it.
func ownCgroup(root, proc string) (string, bool) {
	b, err := os.ReadFile(proc)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/")
		if !ok || path == "" || strings.Contains(path, "..") {
			continue
		}
		dir := filepath.Join(root, path)
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(os.Getpid()) {
			return "", false
		}
		return dir, true
	}
	return "", false
}

func writeCgroup(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// contain has a command begin among the steps.
func (c *cgroup) contain(cmd *exec.Cmd) {
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(c.group.Fd())
}

// limit keeps the steps from now on within a job's limits.
func (c *cgroup) limit(l wire.Limits) error {
	set := func(name, value, what string) error {
		if err := writeCgroup(c.dir, name, value); err != nil {
			return fmt.Errorf("the limit of %s cannot be kept: this machine's kernel or its systemd gives a unit no control over it (%s: %w)", what, name, errors.Unwrap(err))
		}
		return nil
	}
	if l.Memory > 0 {
		if err := set("memory.max", strconv.FormatInt(l.Memory, 10), "memory"); err != nil {
			return err
		}
		// Memory that is only moved to disk makes the whole machine slow. Without swap there is no such file.
		if err := set("memory.swap.max", "0", "memory"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if l.CPU > 0 {
		const period = 100_000 // microseconds
		if err := set("cpu.max", fmt.Sprintf("%d %d", max(1000, int64(l.CPU*period)), period), "cpu"); err != nil {
			return err
		}
	}
	if l.PIDs > 0 {
		if err := set("pids.max", strconv.Itoa(l.PIDs), "pids"); err != nil {
			return err
		}
	}
	return nil
}

// event reads one counter of a file of counters; 0 when it is not there.
func (c *cgroup) event(file, name string) int64 {
	b, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// explain says what a limit did to the step that has just ended; empty:
// nothing.
func (c *cgroup) explain(l wire.Limits) string {
	oom, forks := c.event("memory.events", "oom_kill"), c.event("pids.events", "max")
	killed, refused := oom > c.oom, forks > c.forks
	c.oom, c.forks = oom, forks
	switch {
	case killed && l.Memory > 0:
		return fmt.Sprintf("out of memory: killed at the job's limit of %s%s", sizeText(l.Memory), c.peak())
	case killed:
		return "out of memory: killed because the machine had none left" + c.peak()
	case refused:
		return fmt.Sprintf("a process could not be started: the job's limit is %d processes and threads", l.PIDs)
	}
	return ""
}

// peak is the most memory that the job's steps had; kernels before 5.19 do not
// tell.
func (c *cgroup) peak() string {
	b, err := os.ReadFile(filepath.Join(c.dir, "memory.peak"))
	if err != nil {
		return ""
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return ""
	}
	return ", peak " + sizeText(n)
}

// sizeText writes bytes for people.
func sizeText(n int64) string {
	const mib = 1 << 20
	if n%mib == 0 || n >= 100*mib {
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mib)
}

// left lists the processes that are among the steps.
func (c *cgroup) left() []process {
	b, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var list []process
	for _, f := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			p, ok := readProcess(pid)
			if !ok && errors.Is(syscall.Kill(pid, 0), syscall.EPERM) {
				// Where other users' processes are hidden (ProtectProc=).
				p, ok = process{pid: pid, name: "a process of another user"}, true
			}
			if ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// kill ends all that is among the steps, also what runs as root through sudo.
// Kernels before 5.14 cannot.
func (c *cgroup) kill() {
	if writeCgroup(c.dir, "cgroup.kill", "1") != nil {
		for _, p := range c.left() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	time.Sleep(time.Millisecond)
}
