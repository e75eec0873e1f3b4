package main

import (
	"bufio"
	"context"
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
	"slices"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// The git rows: what a deploy fetches and writes, each time in a process of its
// own, in turn with the git command, over HTTP from git's own server.

// gitRepository is its identity; where it is fetched from is given apart.
const gitRepository = "example.com/bench"

// gitExport is what the measured process does: it fetches a commit and writes
// its files below a directory. args: data, URL, commit, directory.
func gitExport(args []string) error {
	if len(args) != 4 {
		return errors.New("git-export wants data, URL, commit and directory")
	}
	m, err := gitMirror(args[0], args[1])
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := m.Fetch(ctx, args[2], "refs/heads/main"); err != nil {
		return err
	}
	if args[3] == "" {
		return nil
	}
	made := map[string]bool{}
	return m.Walk(ctx, args[2], func(f deploy.TreeFile, r io.Reader) error {
		path := filepath.Join(args[3], f.Path)
		if dir := filepath.Dir(path); !made[dir] {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			made[dir] = true
		}
		w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.Copy(struct{ io.Writer }{w}, r)
		return errors.Join(err, w.Close())
	})
}

func gitMirror(data, url string) (*git.Mirror, error) {
	all, err := git.Open(data, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return nil, err
	}
	return all.Mirror(git.Remote{Repository: gitRepository, URL: url}), nil
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
	if _, err := gitOutput(dir, "repack", "-q", "-a", "-d"); err != nil {
		return "", "", err
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
	s := &http.Server{Handler: &cgi.Handler{
		Path: filepath.Join(path, "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}}
	go func() { _ = s.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = s.Close() }, nil
}

// cost is what one process took.
type cost struct {
	took time.Duration
	mb   float64 // its peak, or that of the largest of its children
}

func costOf(cmd *exec.Cmd) (cost, error) {
	began := time.Now()
	out, err := cmd.CombinedOutput()
	c := cost{took: time.Since(began)}
	if err != nil {
		return c, fmt.Errorf("%w: %s", err, out)
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.mb = float64(u.Maxrss) / 1024
	}
	return c, nil
}

// theirs is git's way to the same files. Its data is a bare repository.
const theirs = `set -e; [ -d "$1" ] || git init -q --bare "$1"; cd "$1"; git fetch -q $5 "$2" +refs/heads/main:refs/heads/main; [ -z "$4" ] || { mkdir -p "$4"; git archive "$3" | tar x -C "$4"; }`

// gitDeploy runs a deploy of one of the two.
func (b *bench) gitDeploy(who, data, url, commit, to, option string) (cost, error) {
	cmd := exec.Command(b.self, "git-export", data, url, commit, to)
	if who == "git" {
		cmd = exec.Command("sh", "-c", theirs, "sh", data, url, commit, to, option)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	}
	c, err := costOf(cmd)
	if err != nil {
		return c, fmt.Errorf("%s: %w", who, err)
	}
	return c, nil
}

// git measures first and next deploys.
func (b *bench) git() error {
	for _, size := range []struct {
		name                         string
		files, bytes, changed, times int
	}{{"small (30 files)", 30, 4 << 10, 2, 15}, {"medium (4,000 files, 40 MB)", 4000, 10 << 10, 200, 7}} {
		if err := b.gitSize(size.name, size.files, size.bytes, size.changed, size.times); err != nil {
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
	url := server + "/r.git"
	at := func(commit string) error {
		_, err := gitOutput(repo, "update-ref", "refs/heads/main", commit)
		return err
	}
	sides := []string{"deployhook", "git"}
	old := map[string]string{} // mirrors that have the first commit
	if err := at(first); err != nil {
		return err
	}
	for _, who := range sides {
		old[who] = filepath.Join(root, "old-"+who)
		if _, err := b.gitDeploy(who, old[who], url, first, "", ""); err != nil {
			return err
		}
	}
	if err := at(second); err != nil {
		return err
	}
	for _, which := range []string{"first", "next"} {
		all := map[string][]cost{}
		for i := range times + 1 {
			for _, who := range sides {
				dir := filepath.Join(root, "round")
				if which == "next" {
					if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(old[who])); err != nil {
						return err
					}
				}
				c, err := b.gitDeploy(who, filepath.Join(dir, "data"), url, second, filepath.Join(dir, "to"), "")
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
		b.ratios(name+", "+which+" deploy: fetch + export", all["deployhook"], all["git"], "≤ 1.0× time and memory")
	}
	return nil
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
