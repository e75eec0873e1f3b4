// Command bench measures deployhook next to adnanh/webhook (Debian's package
// webhook) in one run, and prints a table. adnanh/webhook verifies the same
// signature and runs /bin/true; it stores nothing. deployhook has everything on
// disk before it answers. With the words sizes, accepts, starts, output, live,
// fleets, git or year it measures only these, and with events, direct, sick or
// kills notifications.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	secret   = "a-secret-for-the-bench-0123456789"
	loadTime = 4 * time.Second // of each measurement of accepts
	starts   = 300             // POSTs whose process is waited for
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "started" {
		started(os.Args[2])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "git-export" {
		if err := gitExport(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// started tells the bench that this process runs: one datagram.
func started(addr string) {
	c, err := net.Dial("unixgram", addr)
	if err == nil {
		_, _ = c.Write([]byte("started"))
	}
}

type bench struct {
	dir, binary, self string
	rows              [][]string
}

func run() error {
	dir, err := os.MkdirTemp("", "dhbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, binary: filepath.Join(dir, "deployhook"), self: filepath.Join(dir, "bench")}
	for target, pkg := range map[string]string{b.binary: "./cmd/deployhook", b.self: "./bench"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", target, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	for _, part := range []struct {
		name    string
		measure func() error
		apart   bool // only when it is named: with the others it would be an hour
	}{
		{"sizes", b.sizes, false}, {"accepts", b.accepts, false}, {"starts", b.starts, false}, {"output", b.output, false}, {"live", b.live, false},
		{"fleets", b.fleets, false}, {"git", b.git, false}, {"year", b.year, false},
		{"events", b.events, true}, {"direct", b.direct, true}, {"sick", b.sick, true}, {"kills", b.kills, true},
	} {
		named := slices.Contains(os.Args[1:], part.name)
		if !named && (part.apart || len(os.Args) > 1) {
			continue
		}
		if err := part.measure(); err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
	}
	fmt.Printf("\n%s, %d cores, %s, %s\n\n", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), runtime.GOARCH)
	fmt.Println("| what | deployhook | adnanh/webhook | ratio | bound |")
	fmt.Println("|---|---|---|---|---|")
	for _, r := range b.rows {
		fmt.Printf("| %s |\n", strings.Join(r, " | "))
	}
	return nil
}

func (b *bench) row(cells ...string) {
	b.rows = append(b.rows, cells)
	fmt.Fprintln(os.Stderr, strings.Join(cells, "  "))
}

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	addr string
	took time.Duration // from its start to its first answer
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (p *process) start(path string) error {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for end := began.Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		res, err := http.Get("http://" + p.addr + path)
		if err == nil {
			res.Body.Close()
			p.took = time.Since(began)
			return nil
		}
	}
	p.end()
	return fmt.Errorf("%s did not start", p.cmd.Path)
}

func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// rest waits until a process and its children have nothing more to do:
// webhook answers before it runs its commands, and what it still has to run
// would take the processors from whatever is measured next.
func (p *process) rest() {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		before := p.ticks()
		time.Sleep(500 * time.Millisecond)
		if p.ticks() == before {
			return
		}
	}
}

// ticks are the hundredths of a second of processor time that a process and
// its ended children have used.
func (p *process) ticks() (sum int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	for _, field := range f[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(field)
		sum += n
	}
	return sum
}

// memory is what a process holds now and held at most, in MB.
func (p *process) memory() (now, peak float64) { return memoryOf(strconv.Itoa(p.cmd.Process.Pid)) }

// memoryOf is memory of a process by its number; nothing of one that has ended.
func memoryOf(pid string) (now, peak float64) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0, 0
	}
	read := func(key string) float64 {
		_, after, _ := strings.Cut(string(b), key)
		f := strings.Fields(after)
		if len(f) == 0 {
			return 0 // a zombie holds nothing
		}
		kb, _ := strconv.ParseFloat(f[0], 64)
		return kb / 1000
	}
	return read("VmRSS:"), read("VmHWM:")
}

// deployhook starts the daemon with pipelines for what is measured.
func (b *bench) deployhook(name string) (*process, error) { return b.deployhookWith(name, "spawn") }

// deployhookWith reaches its agents in a way: spawn, or a local socket.
func (b *bench) deployhookWith(name, agents string) (*process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, name)
	config := fmt.Sprintf(`server: { listen: "%s", data: %s/data, socket: %s/sock, log: { level: error }, agent: { test: %s, deploy: %s } }
hooks:
  github: { provider: github, secret: { environment: BENCH_SECRET } }
  start: { provider: generic, token: { environment: BENCH_SECRET } }
pipelines:
  shop:
    repository: github.com/acme/shop
    clone_url: /nonexistent
    hook: github
    on: { push: { branches: [\"b-*\"] } }
    jobs:
      test: { steps: [ { run: "true" } ] }
      deploy: { release: %s/srv, steps: [ { run: "true" } ] }
  start:
    on: { hook: { name: start } }
    jobs: { go: { shell: sh, steps: [ { run: "exec %s started %s/started.sock" } ] } }
`, addr, dir, dir, agents, agents, dir, b.self, b.dir)
	return b.serve(name, addr, config)
}

