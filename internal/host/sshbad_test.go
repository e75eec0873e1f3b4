package host_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// fakes makes a directory with programs, to be put before PATH.
func fakes(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sentence opens an agent that must not come, and gives the reason.
func sentence(t *testing.T, h *host.Hosts, far *deploy.Host) error {
	t.Helper()
	c, err := h.Open(t.Context(), far, deploy.DeployAgent)
	if err == nil {
		c.Close()
		t.Fatal("an agent was opened")
	}
	if text := err.Error(); strings.ContainsAny(text, "\n\x1b") || len(text) > 1000 || !strings.HasPrefix(text, "host "+far.Name+": ") || strings.Contains(text, "ssh: ") {
		t.Errorf("%q is not a sentence for people", text)
	}
	return err
}

func TestWhatIsWrongWithAHostIsOneSentence(t *testing.T) {
	t.Parallel()
	path := func(programs map[string]string) string {
		return "PATH=" + fakes(t, programs) + ":/usr/bin:/bin:/usr/sbin"
	}
	other := map[string]string{"amd64": "aarch64", "arm64": "x86_64"}[runtime.GOARCH]
	otherArch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	bare := fakes(t, map[string]string{"uname": `/usr/bin/uname "$@"`, "sh": `exec /bin/sh "$@"`})
	h := copies(t, smallProgram(t))
	for what, tt := range map[string]struct {
		o    hosttest.Options
		want string // a pattern
	}{
		"a forced command":        {hosttest.Options{Command: "echo only backups here"}, `its login runs something else than what it is asked for \(a forced command, or a shell that is none\), which ended with exit status 0 and said: only backups here$`},
		"a silent forced command": {hosttest.Options{Command: "exit 3"}, `its login runs something else .*, which ended with exit status 3$`},
		"no shell":                {hosttest.Options{Command: "exec /usr/sbin/nologin"}, `its login runs something else .*: This account is currently not available\.$`},
		"SFTP only":               {hosttest.Options{Config: []string{"ForceCommand internal-sftp"}}, `its login runs something else|no agent answered`},
		"a restricted shell":      {hosttest.Options{Command: `exec bash -r -c "$SSH_ORIGINAL_COMMAND"`}, `its user has a restricted shell, which runs nothing of deployhook's: .*exec: restricted$`},
		"another architecture":    {hosttest.Options{Env: []string{path(map[string]string{"uname": "echo Linux " + other})}}, `its architecture is ` + otherArch + `, and the program for it is not at /.*/deployhook-linux-` + otherArch + `: the archive`},
		"an unknown architecture": {hosttest.Options{Env: []string{path(map[string]string{"uname": "echo Linux vax"})}}, `there is no deployhook for its architecture, vax$`},
		"another system":          {hosttest.Options{Env: []string{path(map[string]string{"uname": "echo FreeBSD amd64"})}}, `it runs FreeBSD: steps run on Linux only$`},
		"no tools":                {hosttest.Options{Env: []string{"PATH=" + bare}}, `its user's PATH has no sha256sum$`},
		"no home":                 {hosttest.Options{Env: []string{"HOME=/no/such/home"}}, `the home of its user, /no/such/home, is not there`},
		"a home not writable":     {hosttest.Options{Env: []string{"HOME=/proc"}}, `the agent's program cannot be written to /proc/.cache/deployhook \(mkdir: .*\): it is kept in`},
		"a home on a noexec disk": {hosttest.Options{Mount: `mount -t tmpfs -o noexec,size=500m none "$HOME"`}, `the agent's program cannot be run in the user's cache directory: is that file system mounted noexec\? .*Permission denied\)$`},
		"a full disk":             {hosttest.Options{Mount: `mount -t tmpfs -o size=1m none "$HOME"`}, `there is no room for the agent's program at .*No space left on device\)$`},
		"a read-only disk":        {hosttest.Options{Mount: `mount -t tmpfs -o ro none "$HOME"`}, `the agent's program cannot be written to .*Read-only file system\)`},
		"state on a read-only disk": {hosttest.Options{Mount: `mount -t tmpfs -o ro none "$HOME"; export XDG_CACHE_HOME=` + t.TempDir()},
			`starting an agent: deployhook agent: making a directory to work in: .*read-only file system$`},
		"no sessions":        {hosttest.Options{Config: []string{"MaxSessions 0"}}, `its sshd opens no session \(.*\): is MaxSessions 0`},
		"old algorithms":     {hosttest.Options{Config: []string{"Ciphers aes128-cbc"}}, `and deployhook have no algorithm in common \(.*cipher.*\): its sshd is too old`},
		"algorithms of 2010": {hosttest.Options{Config: []string{"KexAlgorithms diffie-hellman-group14-sha1"}}, `have no algorithm in common \(key exchange\)`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := hosttest.Start(t, tt.o)
			err := sentence(t, h, s.Host())
			if !regexp.MustCompile(tt.want).MatchString(err.Error()) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if errors.Is(err, host.ErrUnreachable) {
				t.Errorf("%v passes for a host that may come back", err)
			}
			if left, _ := filepath.Glob(filepath.Join(s.Home, ".cache", "deployhook", ".new-*")); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

func TestHostThatIsNotThereMayComeBack(t *testing.T) {
	t.Parallel()
	h := near(t)
	down := hosttest.Start(t, hosttest.Options{})
	down.Down()
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangsUp.Close()
	go func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	at := func(l net.Listener) *deploy.Host {
		far := down.Host()
		far.Port = l.Addr().(*net.TCPAddr).Port
		return far
	}
	unknown := down.Host()
	unknown.Address = "web1.invalid"
	for what, tt := range map[string]struct {
		far  *deploy.Host
		want string
	}{
		"down":     {down.Host(), "refuses the connection: is the machine up, and does sshd listen on port "},
		"unknown":  {unknown, "the name web1.invalid "},
		"hangs up": {at(hangsUp), "ended the connection before it let deployhook in"},
	} {
		t.Run(what, func(t *testing.T) {
			err := sentence(t, h, tt.far)
			if !strings.Contains(err.Error(), tt.want) || !errors.Is(err, host.ErrUnreachable) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	// Each time anew.
	down.Up()
	openFar(t, h, down.Host())
}

func asHostKey(err error, key **host.HostKeyError) bool { return errors.As(err, key) }
