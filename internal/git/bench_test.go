package git_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// project makes a repository of files with size bytes each, half of them text,
// and a second commit that changes one of twenty.
func project(b *testing.B, files, size int) (r *repo, first, second string) {
	b.Helper()
	r = &repo{b, b.TempDir()}
	r.git("init", "-q", "-b", "main")
	rng := rand.New(rand.NewPCG(1, 2))
	content := func(i int) string {
		var s strings.Builder
		for s.Len() < size {
			if i%2 == 0 {
				fmt.Fprintf(&s, "func f%d() { return %d }\n", rng.IntN(1000), i)
			} else {
				fmt.Fprintf(&s, "%x", rng.Uint64())
			}
		}
		return s.String()
	}
	name := func(i int) string { return fmt.Sprintf("dir%d/sub%d/file%d.go", i%7, i%101, i) }
	for i := range files {
		r.write(name(i), content(i))
	}
	first = r.commit("README", "1")
	for i := 0; i < files; i += 20 {
		r.write(name(i), content(i))
	}
	second = r.commit("README", "2")
	r.git("repack", "-q", "-a", "-d")
	return r, first, second
}

// export fetches a commit and writes its files.
func export(data, url, sha, to string) error {
	all, err := git.Open(data, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return err
	}
	m := all.Mirror(git.Remote{Repository: "example.com/r", URL: url})
	if _, err := m.Fetch(context.Background(), sha, "refs/heads/main"); err != nil {
		return err
	}
	return m.Walk(context.Background(), sha, func(f deploy.TreeFile, r io.Reader) error {
		path := filepath.Join(to, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		w, err := os.Create(path)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		return w.Close()
	})
}

// BenchmarkFetchAndExport is a first deploy and the next one, each in a process
// of its own, beside the git command.
func BenchmarkFetchAndExport(b *testing.B) {
	me, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []struct {
		name        string
		files, each int
	}{{"small", 30, 4 << 10}, {"medium", 4000, 10 << 10}} {
		r, first, second := project(b, size.files, size.each)
		s := serve(b, filepath.Dir(r.dir), "")
		for _, from := range []struct{ name, url string }{{"http", s.URL + "/" + filepath.Base(r.dir) + "/.git"}, {"path", r.dir}} {
			for _, who := range []string{"ours", "git"} {
				run := func(b *testing.B, data, sha string) {
					to := filepath.Join(b.TempDir(), "to")
					cmd := exec.Command(me)
					cmd.Env = append(os.Environ(), "TEST_EXPORT="+strings.Join([]string{data, from.url, sha, to}, "\n"))
					if who == "git" {
						cmd = exec.Command("sh", "-c", `set -e; [ -d "$1" ] || git init -q --bare "$1"; cd "$1"; git fetch -q "$2" +refs/heads/main:refs/heads/main; mkdir -p "$4"; git --work-tree="$4" checkout -q -f "$3" -- .`, "sh", data, from.url, sha, to)
					}
					if out, err := cmd.CombinedOutput(); err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
						b.ReportMetric(float64(u.Maxrss)/1024, "MB")
					}
				}
				b.Run(size.name+"/"+from.name+"/first/"+who, func(b *testing.B) {
					for b.Loop() {
						run(b, filepath.Join(b.TempDir(), "data"), second)
					}
				})
				b.Run(size.name+"/"+from.name+"/next/"+who, func(b *testing.B) {
					for b.Loop() {
						b.StopTimer()
						data := filepath.Join(b.TempDir(), "data")
						r.git("update-ref", "refs/heads/main", first)
						run(b, data, first)
						r.git("update-ref", "refs/heads/main", second)
						b.StartTimer()
						run(b, data, second)
					}
				})
			}
		}
	}
}
