package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" // git's ids are SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// The git rows: what a deploy fetches and writes, each time in a process of its
// own, in turn with the git command, over HTTP from git's own server.

// gitRepository is its identity; where it is fetched from is given apart.
const gitRepository = "example.com/bench"

// gitExport is what the measured process does: it fetches a commit and writes
// its files below a directory; what has not changed comes from the one before,
// when there is one. args: data, URL, commit, directory, the one before, depth.
func gitExport(args []string) error {
	const count = 6
	if len(args) != count {
		return errors.New("git-export wants data, URL, commit, directory, the directory before and depth")
	}
	depth, err := strconv.Atoi(args[5])
	if err != nil {
		return err
	}
	all, m, err := gitMirror(args[0], args[1], depth)
	if err != nil {
		return err
	}
	defer all.Close()
	ctx, commit, to, before := context.Background(), args[2], args[3], args[4]
	if commit == "" {
		_, err := m.Resolve(ctx, "main")
		return err
	}
	if _, err := m.Fetch(ctx, commit, "refs/heads/main"); err != nil || to == "" {
		return err
	}
	o := &exporter{to: to, made: map[string]bool{}}
	want := func(deploy.TreeFile) bool { return true }
	if before != "" {
		same, err := o.reuse(m, commit, before)
		if err != nil {
			return err
		}
		i := -1
		want = func(deploy.TreeFile) bool { i++; return !same[i] }
	}
	return m.Export(commit, git.View{}).WalkSome(ctx, want, func(f deploy.TreeFile, r io.Reader) error {
		if err := o.parent(f.Path); err != nil {
			return err
		}
		w, err := os.OpenFile(filepath.Join(to, f.Path), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(struct{ io.Writer }{w}, r)
		return errors.Join(err, w.Close())
	})
}

// exporter writes files below a directory.
type exporter struct {
	to   string
	made map[string]bool // directories
}

func (o *exporter) parent(path string) error {
	dir := filepath.Dir(path)
	if o.made[dir] {
		return nil
	}
	o.made[dir] = true
	return os.MkdirAll(filepath.Join(o.to, dir), 0o755)
}

// reuse copies what has not changed from a directory, when its content still is
// the blob's, and says which files those are.
func (o *exporter) reuse(m *git.Mirror, commit, before string) (map[int]bool, error) {
	type file struct {
		n int
		deploy.TreeFile
	}
	work := make(chan file, 256)
	same := map[int]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var buf bytes.Buffer
			for f := range work {
				if copySame(&buf, filepath.Join(o.to, f.Path), filepath.Join(before, f.Path), f.TreeFile) {
					mu.Lock()
					same[f.n] = true
					mu.Unlock()
				}
			}
		})
	}
	n := 0
	err := m.Export(commit, git.View{}).List(context.Background(), func(f deploy.TreeFile) error {
		if err := o.parent(f.Path); err != nil {
			return err
		}
		work <- file{n, f}
		n++
		return nil
	})
	close(work)
	wg.Wait()
	return same, err
}

// copySame copies a file if it is a blob.
func copySame(buf *bytes.Buffer, to, from string, file deploy.TreeFile) bool {
	f, err := os.Open(from)
	if err != nil {
		return false
	}
	defer f.Close()
	buf.Reset()
	if n, err := buf.ReadFrom(f); err != nil || n != file.Size {
		return false
	}
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00", file.Size)
	sum.Write(buf.Bytes())
	return hex.EncodeToString(sum.Sum(nil)) == file.Blob && os.WriteFile(to, buf.Bytes(), 0o644) == nil
}

func gitMirror(data, url string, depth int) (*git.Mirrors, *git.Mirror, error) {
	all, err := git.Open(data, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return nil, nil, err
	}
	return all, all.Mirror(git.Remote{Repository: gitRepository, URL: url, Depth: depth}), nil
}

// gitCommand runs the git command without anybody's configuration.
func gitCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	return cmd
}

