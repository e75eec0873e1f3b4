package web

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deployhook/internal/deploy"
)

func TestReportsOfDaemonAndAgentsComeAsTheyAre(t *testing.T) {
	dir, err := os.MkdirTemp("", "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "control.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	daemon := deploy.DaemonReport{Version: "1.2.3", PID: 7, User: "deployhook", Started: time.Date(2026, 4, 1, 10, 15, 0, 0, time.UTC), Config: "/etc/deployhook/deploy.yaml", Digest: "c0ffee", Listen: "127.0.0.1:8484"}
	agents := []deploy.AgentReport{
		{Kind: deploy.TestAgent, Error: "no agent", Paths: []deploy.Room{}},
		{Kind: deploy.DeployAgent, Socket: "/run/x", Version: "1.2.3", User: "deploy", UID: 63, Home: "/h", Paths: []deploy.Room{{Path: "/srv/shop", Error: "no", Bytes: 1, Inodes: -1}}},
	}
	s := NewServer(Options{
		Report: func() deploy.DaemonReport { return daemon }, Agents: func(context.Context) []deploy.AgentReport { return agents },
		Log: slog.New(slog.DiscardHandler),
	})
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	c := Dial(socket)
	if got, err := c.Daemon(t.Context()); err != nil || got != daemon {
		t.Errorf("%+v, %v", got, err)
	}
	got, err := c.Agents(t.Context())
	if diff := cmp.Diff(agents, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