// serve starts the daemon with a configuration, in a directory of its own.
func (b *bench) serve(name, addr, config string) (*process, error) {
	file := filepath.Join(b.dir, name, "deploy.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p := &process{addr: addr, cmd: exec.Command(b.binary, "serve", "--config", file)}
	p.cmd.Env = append(os.Environ(), "BENCH_SECRET="+secret, "BENCH_OTHER=an-0ther/secret+of the bench")
	p.cmd.Stderr = os.Stderr
	return p, p.start("/readyz")
}

// command runs the command line with the file of a daemon of this run.
func (b *bench) command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(b.binary, append(args, "--config", filepath.Join(b.dir, name, "deploy.yaml"))...)
	return cmd.Output()
}

// webhook starts adnanh/webhook with hooks for what is measured.
func (b *bench) webhook() (*process, error) {
	sign := map[string]any{"match": map[string]any{"type": "payload-hmac-sha256", "secret": secret, "parameter": map[string]any{"source": "header", "name": "X-Hub-Signature-256"}}}
	token := map[string]any{"match": map[string]any{"type": "value", "value": secret, "parameter": map[string]any{"source": "url", "name": "token"}}}
	return startWebhook(b.dir,
		map[string]any{"id": "github", "execute-command": "/bin/true", "trigger-rule": sign},
		map[string]any{"id": "start", "execute-command": b.self, "trigger-rule": token,
			"pass-arguments-to-command": []any{map[string]any{"source": "string", "name": "started"}, map[string]any{"source": "string", "name": b.dir + "/started.sock"}}},
	)
}

