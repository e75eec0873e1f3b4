package host_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
	"deployhook/internal/host/hosttest"
)

// readSecret reads a private key from its file.
func readSecret(_ context.Context, s deploy.Secret) (string, error) {
	b, err := os.ReadFile(s.File)
	return string(b), err
}

// near is a near end for hosts over SSH.
func near(t *testing.T) *host.Hosts {
	t.Helper()
	h := host.New(host.Options{State: t.TempDir(), Log: quiet(), Secret: readSecret, Version: "1.2"})
	t.Cleanup(h.Close)
	return h
}

func openFar(t *testing.T, h *host.Hosts, far *deploy.Host) *host.Conn {
	t.Helper()
	c, err := h.Open(t.Context(), far, deploy.DeployAgent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStepRunsOverSSH(t *testing.T) {
	t.Parallel()
	s := hosttest.Start(t, hosttest.Options{})
	h := near(t)
	for range 2 {
		c := openFar(t, h, s.Host())
		ws, err := c.OpenWorkspace(t.Context(), "1-test-1")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(ws, s.Home+"/.local/state/deployhook/") {
			t.Errorf("the workspace is %s", ws)
		}
		res, o := run(t, c, host.Step{Dir: ws, Command: "echo $HOME; exit 3"})
		if res.ExitCode == nil || *res.ExitCode != 3 || o.stdout() != s.Home+"\n" {
			t.Errorf("%+v, %q", res, o.stdout())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(ws); err == nil {
			t.Error("the workspace is still there")
		}
	}
}

func BenchmarkOpenOverSSH(b *testing.B) {
	s := hosttest.Start(b, hosttest.Options{})
	h := host.New(host.Options{State: b.TempDir(), Log: quiet(), Secret: readSecret, Program: smallProgram(b)})
	defer h.Close()
	for b.Loop() {
		c, err := h.Open(b.Context(), s.Host(), deploy.DeployAgent)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
