package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"deployhook/internal/config"
	"deployhook/internal/web"
)

func TestSocketIsFoundInAFileWithErrors(t *testing.T) {
	for text, want := range map[string]string{
		"server:\n  socket: /run/a.sock\n":                                    "/run/a.sock",
		"server:\n  # a word\n  listen: x\n\n  socket: '/run/a.sock' # why\n": "/run/a.sock",
		"server: { data: /x, socket: \"/run/a.sock\" }\n":                     "/run/a.sock",
		"hooks:\n  socket: /run/b.sock\n":                                     defaultSocket,
		"server:\n  listen: x\nhooks:\n  socket: /run/b.sock\n":               defaultSocket,
		"server:\n  socket:\n":                                                defaultSocket,
		"":                                                                    defaultSocket,
		"\xff\x00":                                                            defaultSocket,
	} {
		if got := socketIn([]byte(text)); got != want {
			t.Errorf("the socket in %q is %q, want %q", text, got, want)
		}
	}
}

func FuzzSocketIn(f *testing.F) {
	for _, s := range []string{"server:\n  socket: /a\n", "server: { socket: /a }", "server:", "{}", "socket: x", "\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if socketIn([]byte(s)) == "" {
			t.Errorf("there is no socket for %q", s)
		}
	})
}

// The default that is used when the file cannot be read is the config's own.
func TestDefaultSocketIsThatOfTheConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deploy.yaml")
	text := "hooks:\n  x: { provider: generic, token: { environment: X } }\npipelines:\n  p:\n    on: { hook: { name: x } }\n    jobs: { a: { steps: [ { run: b } ] } }\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Server.Socket != defaultSocket {
		t.Errorf("the config's default socket is %s, want %s", f.Server.Socket, defaultSocket)
	}
}

func TestConfigWithoutRightsOrAbsentIsSaid(t *testing.T) {
	t.Setenv("DEPLOYHOOK_SERVER_SOCKET", "")
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, config: filepath.Join(t.TempDir(), "none.yaml")}
	_, err := a.client()
	var h hinted
	if !errors.As(err, &h) || errors.As(err, new(*web.Unreachable)) {
		t.Errorf("a config that is not there gives %v, want an error with a hint", err)
	}
}
