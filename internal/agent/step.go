package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

const (
	stepGrace    = 10 * time.Second      // between SIGTERM and SIGKILL
	groupLook    = 20 * time.Millisecond // between looks whether a group that was sent SIGTERM has ended
	drainTime    = time.Second           // without output, for pipes that something out of reach keeps open
	drainMost    = 30 * time.Second      // for them in all
	pipeSize     = 1 << 20               // bytes of a step's pipe
	outputFrames = 8                     // of a step's output that are sent at once
	floodFrom    = 1 << 20               // bytes of a step's output from which it is read in large pieces
	commandMost  = 96 << 10              // bytes of a command that goes on a command line: one word holds 128 KiB
	valueMost    = 128 << 10
)

type stopReason int

const (
	notStopped stopReason = iota
	stopTimeout
	stopCanceled
	stopOutput
)

// step is one running command.
type step struct {
	done chan struct{}
	term chan stopReason

	once sync.Once
}

// stop ends the step: SIGTERM to its group, a grace, SIGKILL.
func (s *step) stop(why stopReason) {
	s.once.Do(func() { s.term <- why })
}

// runStep runs a command and streams its output, then its result.
func (a *Agent) runStep(w http.ResponseWriter, r *http.Request) {
	var req wire.Step
	if err := wire.Decode(r.Body, &req); err != nil {
		writeError(w, err)
		return
	}
	for name, content := range req.Inline {
		if err := a.keepFile(name, bytes.NewReader(content)); err != nil {
			writeError(w, err)
			return
		}
	}
	out, err := a.newOutput()
	if err != nil {
		// A disk without room must not end a restart: who wants to write an
		// output is told so by its shell.
		fail(fmt.Errorf("making the step's file of outputs: %w", err))
	} else {
		defer out.close()
	}
	cmd, cleanup, err := a.command(&req, out)
	if err != nil {
		w.WriteHeader(http.StatusOK)
		a.result(w, wire.Result{Error: err.Error()})
		return
	}
	defer cleanup()
	s := &step{done: make(chan struct{}), term: make(chan stopReason, 1)}
	if !a.begin(req.ID, s) {
		writeError(w, errors.New("the agent is ending"))
		return
	}
	defer func() {
		a.mu.Lock()
		delete(a.steps, req.ID)
		a.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	res := a.run(w, cmd, &req, s)
	if out != nil {
		res.Output, res.OutputError = out.read()
	}
	a.result(w, res)
}

// begin takes a step in, unless the agent is ending: what starts after that
// nobody would end.
func (a *Agent) begin(id string, s *step) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending {
		return false
	}
	a.steps[id] = s
	if a.canceled[id] {
		s.stop(stopCanceled) // it was canceled before it came here
	}
	return true
}

// result sends the last frame.
func (a *Agent) result(w http.ResponseWriter, res wire.Result) {
	b, err := json.Marshal(res)
	if err != nil {
		return
	}
	_ = wire.WriteFrame(w, wire.FrameResult, b)
}

// run starts the command and stays until nothing of it lives.
func (a *Agent) run(w http.ResponseWriter, cmd *exec.Cmd, req *wire.Step, s *step) (res wire.Result) {
	defer close(s.done)
	out, err := newPipes(cmd)
	if err != nil {
		return wire.Result{Error: err.Error()}
	}
	if err = a.confine(cmd, req.Limits); err == nil {
		err = a.reap.start(cmd)
	}
	out.started()
	if err != nil {
		out.close()
		return wire.Result{Error: startError(err, cmd, req)}
	}
	sent := make(chan struct{})
	go func() { defer close(sent); out.send(w, s) }()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	why := a.watch(cmd, req, s, ended)
	res.LeftOver = cutNames(a.reap.endAll(cmd.Process.Pid))
	// What held the pipes has been ended: the rest of the output comes at once.
	out.finish()
	t := time.NewTimer(drainMost)
	defer t.Stop()
	select {
	case <-sent:
	case <-t.C:
		out.close()
		<-sent
	}
	out.close()
	describe(&res, cmd, why)
	if a.group != nil {
		text := a.group.explain(req.Limits) // counted also when nobody asks
		if text != "" && why == notStopped && (res.ExitCode == nil || *res.ExitCode != 0) {
			res.Error = text
		}
	}
	return res
}

