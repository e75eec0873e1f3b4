package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

const (
	stepGrace   = 10 * time.Second       // between SIGTERM and SIGKILL
	drainTime   = 250 * time.Millisecond // for output that is on its way when the process has ended
	outputMost  = 4 << 30                // bytes of a step's output: then it is ended
	outputChunk = 32 << 10
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

// output is a piece of what a step printed.
type output struct {
	kind byte
	data []byte
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
	cmd, cleanup, err := a.command(&req)
	if err != nil {
		w.WriteHeader(http.StatusOK)
		a.result(w, wire.Result{Error: err.Error()})
		return
	}
	defer cleanup()
	s := &step{done: make(chan struct{}), term: make(chan stopReason, 1)}
	a.mu.Lock()
	a.steps[req.ID] = s
	if a.canceled[req.ID] {
		s.stop(stopCanceled) // it was canceled before it came here
	}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.steps, req.ID)
		a.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	a.result(w, a.run(w, cmd, &req, s))
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
	outR, outW, err := os.Pipe()
	if err != nil {
		return wire.Result{Error: err.Error()}
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return wire.Result{Error: err.Error()}
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = a.reap.start(cmd)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return wire.Result{Error: startError(err, cmd, req)}
	}
	chunks := make(chan output)
	stop := make(chan struct{}) // nobody reads chunks any more
	var readers sync.WaitGroup
	readers.Go(func() { pump(outR, wire.FrameStdout, chunks, stop) })
	readers.Go(func() { pump(errR, wire.FrameStderr, chunks, stop) })
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eof := make(chan struct{})
	go func() { readers.Wait(); close(eof) }()

	why := a.watch(w, cmd, req, s, chunks, ended, eof)
	res.LeftOver = a.reap.endAll()
	// What still holds the pipes has been ended: the rest comes at once.
	drain(w, chunks, eof)
	close(stop)
	outR.Close()
	errR.Close()
	<-eof
	describe(&res, cmd, why)
	return res
}

// watch passes output on until the process has ended, and ends it when it
// must. A child that keeps the pipes open does not keep the step.
func (a *Agent) watch(w http.ResponseWriter, cmd *exec.Cmd, req *wire.Step, s *step, chunks chan output, ended chan error, eof chan struct{}) (why stopReason) {
	var timeout <-chan time.Time
	if req.Timeout > 0 {
		t := time.NewTimer(time.Duration(req.Timeout) * time.Millisecond)
		defer t.Stop()
		timeout = t.C
	}
	var kill <-chan time.Time
	end := func(reason stopReason) {
		if why != notStopped {
			return
		}
		why = reason
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
		t := time.NewTimer(stepGrace)
		kill = t.C
	}
	total := int64(0)
	flusher := http.NewResponseController(w)
	for {
		select {
		case <-ended:
			a.reap.waited(cmd.Process.Pid)
			return why
		case c := <-chunks:
			if total += int64(len(c.data)); total > outputMost {
				end(stopOutput)
				continue
			}
			if err := wire.WriteFrame(w, c.kind, c.data); err != nil {
				end(stopCanceled) // nobody listens: the connection has ended
				continue
			}
			_ = flusher.Flush()
		case <-timeout:
			timeout = nil
			end(stopTimeout)
		case reason := <-s.term:
			end(reason)
		case <-kill:
			kill = nil
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			// It may have left its group.
			_ = cmd.Process.Kill()
		}
	}
}

// pump reads a pipe until its end.
func pump(r io.Reader, kind byte, chunks chan<- output, stop <-chan struct{}) {
	for {
		buf := make([]byte, outputChunk)
		n, err := r.Read(buf)
		if n > 0 {
			select {
			case chunks <- output{kind, buf[:n]}:
			case <-stop:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// drain passes on what is left in the pipes, for a short time.
func drain(w io.Writer, chunks <-chan output, eof <-chan struct{}) {
	t := time.NewTimer(drainTime)
	defer t.Stop()
	for {
		select {
		case c := <-chunks:
			if wire.WriteFrame(w, c.kind, c.data) != nil {
				return
			}
		case <-eof:
			return
		case <-t.C:
			return
		}
	}
}

// describe says how the process ended.
func describe(res *wire.Result, cmd *exec.Cmd, why stopReason) {
	switch why {
	case stopTimeout:
		res.TimedOut = true
	case stopCanceled:
		res.Canceled = true
	case stopOutput:
		res.Error = fmt.Sprintf("ended: it printed more than %d GiB", outputMost>>30)
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return
	}
	if status.Signaled() {
		res.Signal = unix.SignalName(status.Signal())
		return
	}
	code := status.ExitStatus()
	res.ExitCode = &code
	if why == notStopped && code == 127 {
		res.Error = "exit status 127: a command was not found; PATH is " + lookup(cmd.Env, "PATH")
	}
	if why == notStopped && code == 126 {
		res.Error = "exit status 126: a command is not executable"
	}
}

// startError says why a process could not be started.
func startError(err error, cmd *exec.Cmd, req *wire.Step) string {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return "the environment is too large for a process: one variable holds 128 KiB at most"
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

// command makes the process of a step; cleanup removes its script, if any.
func (a *Agent) command(req *wire.Step) (*exec.Cmd, func(), error) {
	cleanup := func() {}
	argv, script, err := shellCommand(req.Shell, req.Command)
	if err != nil {
		return nil, cleanup, err
	}
	if script {
		f, err := os.CreateTemp(a.workDir(), "step-")
		if err != nil {
			return nil, cleanup, err
		}
		_, err = f.WriteString(req.Command + "\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, cleanup, err
		}
		cleanup = func() { os.Remove(f.Name()) }
		for i := range argv {
			argv[i] = strings.ReplaceAll(argv[i], "{0}", f.Name())
		}
	}
	env := a.environment(req)
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Dir: req.Dir, Env: env, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
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
	switch f := strings.Fields(shell); {
	case len(f) == 0:
		if _, err := exec.LookPath("bash"); err == nil {
			return []string{"bash", "-eo", "pipefail", "-c", command}, false, nil
		}
		return []string{"sh", "-e", "-c", command}, false, nil
	case slices.ContainsFunc(f, func(s string) bool { return strings.Contains(s, "{0}") }):
		return f, true, nil
	case len(f) == 1 && f[0] == "bash":
		return []string{"bash", "-eo", "pipefail", "-c", command}, false, nil
	case len(f) == 1 && f[0] == "sh":
		return []string{"sh", "-e", "-c", command}, false, nil
	default:
		return append(f, "-c", command), false, nil
	}
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
