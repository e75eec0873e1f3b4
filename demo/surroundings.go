package main

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

// usual is a directory for temporary files in which a socket's path fits into
// the kernel's 108 bytes, and that a release path may have.
var usual = regexp.MustCompile(`^/[A-Za-z0-9._/-]{0,50}$`)

// directory makes the directory of the demo.
func directory() (string, error) {
	in := os.TempDir()
	if !usual.MatchString(in) {
		in = "/tmp"
	}
	return os.MkdirTemp(in, "deployhook-demo-")
}

// environment is what the demo's programs get of the one that it was started
// in: nothing that makes git look at another repository or sign, deployhook
// read other settings, or Go build for another machine.
func environment(all []string) []string {
	var env []string
	for _, v := range all {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "GIT_"), strings.HasPrefix(name, "DEPLOYHOOK_"),
			name == "GOOS", name == "GOARCH", name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == "LISTEN_FDS", name == "LISTEN_PID":
			continue
		}
		env = append(env, v)
	}
	return append(env, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
}

// starts takes what is to be started in one thread that lives as long as the
// demo: a child is told of its parent's death when the thread dies that
// started it.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for f := range starts {
			f()
		}
	}()
}

// start starts a program that must not outlive the demo.
func start(cmd *exec.Cmd) error {
	done := make(chan error)
	starts <- func() { done <- cmd.Start() }
	return <-done
}