// confine has a step begin in the group of the steps, within the job's limits.
func (a *Agent) confine(cmd *exec.Cmd, l wire.Limits) error {
	if a.group == nil {
		if l != (wire.Limits{}) {
			return errNoGroup
		}
		return nil
	}
	if err := a.group.limit(l); err != nil {
		return err
	}
	a.group.contain(cmd)
	return nil
}

var errNoGroup = errors.New("limits cannot be kept here: they need agents that systemd starts in control groups of their own (server.agent: {test, deploy} with the sockets of the units)")

// watch waits until the process has ended, and ends it when it must. A child
// that keeps the pipes open does not keep the step.
func (a *Agent) watch(cmd *exec.Cmd, req *wire.Step, s *step, ended chan error) (why stopReason) {
	pid := cmd.Process.Pid
	var timeout <-chan time.Time
	if req.Timeout > 0 {
		t := time.NewTimer(time.Duration(req.Timeout) * time.Millisecond)
		defer t.Stop()
		timeout = t.C
	}
	var kill, look <-chan time.Time
	end := func(reason stopReason) {
		if why != notStopped {
			return
		}
		why = reason
		_ = unix.Kill(-pid, unix.SIGTERM)
		kill = time.After(stepGrace)
	}
	for {
		select {
		case <-ended:
			ended = nil
			a.reap.waited(pid)
			if why == notStopped || kill == nil {
				return why
			}
			// A shell dies of the signal at once; what it was running has the
			// rest of the grace to end as it wants.
			t := time.NewTicker(groupLook)
			defer t.Stop()
			look = t.C
		case <-look:
			if errors.Is(unix.Kill(-pid, 0), unix.ESRCH) {
				return why
			}
		case <-timeout:
			timeout = nil
			end(stopTimeout)
		case reason := <-s.term:
			end(reason)
		case <-kill:
			kill = nil
			_ = unix.Kill(-pid, unix.SIGKILL)
			if ended == nil {
				return why
			}
			_ = cmd.Process.Kill() // it may have left its group
		}
	}
}

// cutNames bounds the names of what a step left running.
func cutNames(names []string) []string {
	if n := len(names); n > wire.LeftOverMost {
		names = append(names[:wire.LeftOverMost-1:wire.LeftOverMost-1], fmt.Sprintf("and %d more processes", n-wire.LeftOverMost+1))
	}
	return names
}

// describe says how the process ended.
func describe(res *wire.Result, cmd *exec.Cmd, why stopReason) {
	switch why {
	case stopTimeout:
		res.TimedOut = true
	case stopCanceled:
		res.Canceled = true
	case stopOutput:
		res.Error = fmt.Sprintf("ended: it printed more than %d GiB", wire.OutputMost>>30)
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return
	}
	if status.Signaled() {
		res.Signal = signalName(status.Signal())
		return
	}
	code := status.ExitStatus()
	res.ExitCode = &code
	if why == notStopped {
		res.Error = exitSentence(code, cmd.Env)
	}
}

// signalName names a signal, also those that have no name of their own.
func signalName(s syscall.Signal) string {
	const first = 34 // SIGRTMIN, as shells count
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIGRTMIN+%d", int(s)-first)
}

// exitSentence says what an exit status means in which shells say more than
// that a command failed; empty for all others.
func exitSentence(code int, env []string) string {
	switch {
	case code == 127:
		return "exit status 127: a command was not found; PATH is " + lookup(env, "PATH")
	case code == 126:
		return "exit status 126: a command is not executable"
	case code > 128 && code-128 <= 31:
		name := unix.SignalName(syscall.Signal(code - 128))
		if name == "SIGKILL" {
			name += "; was it out of memory?"
		}
		return fmt.Sprintf("exit status %d: a command was ended by %s", code, name)
	}
	return ""
}

// startError says why a process could not be started.
func startError(err error, cmd *exec.Cmd, req *wire.Step) string {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return tooLarge(cmd.Env)
	case errors.Is(err, fs.ErrNotExist):
		if _, serr := os.Stat(cmd.Dir); serr != nil {
			return fmt.Sprintf("the working directory %s is not there", cmd.Dir)
		}
		return fmt.Sprintf("the shell %q is not there", req.Shell)
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Sprintf("the shell %q was not found; PATH is %s", req.Shell, os.Getenv("PATH"))
	}
	return err.Error()
}