// startWebhook starts adnanh/webhook, whose file of hooks goes into a directory.
func startWebhook(dir string, hooks ...any) (*process, error) {
	if _, err := exec.LookPath("webhook"); err != nil {
		return nil, errors.New("adnanh/webhook is missing: apt-get install webhook")
	}
	text, err := json.Marshal(hooks)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	file := filepath.Join(dir, "hooks.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	p := &process{addr: addr, cmd: exec.Command("webhook", "-hooks", file, "-ip", host, "-port", port)}
	return p, p.start("/")
}

// mark stands in the template where the number of a push goes.
const mark = "000000feedface000000"

// template is a push of 7.7 KB as GitHub sends it. It is made once: the load
// must not spend its time in the sender, which has the same two cores.
var template = sync.OnceValue(func() []byte {
	commits := []any{}
	for i := range 12 {
		commits = append(commits, map[string]any{
			"id": fmt.Sprintf("%020d", i) + mark, "message": strings.Repeat("a line of a commit message ", 12),
			"author": map[string]any{"name": "somebody", "email": "somebody@example.com"}, "added": []string{"src/a.go"}, "modified": []string{"src/b.go", "README.md"},
		})
	}
	body, err := json.Marshal(map[string]any{
		"ref": "refs/heads/b-" + mark, "before": strings.Repeat("0", 40), "after": mark + mark,
		"repository":  map[string]any{"full_name": "acme/shop", "html_url": "https://github.com/acme/shop", "description": strings.Repeat("x", 1700)},
		"sender":      map[string]any{"login": "somebody"},
		"head_commit": map[string]any{"id": mark + mark, "message": "change"},
		"commits":     commits,
	})
	if err != nil {
		panic(err)
	}
	return body
})

// push is a signed push, each another one.
func push(n int64) (body []byte, signature string) {
	body = bytes.ReplaceAll(template(), []byte(mark), fmt.Appendf(nil, "%020x", n))
	return body, sign(body)
}

// sign is the signature of a body as GitHub gives it.
func sign(body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

type load struct {
	rate     float64
	p50, p99 time.Duration
}

var sequence atomic.Int64

// post sends signed pushes over so many connections.
func post(p *process, connections int) (load, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), loadTime)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	began := time.Now()
	for range connections {
		wg.Go(func() {
			var mine []time.Duration
			for ctx.Err() == nil {
				n := sequence.Add(1)
				body, signature := push(n)
				req, err := http.NewRequest(http.MethodPost, "http://"+p.addr+"/hooks/github", bytes.NewReader(body))
				if err != nil {
					panic(err)
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("X-GitHub-Event", "push")
				req.Header.Set("X-GitHub-Delivery", fmt.Sprint("delivery-", n))
				req.Header.Set("X-Hub-Signature-256", signature)
				at := time.Now()
				res, err := client.Do(req)
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if res.StatusCode/100 != 2 {
						err = fmt.Errorf("answered %d", res.StatusCode)
					}
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if failed != nil {
		return load{}, failed
	}
	return load{rate: float64(len(all)) / time.Since(began).Seconds(), p50: percentile(all, 50), p99: percentile(all, 99)}, nil
}

func percentile(list []time.Duration, p int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// sizes measures binary, start and idle memory.
func (b *bench) sizes() error {
	st, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	b.row("stripped binary", fmt.Sprintf("%.1f MB", float64(st.Size())/1e6), "", "", "≤ 30 MB")
	var ready []time.Duration
	var idle float64
	for i := range 5 {
		p, err := b.deployhook(fmt.Sprint("idle", i))
		if err != nil {
			return err
		}
		ready = append(ready, p.took)
		if i == 4 {
			time.Sleep(10 * time.Second)
			idle, _ = p.memory()
		}
		p.end()
	}
	b.row("READY (median of 5)", ms(percentile(ready, 50)), "", "", "≤ 100 ms")
	b.row("idle memory of the daemon, 10 s after its start", fmt.Sprintf("%.1f MB", idle), "", "", "≤ 25 MB")
	return nil
}

// accepts measures durable accepts next to adnanh/webhook, in turn.
func (b *bench) accepts() error {
	d, err := b.deployhook("accepts")
	if err != nil {
		return err
	}
	defer d.end()
	if _, err := b.command("accepts", "hold", "shop"); err != nil {
		return err
	}
	w, err := b.webhook()
	if err != nil {
		return err
	}
	defer w.end()
	for _, n := range []int{1, 16, 64, 256} {
		ours, err := post(d, n)
		if err != nil {
			return fmt.Errorf("deployhook at %d connections: %w", n, err)
		}
		d.rest()
		theirs, err := post(w, n)
		if err != nil {
			return fmt.Errorf("adnanh/webhook at %d connections: %w", n, err)
		}
		w.rest()
		bound := ""
		if n == 64 {
			bound = "≥ 2×, its p99 ≥ 5 times ours"
		}
		show := func(l load) string { return fmt.Sprintf("%.0f/s, p50 %s, p99 %s", l.rate, ms(l.p50), ms(l.p99)) }
		b.row(fmt.Sprintf("accepts, %d connections", n), show(ours), show(theirs),
			fmt.Sprintf("%.1f× the rate, p99 1/%.1f", ours.rate/theirs.rate, float64(theirs.p99)/float64(ours.p99)), bound)
	}
	_, peak := d.memory()
	b.row("memory under the accept load, peak", fmt.Sprintf("%.1f MB", peak), "", "", "≤ 80 MB")
	return nil
}

// starts measures from a POST to its process, in turn.
func (b *bench) starts() error {
	sock := filepath.Join(b.dir, "started.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer l.Close()
	d, err := b.deployhook("starts")
	if err != nil {
		return err
	}
	defer d.end()
	w, err := b.webhook()
	if err != nil {
		return err
	}
	defer w.end()
	times, err := startTimes(l, d, w)
	if err != nil {
		return err
	}
	p50, p99 := percentile(times[d], 50), percentile(times[d], 99)
	w50, w99 := percentile(times[w], 50), percentile(times[w], 99)
	b.row("POST → step's process starts, p50", ms(p50), ms(w50), fmt.Sprintf("%.2f×", float64(p50)/float64(w50)), "≤ 1.5×")
	b.row("POST → step's process starts, p99", ms(p99), ms(w99), fmt.Sprintf("%.2f×", float64(p99)/float64(w99)), "")
	if os.Getuid() != 0 {
		return nil // only root can stand in systemd's place
	}
	socket, stop, err := b.activate()
	if err != nil {
		return err
	}
	defer stop()
	local, err := b.deployhookWith("local", socket)
	if err != nil {
		return err
	}
	defer local.end()
	if times, err = startTimes(l, d, local); err != nil {
		return err
	}
	s50, l50 := percentile(times[d], 50), percentile(times[local], 50)
	b.row("POST → step's process starts through a local socket, p50, against spawn", ms(l50), "("+ms(s50)+")", fmt.Sprintf("%.2f×", float64(l50)/float64(s50)), "≤ 2×")
	return nil
}

// startTimes measures two servers in turn.
func startTimes(l *net.UnixConn, one, two *process) (map[*process][]time.Duration, error) {
	times := map[*process][]time.Duration{}
	buf := make([]byte, 64)
	for i := range starts + 10 {
		for _, p := range []*process{one, two} {
			at := time.Now()
			res, err := http.Post("http://"+p.addr+"/hooks/start?token="+secret, "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d}`, i)))
			if err != nil {
				return nil, err
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				return nil, err
			}
			if _, err := l.Read(buf); err != nil {
				return nil, fmt.Errorf("the process of a POST did not start: %w", err)
			}
			if i >= 10 {
				times[p] = append(times[p], time.Since(at))
			}
			// The next agent is made ready meanwhile, as between two pushes.
			time.Sleep(40 * time.Millisecond)
		}
	}
	return times, nil
}

// activate stands in systemd's place: it starts an agent for each connection
// to a local socket.
func (b *bench) activate() (path string, stop func(), err error) {
	path = filepath.Join(b.dir, "agents.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f, err := conn.File()
			conn.Close()
			if err != nil {
				continue
			}
			cmd := exec.Command(b.binary, "agent")
			cmd.Stdin, cmd.Stderr, cmd.Env = f, os.Stderr, append(os.Environ(), "DEPLOYHOOK_AGENT_STATE="+filepath.Join(b.dir, "agents"))
			if cmd.Start() == nil {
				go func() { _ = cmd.Wait() }()
			}
			f.Close()
		}
	}()
	return path, func() { l.Close() }, nil
}
