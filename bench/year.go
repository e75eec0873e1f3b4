package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/git"
)

// The year row: a mirror after 5,000 fetches, each of a push, from servers of
// which one sends good deltas, one sends whole objects, and one has bad ones.

// yearServers are ways in which a server packs the repository of a year.
//
// With a bitmap git does not walk trees, and without the names that they give it
// finds few deltas; fast-import makes deltas upon whatever file came before.
var yearServers = []struct {
	name string
	pack []string // arguments of git
}{
	{"a server with good deltas", []string{"-c", "repack.writeBitmaps=false", "repack", "-q", "-a", "-d", "-f"}},
	{"a server that sends whole objects", []string{"repack", "-q", "-a", "-d", "-f", "-b"}},
	{"a server with bad deltas", nil},
}

// year measures mirrors after a year of pushes: BENCH_PUSHES of them, or 5,000.
func (b *bench) year() error {
	pushes := 5000
	if n, err := strconv.Atoi(os.Getenv("BENCH_PUSHES")); err == nil && n > 0 {
		pushes = n
	}
	for i, s := range yearServers {
		if only := os.Getenv("BENCH_SERVER"); only != "" && only != strconv.Itoa(i+1) {
			continue
		}
		if err := b.yearOf(pushes, s.name, s.pack); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// yearProject makes a repository of pushes that change about two of 60 files
// each, and gives their commits.
func yearProject(repo string, pushes int) ([]string, error) {
	if _, err := gitOutput(filepath.Dir(repo), "init", "-q", "--bare", "-b", "main", repo); err != nil {
		return nil, err
	}
	const files, lines = 60, 100
	rng := rand.New(rand.NewPCG(1, 2))
	texts := make([][]string, files)
	err := fastImport(repo, func(w *bufio.Writer) {
		for n := range pushes {
			fmt.Fprintf(w, "commit refs/heads/main\nmark :%d\ncommitter a <a@example.com> %d +0000\ndata 6\nchange\n", n+1, 1700000000+n)
			for i := range files {
				if n > 0 && rng.IntN(files) >= 2 {
					continue // about two files a push
				}
				for len(texts[i]) < lines {
					texts[i] = append(texts[i], fmt.Sprintf("line %d of a file: %x\n", rng.IntN(1000), rng.Uint64()))
				}
				texts[i][rng.IntN(lines)] = fmt.Sprintf("changed by push %d: %x\n", n, rng.Uint64())
				text := strings.Join(texts[i], "")
				fmt.Fprintf(w, "M 100644 inline dir%d/file%d.go\ndata %d\n%s\n", i%7, i, len(text), text)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list, err := gitOutput(repo, "rev-list", "--reverse", "main")
	return strings.Fields(list), err
}

func (b *bench) yearOf(pushes int, name string, pack []string) error {
	const after = 41 // pushes whose fetches are compared, of which the first warms up
	root, err := os.MkdirTemp(b.dir, "year")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	repo := filepath.Join(root, "r.git")
	commits, err := yearProject(repo, pushes+after)
	if err != nil {
		return err
	}
	// What git gc leaves of the same, looking for deltas by itself: that of the
	// server would keep the server's.
	gc := filepath.Join(root, "gc.git")
	if err := yearCopy(repo, gc, commits[pushes-1]); err != nil {
		return err
	}
	if pack != nil {
		if _, err := gitOutput(repo, pack...); err != nil {
			return err
		}
	}
	server, stop, err := gitServer(root)
	if err != nil {
		return err
	}
	defer stop()
	fetch := func(m *git.Mirror, commit string) (time.Duration, error) {
		if err := os.WriteFile(filepath.Join(repo, "refs", "heads", "main"), []byte(commit+"\n"), 0o644); err != nil {
			return 0, err
		}
		began := time.Now()
		_, err := m.Fetch(context.Background(), commit, "refs/heads/main")
		return time.Since(began), err
	}
	all, old, err := gitMirror(filepath.Join(root, "old"), server+"/r.git", 0)
	if err != nil {
		return err
	}
	defer all.Close()
	var year []time.Duration
	began := time.Now()
	for _, c := range commits[:pushes] {
		took, err := fetch(old, c)
		if err != nil {
			return err
		}
		year = append(year, took)
	}
	all.Wait()
	whole := time.Since(began)
	mirrors, err := filepath.Glob(filepath.Join(root, "old", "*.git"))
	if err != nil || len(mirrors) != 1 {
		return fmt.Errorf("the mirrors are %v, %w", mirrors, err)
	}
	ours, err := packsOf(mirrors[0])
	if err != nil {
		return err
	}
	theirs, err := packsOf(gc)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("mirror after %d fetches of a push each from %s, against git gc", pushes, name),
		fmt.Sprintf("%.2f MB", ours), fmt.Sprintf("%.2f MB", theirs), fmt.Sprintf("%.2f×", ours/theirs), "≤ 1.5×")
	b.row(fmt.Sprintf("these %d fetches, %s in all: p50, p99, the longest", pushes, whole.Round(time.Second)),
		fmt.Sprintf("%s, %s, %s", ms(percentile(year, 50)), ms(percentile(year, 99)), ms(percentile(year, 100))), "", "", "")

	others, fresh, err := gitMirror(filepath.Join(root, "fresh"), server+"/r.git", 0)
	if err != nil {
		return err
	}
	defer others.Close()
	if _, err := fetch(fresh, commits[pushes-1]); err != nil {
		return err
	}
	var ratios []float64
	var a, z []time.Duration
	for i, c := range commits[pushes:] {
		one, err := fetch(old, c)
		if err != nil {
			return err
		}
		two, err := fetch(fresh, c)
		if err != nil {
			return err
		}
		if i > 0 {
			a, z = append(a, one), append(z, two)
			ratios = append(ratios, float64(one)/float64(two))
		}
	}
	b.row("fetch of a push after them, against one into a fresh mirror", ms(percentile(a, 50)), "("+ms(percentile(z, 50))+")", fmt.Sprintf("%.2f×", median(ratios)), "≤ 1.2×")
	return nil
}

// yearCopy makes a copy of a repository up to a commit, and has git pack it
// anew.
func yearCopy(repo, to, commit string) error {
	if _, err := gitOutput(filepath.Dir(to), "init", "-q", "--bare", "-b", "main", to); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"fetch", "-q", repo, "main"},
		{"update-ref", "refs/heads/main", commit},
		{"-c", "gc.pruneExpire=now", "repack", "-q", "-a", "-d", "-f"},
		{"gc", "-q", "--prune=now"},
	} {
		if _, err := gitOutput(to, args...); err != nil {
			return err
		}
	}
	return nil
}

// packsOf is the size of a repository's packs and their indexes, in MB.
func packsOf(repo string) (mb float64, err error) {
	for _, end := range []string{"pack", "idx"} {
		files, err := filepath.Glob(filepath.Join(repo, "objects", "pack", "*."+end))
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				return 0, err
			}
			mb += float64(st.Size()) / 1e6
		}
	}
	return mb, nil
}
