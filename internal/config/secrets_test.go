package config

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretsAreReadFromTheirSource(t *testing.T) {
	t.Setenv("A_SECRET", "from the variable")
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(write(t, "cred", "from systemd\n")))
	for _, tt := range []struct {
		secret deploy.Secret
		want   string
	}{
		{deploy.Secret{Environment: "A_SECRET"}, "from the variable"},
		{deploy.Secret{Credential: "cred"}, "from systemd"},
		{deploy.Secret{File: write(t, "f", "one\n")}, "one"},
		{deploy.Secret{File: write(t, "f", "crlf\r\n")}, "crlf"},
		{deploy.Secret{File: write(t, "f", "two\nlines\n\n")}, "two\nlines\n"},
		{deploy.Secret{Command: "printf '%s\\n' \"$A_SECRET\"; echo noise >&2"}, "from the variable"},
		{deploy.Secret{File: write(t, "f", strings.Repeat("x", 64<<10))}, strings.Repeat("x", 64<<10)},
	} {
		if got, err := Resolve(t.Context(), tt.secret); err != nil || got != tt.want {
			t.Errorf("%+v = %.40q, %v; want %.40q", tt.secret, got, err, tt.want)
		}
	}
}

func TestSecretsThatCannotBeReadSayWhyAndNotWhat(t *testing.T) {
	const value = "hunter2hunter2hunter2"
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("EMPTY", "")
	t.Setenv("NEWLINE", "\n")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		secret deploy.Secret
		want   string
	}{
		{deploy.Secret{Environment: "NO_SUCH_VARIABLE"}, "secret s: there is no variable NO_SUCH_VARIABLE"},
		{deploy.Secret{Environment: "EMPTY"}, "secret s is empty"},
		{deploy.Secret{Environment: "NEWLINE"}, "secret s is empty"},
		{deploy.Secret{File: "/none"}, "secret s: /none is not there"},
		{deploy.Secret{File: t.TempDir()}, "is not a regular file"},
		{deploy.Secret{File: fifo}, "is not a regular file"},
		{deploy.Secret{File: write(t, "f", value+"\x00")}, "secret s has a NUL byte"},
		{deploy.Secret{File: write(t, "f", strings.Repeat(value, 10_000))}, "secret s: it is over 64 KiB"},
		{deploy.Secret{Credential: "c"}, "secret s: there are no systemd credentials here: the unit needs LoadCredential=c:PATH"},
		{deploy.Secret{Command: "echo " + value + "; echo " + value + " >&2; exit 3"}, "secret s: its command failed: exit status 3"},
		{deploy.Secret{Command: "yes " + value}, "secret s: it is over 64 KiB"},
		{deploy.Secret{Command: "true"}, "secret s is empty"},
		{deploy.Secret{}, "secret s has no source"},
	} {
		tt.secret.Name = "s"
		got, err := Resolve(t.Context(), tt.secret)
		if err == nil || !strings.Contains(err.Error(), tt.want) || got != "" {
			t.Errorf("%+v: %q, %v; want %q", tt.secret, got, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), value) {
			t.Errorf("the value is in %q", err)
		}
	}
}

func TestSecretCommandIsEndedWithItsChildren(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Resolve(ctx, deploy.Secret{Name: "s", Command: "sleep 60 & echo $! > " + pids + "; wait"})
	if err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	// Ended means gone, or a zombie until its new parent looks.
	for deadline := time.Now().Add(5 * time.Second); ; {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the command's child lives: %s", stat)
		}
	}
}

// TestSecretCommandMayLeaveAnAgent is gpg-agent and its kin: they keep
// standard output open.
func TestSecretCommandMayLeaveAnAgent(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	got, err := Resolve(t.Context(), deploy.Secret{Name: "s", Command: "setsid sleep 60 & echo $! > " + pids + "; echo value"})
	if b, err := os.ReadFile(pids); err == nil {
		t.Cleanup(func() {
			var pid int
			for _, c := range strings.TrimSpace(string(b)) {
				pid = pid*10 + int(c-'0')
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		})
	}
	if got != "value" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestHooksDoNotStartWithWeakSecrets(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("GOOD", "0123456789abcdef")
	t.Setenv("SHORT", "0123456789abcde")
	t.Setenv("ONE", "1")
	t.Setenv("EMPTY", "")
	f := parsed(t, `secrets: { tiny: { environment: ONE }, gone: { file: /none }, vault: { command: "false" }, good: { environment: GOOD } }
hooks:
  a: { secret: good }
  b: { secret: { environment: SHORT } }
  c: { secret: good, token: tiny }
  d: { provider: generic, token: { environment: EMPTY } }
  e: { provider: generic, token: { environment: NO_SUCH_VARIABLE } }
  f: { secret: { credential: hook } }
  g: { provider: generic, token: { command: "printf 0123456789abcde" } }
pipelines:
  p:
    repository: github.com/acme/shop
    on: push
    hook: a
    auth: { token: { environment: NO_TOKEN } }
    jobs:
      j: { secrets: { A: { environment: ONE }, B: vault }, steps: [ { run: x } ] }
`)
	errs, warnings := CheckSecrets(t.Context(), f)
	text := func(p Problems) (list []string) {
		for _, x := range p {
			list = append(list, x.String())
		}
		return list
	}
	same(t, text(errs),
		"deploy.yaml:4:18: hooks.b.secret: it has 15 characters, and 16 are the least: make one with openssl rand -hex 32",
		"deploy.yaml:5:29: hooks.c.token: it has 1 character, and 16 are the least: make one with openssl rand -hex 32",
		"deploy.yaml:6:36: hooks.d.token: it is empty",
		"deploy.yaml:7:36: hooks.e.token: there is no variable NO_SUCH_VARIABLE",
		"deploy.yaml:8:18: hooks.f.secret: there are no systemd credentials here: the unit needs LoadCredential=hook:PATH",
		"deploy.yaml:9:36: hooks.g.token: it has 15 characters, and 16 are the least: make one with openssl rand -hex 32",
	)
	var unread []string
	for _, p := range errs {
		if p.Unread {
			unread = append(unread, p.Path)
		}
	}
	if !slices.Equal(unread, []string{"hooks.e.token", "hooks.f.secret"}) {
		t.Errorf("%v are said to be another process's", unread)
	}
	same(t, text(warnings),
		"deploy.yaml:1:48: secrets.gone: /none is not there",
		"deploy.yaml:15:22: pipelines.p.auth.token: there is no variable NO_TOKEN",
		"deploy.yaml:17:28: pipelines.p.jobs.j.secrets.A: it has 1 byte; values under 6 bytes are not masked in logs",
	)
}

// The daemon alone gets credentials: check reads the file that they come from,
// and says nothing where it may not.
func TestCheckReadsWhereCredentialsAreKept(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "hooks: { h: { secret: { credential: hook } } }\n"
	for value, want := range map[string]string{
		"":                                 "deploy.yaml:1:25: hooks.h.secret: it is empty",
		"short\n":                          "deploy.yaml:1:25: hooks.h.secret: it has 5 characters, and 16 are the least: make one with openssl rand -hex 32",
		"0123456789abcdef0123456789abcdef": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "credentials", "hook"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Parse(filepath.Join(dir, "deploy.yaml"), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		errs, _ := CheckSecrets(t.Context(), f)
		var got []string
		for _, e := range errs {
			got = append(got, e.String())
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("a secret of %d characters: %q, want %q", len(value), got, want)
		}
	}
}
