package daemon_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/host/hosttest"
	"deployhook/internal/release"
	"deployhook/internal/web"
)

// fleet is a site whose jobs deploy to hosts over SSH. The hosts are one
// machine, and each sees a directory of its own at the site's srv.
type fleet struct {
	*site
	hosts []*hosttest.Server
	yaml  string
}

// newFleet makes hosts web1, web2 and so on.
func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{site: newSite(t)}
	if err := os.Mkdir(f.path("srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("web%d", i+1)
		s := hosttest.Start(t, hosttest.Options{
			Name: name, Env: []string{"FAILPOINT=" + f.path("failpoint-"+name)},
			Mount: `mount --bind "$HOME/../root" ` + f.path("srv"),
		})
		f.hosts = append(f.hosts, s)
		f.yaml += s.YAML()
		seed(t, s)
	}
	t.Cleanup(f.stop) // before the hosts' directories are removed
	return f
}

// behind puts a proxy before a host.
func (f *fleet) behind(i int) *hosttest.Proxy {
	f.t.Helper()
	p := hosttest.NewProxy(f.t, f.hosts[i])
	f.yaml = strings.Replace(f.yaml, fmt.Sprintf("port: %d\n", f.hosts[i].Port), fmt.Sprintf("port: %d\n", p.Port), 1)
	return p
}

// restarted lists what a host was restarted on so far.
func (f *fleet) restarted(i int) string {
	b, _ := os.ReadFile(f.path("restarts-" + f.hosts[i].Name))
	return strings.Join(strings.Fields(strings.ReplaceAll(string(b), " ", "-")), " ")
}

// ownProgram is this test's binary, and its hash.
var ownProgram = sync.OnceValues(func() (path string, sum string) {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	f, err := os.Open(exe)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		panic(err)
	}
	return exe, hex.EncodeToString(h.Sum(nil))
})

// seed puts the agent's program where a host has it after its first job: the
// test's binary is large, and most tests are not about copying it.
func seed(t *testing.T, s *hosttest.Server) {
	t.Helper()
	exe, sum := ownProgram()
	dir := filepath.Join(s.Home, ".cache", "deployhook")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_ = os.Link(exe, filepath.Join(dir, "agent-"+sum)) // else it is copied over SSH
}

// config is the site's, with the hosts; jobs may replace its jobs.
func (f *fleet) config(jobs string) string {
	if jobs == "" {
		jobs = `
      deploy:
        hosts: [` + strings.Join(f.names(), ", ") + `]
        release: ` + f.path("srv") + `
        steps: [ { run: "cp index.txt built.txt" } ]
        restart: '` + f.restarts() + `; ! grep -q "crash.*$DEPLOYHOOK_HOST" index.txt'
` + f.extra
	}
	return f.site.config(jobs) + "hosts:\n" + f.yaml
}

// restarts notes a restart of a host, with what is live by then.
func (f *fleet) restarts() string {
	return `echo "$(cat ` + f.current() + `/index.txt)" >> ` + f.path("restarts-$DEPLOYHOOK_HOST") + `; cd ` + f.current()
}

func (f *fleet) names() []string {
	var list []string
	for _, h := range f.hosts {
		list = append(list, h.Name)
	}
	return list
}

// on is what is live on a host, which must be whole; empty: nothing is.
func (f *fleet) on(i int) string {
	f.t.Helper()
	root := f.hosts[i].Root
	target, err := os.Readlink(filepath.Join(root, "current"))
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		f.t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(root, target, "index.txt"))
	if err != nil {
		f.t.Fatalf("current of %s points to %s, which is not whole: %v", f.hosts[i].Name, target, err)
	}
	built, err := os.ReadFile(filepath.Join(root, target, "built.txt"))
	if err != nil || string(index) != string(built) {
		f.t.Fatalf("current of %s points to %s, whose steps did not all run: %v", f.hosts[i].Name, target, err)
	}
	return strings.TrimSpace(string(index))
}

// wantOn says what must be live on each host.
func (f *fleet) wantOn(texts ...string) {
	f.t.Helper()
	for i, want := range texts {
		f.wantOnHost(i, want)
	}
}

// everywhere says what must be live on all hosts.
func (f *fleet) everywhere(text string) {
	f.t.Helper()
	for i := range f.hosts {
		f.wantOnHost(i, text)
	}
}

func (f *fleet) wantOnHost(i int, text string) {
	f.t.Helper()
	if got := f.on(i); got != text {
		f.t.Errorf("%q is live on %s, want %q\n%s", got, f.hosts[i].Name, text, f.log)
	}
}

// failAt has the next agent on a host that comes to a moment of a switch kill
// who: the daemon, itself, or both.
func (f *fleet) failAt(i int, who, point string) {
	f.t.Helper()
	f.write("failpoint-"+f.hosts[i].Name, fmt.Sprintf("%s %s %d", who, point, f.cmd.Process.Pid))
}

// farFailpoint is [failpoint] for an agent over SSH, which reads at each moment
// what a file asks for.
func farFailpoint(file string) {
	if file == "" {
		return
	}
	release.Failpoint = func(name string) {
		b, err := os.ReadFile(file)
		words := strings.Fields(string(b))
		if err != nil || len(words) != 3 || words[1] != name {
			return
		}
		os.Remove(file) // once
		pid, err := strconv.Atoi(words[2])
		if err == nil && words[0] != "agent" {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		switch words[0] {
		case "agent", "both":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case "halt": // the daemon, and the agent comes no further
			time.Sleep(time.Minute)
		}
	}
}

// clockAhead is a clock that is that much ahead of this machine's, which the
// hosts have: to the daemon, all of theirs are off.
func clockAhead(by string) func() time.Time {
	ahead, err := time.ParseDuration(by)
	if err != nil {
		return nil
	}
	return func() time.Time { return time.Now().Add(ahead) }
}

// timeAfter is the time in so many seconds as names of releases have it.
func timeAfter(seconds int) string {
	return time.Now().UTC().Add(time.Duration(seconds) * time.Second).Format("20060102T150405Z")
}

// wantLong is want for a run that may take as long as a lost agent may live.
func (f *fleet) wantLong(id int64, state string) web.Run {
	f.t.Helper()
	f.untilLong("the run has ended", func() bool { r, err := f.client.Run(f.t.Context(), id); return err == nil && terminal(r.State) })
	return f.want(id, state)
}

// untilLong is until for what may take as long as a lost agent may live.
func (f *fleet) untilLong(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("waited in vain until %s\n%s", what, f.log)
		}
	}
}