func gitOutput(dir string, args ...string) (string, error) {
	out, err := gitCommand(dir, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// gitProject makes a bare repository of files with size bytes each, half of
// them text, and a second commit that changes some of them.
func gitProject(dir string, files, size, changed int) (first, second string, err error) {
	if _, err := gitOutput(filepath.Dir(dir), "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return "", "", err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	err = fastImport(dir, func(w *bufio.Writer) {
		for n, step := range []int{1, files / changed} {
			fmt.Fprintf(w, "commit refs/heads/main\nmark :%d\ncommitter a <a@example.com> %d +0000\ndata 6\nchange\n", n+1, 1700000000+n)
			for i := 0; i < files; i += step {
				fmt.Fprintf(w, "M 100644 inline dir%d/sub%d/file%d.go\ndata %d\n", i%7, i%101, i, size)
				left := size
				for left > 0 {
					line := fmt.Sprintf("func f%d() { return %d }\n", rng.IntN(1000), i)
					if i%2 == 1 {
						line = fmt.Sprintf("%x", rng.Uint64())
					}
					line = line[:min(left, len(line))]
					left -= len(line)
					_, _ = w.WriteString(line)
				}
				_ = w.WriteByte('\n')
			}
		}
	})
	if err != nil {
		return "", "", err
	}
	const most = 100 << 20 // bytes; more take minutes
	if files*size <= most {
		if _, err := gitOutput(dir, "repack", "-q", "-a", "-d"); err != nil {
			return "", "", err
		}
	}
	if second, err = gitOutput(dir, "rev-parse", "main"); err != nil {
		return "", "", err
	}
	first, err = gitOutput(dir, "rev-parse", "main~1")
	return first, second, err
}

func fastImport(dir string, write func(w *bufio.Writer)) error {
	cmd := gitCommand(dir, "-c", "core.compression=1", "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	write(w)
	return errors.Join(w.Flush(), in.Close(), cmd.Wait())
}

// gitServer serves the repositories below root with git's own HTTP server.
func gitServer(root string) (url string, stop func(), err error) {
	path, err := gitOutput(root, "--exec-path")
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	backend := &cgi.Handler{
		Path: filepath.Join(path, "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backend.ServeHTTP(atOnce{w}, r)
	})}
	go func() { _ = s.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = s.Close() }, nil
}

// atOnce holds nothing back, as a server of git's does not: what git sends to
// say that it is alive while it compresses must arrive.
type atOnce struct{ http.ResponseWriter }

func (w atOnce) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	if err == nil {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return n, err
}

// cost is what one process took.
type cost struct {
	took time.Duration
	mb   float64 // its peak, or that of the largest of its children
}

// costOf runs a command below time, which is small: a process is told the
// memory of the one that started it as its own.
func costOf(cmd *exec.Cmd) (cost, error) {
	f, err := os.CreateTemp("", "dhbench-time")
	if err != nil {
		return cost{}, err
	}
	defer os.Remove(f.Name())
	f.Close()
	timed := exec.Command("time", append([]string{"-f", "%M", "-o", f.Name()}, cmd.Args...)...)
	timed.Env, timed.Dir = cmd.Env, cmd.Dir
	began := time.Now()
	out, err := timed.CombinedOutput()
	c := cost{took: time.Since(began)}
	if err != nil {
		return c, fmt.Errorf("%w: %s", err, out)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return c, err
	}
	kb, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	c.mb = kb / 1024
	return c, err
}

// theirs is git's way to the same files. Its data is a bare repository.
const theirs = `set -e; [ -d "$1" ] || git init -q --bare "$1"; cd "$1"
if [ -z "$3" ]; then git ls-remote "$2" refs/heads/main > /dev/null; exit; fi
git fetch -q $5 "$2" +refs/heads/main:refs/heads/main; [ -z "$4" ] || { mkdir -p "$4"; git archive "$3" | tar x -C "$4"; }`

var sides = []string{"deployhook", "git"}

// task is what one process is to do. Without a commit, it only asks where the
// branch is.
type task struct {
	url, commit string
	export      bool
	before      string // ours: the directory before
	depth       int
}

// do does a task in a directory, with the mirror data.
func (b *bench) do(who, data, to string, t task) (cost, error) {
	if !t.export {
		to = ""
	}
	cmd := exec.Command(b.self, "git-export", data, t.url, t.commit, to, t.before, strconv.Itoa(t.depth))
	if who == "git" {
		option := ""
		if t.depth > 0 {
			option = fmt.Sprintf("--depth=%d", t.depth)
		}
		cmd = exec.Command("sh", "-c", theirs, "sh", data, t.url, t.commit, to, option)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	}
	c, err := costOf(cmd)
	if err != nil {
		return c, fmt.Errorf("%s: %w", who, err)
	}
	return c, nil
}

// rounds does a task in turn, from the same mirrors each time, if there are any,
// and writes a row.
func (b *bench) rounds(what, bound, root string, old map[string]string, times int, t task) error {
	all := map[string][]cost{}
	for i := range times + 1 {
		for _, who := range sides {
			dir := filepath.Join(root, "round")
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if from := old[who]; from != "" {
				// Packs are never written to: links will do.
				if out, err := exec.Command("cp", "-al", from, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
			}
			c, err := b.do(who, filepath.Join(dir, "data"), filepath.Join(dir, "to"), t)
			if err != nil {
				return err
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			if i > 0 { // the first warms up
				all[who] = append(all[who], c)
			}
		}
	}
	b.ratios(what, all["deployhook"], all["git"], bound)
	return nil
}

// git measures first and next deploys.
func (b *bench) git() error {
	type size struct {
		name                         string
		files, bytes, changed, times int
	}
	list := []size{{"small (30 files)", 30, 4 << 10, 2, 15}, {"medium (4,000 files, 40 MB)", 4000, 10 << 10, 200, 7}}
	if os.Getenv("BENCH_LARGE") != "0" {
		list = append(list, size{"large (100,000 files, 1 GB)", 100_000, 10 << 10, 200, 3}, size{"one file of 500 MB", 1, 500 << 20, 1, 2})
	}
	for _, s := range list {
		if err := b.gitSize(s.name, s.files, s.bytes, s.changed, s.times); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) gitSize(name string, files, size, changed, times int) error {
	root, err := os.MkdirTemp(b.dir, "git")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	repo := filepath.Join(root, "r.git")
	first, second, err := gitProject(repo, files, size, changed)
	if err != nil {
		return err
	}
	server, stop, err := gitServer(root)
	if err != nil {
		return err
	}
	defer stop()
	t := task{url: server + "/r.git", commit: first, export: true}
	at := func(commit string) error {
		_, err := gitOutput(repo, "update-ref", "refs/heads/main", commit)
		return err
	}
	if err := at(first); err != nil {
		return err
	}
	old, shallow := map[string]string{}, map[string]string{} // mirrors that have the first commit
	live := filepath.Join(root, "live")
	for _, who := range sides {
		old[who], shallow[who] = filepath.Join(root, "old-"+who), filepath.Join(root, "shallow-"+who)
		if _, err := b.do(who, old[who], live+"-"+who, t); err != nil {
			return err
		}
		deep := t
		deep.depth, deep.export = 1, false
		if _, err := b.do(who, shallow[who], "", deep); err != nil {
			return err
		}
	}
	if err := at(second); err != nil {
		return err
	}
	t.commit = second
	const bound = "≤ 1.0× time and memory"
	if files == 1 {
		return b.rounds(name+", first deploy: fetch + export", bound, root, nil, times, t)
	}
	const manyFiles = 10_000
	if files > manyFiles {
		t.before = live + "-deployhook"
		return b.rounds(name+", next deploy with 200 files changed: fetch + export, ours over the release before", "≤ 0.5× time", root, old, times, t)
	}
	if err := b.rounds(name+", first deploy: fetch + export", bound, root, nil, times, t); err != nil {
		return err
	}
	if err := b.rounds(name+", next deploy: fetch + export", bound, root, old, times, t); err != nil {
		return err
	}
	t.export = false
	if err := b.rounds(name+", next fetch", "", root, old, times, t); err != nil {
		return err
	}
	t.depth = 1
	if err := b.rounds(name+", next fetch with depth 1", "", root, shallow, times, t); err != nil {
		return err
	}
	t.commit = ""
	return b.rounds(name+", where a branch is (ls-remote)", "", root, nil, times, t)
}

// ratios writes a row of two sides that were measured in turn: the medians, and
// the median of each round's ratio.
func (b *bench) ratios(what string, ours, others []cost, bound string) {
	var times, memories []float64
	for i := range ours {
		times = append(times, float64(ours[i].took)/float64(others[i].took))
		memories = append(memories, ours[i].mb/others[i].mb)
	}
	show := func(list []cost) string {
		var took []time.Duration
		var mb []float64
		for _, c := range list {
			took, mb = append(took, c.took), append(mb, c.mb)
		}
		return fmt.Sprintf("%s, %.0f MB", ms(percentile(took, 50)), median(mb))
	}
	b.row(what, show(ours), show(others), fmt.Sprintf("%.2f× time, %.2f× memory", median(times), median(memories)), bound)
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
