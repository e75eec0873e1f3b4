package daemon_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestDaemonReportsItselfItsAgentsAndTheirPaths(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	d, err := s.client.Daemon(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.PID != s.cmd.Process.Pid || d.Listen != s.addr || d.Config != s.configFile() || len(d.Digest) != 64 || d.User == "" || time.Since(d.Started) > time.Hour {
		t.Errorf("the daemon says %+v", d)
	}
	agents, err := s.client.Agents(t.Context())
	if err != nil || len(agents) != 2 {
		t.Fatalf("%+v, %v", agents, err)
	}
	for _, a := range agents {
		if a.Error != "" || a.Version == "" || a.Version != d.Version || a.UID != os.Getuid() || a.Socket != "" {
			t.Errorf("the agent says %+v", a)
		}
	}
	if p := agents[1].Paths; len(p) != 1 || p[0].Path != s.path("srv") || p[0].Error != "" || p[0].Bytes <= 0 || len(agents[0].Paths) != 0 {
		t.Errorf("paths: %+v", agents)
	}
	if _, err := os.Stat(s.path("srv")); err == nil {
		t.Error("asking made the release path")
	}
	// A config that was reloaded counts.
	was := d.Digest
	if err := os.WriteFile(s.configFile(), []byte(strings.ReplaceAll(s.config(""), s.path("srv"), s.path("data/deployhook.db"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := s.client.Daemon(t.Context()); err != nil || d.Digest == was {
		t.Errorf("after a reload the config in force is %s, %v", d.Digest, err)
	}
	if agents, err := s.client.Agents(t.Context()); err != nil || !strings.Contains(agents[1].Paths[0].Error, "is not a directory") {
		t.Errorf("a path that cannot be written: %+v, %v", agents, err)
	}
}

func TestProbeOfSizeCountsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config(""))
	const path = "/hooks/-size"
	probe := func(method string, size int) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+s.addr+path, bytes.NewReader(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	for range 100 { // many more than wrong tokens may come in a minute
		if status, text := probe(http.MethodPost, 3); status != 200 || text != "{\"bytes\":3}\n" {
			t.Fatalf("%d %s", status, text)
		}
	}
	if status, text := probe(http.MethodPost, 25<<20); status != 200 || text != "{\"bytes\":26214400}\n" {
		t.Errorf("25 MiB: %d %s", status, text)
	}
	if status, _ := probe(http.MethodPost, 25<<20+1); status != 413 {
		t.Errorf("a byte more: %d", status)
	}
	if status, _ := probe(http.MethodGet, 0); status != 405 {
		t.Errorf("GET: %d", status)
	}
	// One at a time: a second is told to come later, and the first goes on.
	first, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(first, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab"); err != nil {
		t.Fatal(err)
	}
	s.until("the first is being read", func() bool { status, _ := probe(http.MethodPost, 3); return status == 503 })
	first.Close()
	s.until("the first is over", func() bool { status, _ := probe(http.MethodPost, 3); return status == 200 })
	if log := s.log.String(); strings.Contains(log, "refused") || strings.Contains(log, "-size") {
		t.Errorf("the log has it:\n%s", log)
	}
	// The limit on wrong signatures was not touched.
	s.want(s.push("one"), "succeeded")
}