// tooLarge says which variable a process cannot be given.
func tooLarge(env []string) string {
	total := 0
	for _, kv := range env {
		total += len(kv) + 1
		if name, _, _ := strings.Cut(kv, "="); len(kv) >= valueMost {
			return fmt.Sprintf("the variable %s has %d bytes: one variable holds 128 KiB at most", name, len(kv)-len(name)-1)
		}
	}
	return fmt.Sprintf("the environment is too large for a process: %d variables of %d bytes together", len(env), total)
}

// command makes the process of a step; cleanup removes its script, if any.
func (a *Agent) command(req *wire.Step, out *outputFile) (*exec.Cmd, func(), error) {
	cleanup := func() {}
	argv, script, err := shellCommand(req.Shell, req.Command)
	if err != nil {
		return nil, cleanup, err
	}
	if script {
		dir, err := a.workDir()
		if err != nil {
			return nil, cleanup, fmt.Errorf("making the step's script: %w", err)
		}
		f, err := os.CreateTemp(dir, "step-")
		if err != nil {
			return nil, cleanup, fmt.Errorf("making the step's script: %w", err)
		}
		_, err = f.WriteString(req.Command + "\n")
		cleanup = func() { os.Remove(f.Name()) }
		if err = errors.Join(err, f.Close()); err != nil {
			cleanup()
			return nil, func() {}, fmt.Errorf("making the step's script: %w", err)
		}
		for i := range argv {
			argv[i] = strings.ReplaceAll(argv[i], "{0}", f.Name())
		}
	}
	env := a.environment(req)
	if out != nil {
		env = last(append(env, deploy.OutputVariable+"="+out.path))
	}
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Dir: req.Dir, Env: env, SysProcAttr: &syscall.SysProcAttr{
		Setsid: true, // a process group of its own, and no terminal at which it could ask for a password
	}}
	if !strings.Contains(argv[0], "/") {
		found, err := findIn(lookup(env, "PATH"), argv[0])
		if err != nil {
			cleanup()
			return nil, func() {}, fmt.Errorf("the shell %q was not found; PATH is %s", argv[0], lookup(env, "PATH"))
		}
		cmd.Path = found
	}
	return cmd, cleanup, nil
}

// shellCommand gives the arguments of a shell; script says that {0} in them
// stands for a file with the command.
func shellCommand(shell, command string) (argv []string, script bool, err error) {
	f := strings.Fields(shell)
	if len(f) == 0 {
		f = []string{"sh"}
		if _, err := exec.LookPath("bash"); err == nil {
			f[0] = "bash"
		}
	}
	if slices.ContainsFunc(f, func(s string) bool { return strings.Contains(s, "{0}") }) {
		return f, true, nil
	}
	if len(f) == 1 && f[0] == "bash" {
		f = []string{"bash", "-eo", "pipefail"}
	} else if len(f) == 1 && f[0] == "sh" {
		f = []string{"sh", "-e"}
	}
	if len(command) > commandMost {
		return append(f, "{0}"), true, nil
	}
	return append(f, "-c", command), false, nil
}

// base are the variables that the agent has and a step gets.
var base = []string{"PATH", "HOME", "LANG", "USER", "SHELL", "TMPDIR"}

func (a *Agent) environment(req *wire.Step) []string {
	var env []string
	for _, name := range base {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	if os.Getenv("HOME") == "" || os.Getenv("USER") == "" {
		if u, err := user.Current(); err == nil {
			env = append(env, "HOME="+u.HomeDir, "USER="+u.Username)
		}
	}
	// Users of services have none that runs anything.
	switch filepath.Base(os.Getenv("SHELL")) {
	case "nologin", "false":
		env = append(env, "SHELL=/bin/sh")
	}
	env = append(env, req.Env...)
	if len(req.Path) > 0 {
		env = append(env, "PATH="+strings.Join(append(slices.Clone(req.Path), lookup(env, "PATH")), ":"))
	}
	a.mu.Lock()
	for _, name := range req.Files {
		if path := a.files[name]; path != "" {
			env = append(env, name+"="+path)
		}
	}
	a.mu.Unlock()
	return last(append(env, wire.MarkerVariable+"="+a.nonce))
}

// last keeps the last value of each variable.
func last(env []string) []string {
	at := map[string]int{}
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

func findIn(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fs.ErrNotExist
}
