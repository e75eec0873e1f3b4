package git_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// one gives the only file that a pattern in the mirror has.
func one(t *testing.T, m *git.Mirror, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(m.Dir(), pattern))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s has %v, %v", pattern, list, err)
	}
	return list[0]
}

// edit changes a file of the mirror.
func edit(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsFoundAndFetchedAnew(t *testing.T) {
	r := newRepo(t)
	r.write("dir/b", "some content "+strings.Repeat("x", 100))
	sha := r.commit("a", "1")
	want := fmt.Sprint(map[string]string{"a": "file:1", "dir/b": "file:some content " + strings.Repeat("x", 100)})
	zero := func(from, to float64) func([]byte) []byte {
		return func(b []byte) []byte {
			for i := int(from * float64(len(b))); i < int(to*float64(len(b))); i++ {
				b[i] = 0
			}
			return b
		}
	}
	next := r.commit("next", "2")
	for name, damage := range map[string]func(m *git.Mirror){
		"pack cut in half": func(m *git.Mirror) {
			edit(t, one(t, m, "objects/pack/*.pack"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"pack of zeros":         func(m *git.Mirror) { edit(t, one(t, m, "objects/pack/*.pack"), zero(0, 1)) },
		"pack with zeros in it": func(m *git.Mirror) { edit(t, one(t, m, "objects/pack/*.pack"), zero(0.3, 0.9)) },
		"pack gone":             func(m *git.Mirror) { os.Remove(one(t, m, "objects/pack/*.pack")) },
		"index gone":            func(m *git.Mirror) { os.Remove(one(t, m, "objects/pack/*.idx")) },
		"index of zeros":        func(m *git.Mirror) { edit(t, one(t, m, "objects/pack/*.idx"), zero(0, 1)) },
		"index cut": func(m *git.Mirror) {
			edit(t, one(t, m, "objects/pack/*.idx"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"index with other offsets": func(m *git.Mirror) { edit(t, one(t, m, "objects/pack/*.idx"), zero(0.92, 0.95)) },
		"everything gone":          func(m *git.Mirror) { os.RemoveAll(m.Dir()) },
		"a file in its place": func(m *git.Mirror) {
			os.RemoveAll(m.Dir())
			if err := os.WriteFile(m.Dir(), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"config empty":        func(m *git.Mirror) { edit(t, one(t, m, "config"), func([]byte) []byte { return nil }) },
		"HEAD gone":           func(m *git.Mirror) { os.Remove(one(t, m, "HEAD")) },
		"shallow is nonsense": func(m *git.Mirror) { os.WriteFile(filepath.Join(m.Dir(), "shallow"), []byte("\x00\x00\x00"), 0o644) },
		"slots are nonsense": func(m *git.Mirror) {
			os.WriteFile(filepath.Join(m.Dir(), "refs/deployhook/00"), []byte("\x00\xff"), 0o644)
			os.MkdirAll(filepath.Join(m.Dir(), "refs/deployhook/01"), 0o755)
		},
	} {
		for _, how := range []string{"walk", "measure", "fetch"} {
			t.Run(name+" "+how, func(t *testing.T) {
				m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
				if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
					t.Fatal(err)
				}
				damage(m)
				switch how {
				case "fetch":
					if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
						t.Fatalf("Fetch: %s, %v", got, err)
					}
				case "measure":
					if n, _, err := m.Measure(t.Context(), sha); n != 2 || err != nil {
						t.Fatalf("Measure: %d, %v", n, err)
					}
				}
				if got := fmt.Sprint(files(t, m, sha)); got != want {
					t.Errorf("the files are %s", got)
				}
				if _, err := m.Fetch(t.Context(), next, "refs/heads/main"); err != nil {
					t.Errorf("the next Fetch: %v", err)
				}
				if left, _ := filepath.Glob(m.Dir() + ".*"); len(left) > 0 {
					t.Errorf("%v is left over", left)
				}
			})
		}
	}
}

func TestBitFlippedAnywhereIsNeverDeployed(t *testing.T) {
	r := newRepo(t)
	for i := range 5 {
		r.write(fmt.Sprintf("f%d", i), strings.Repeat(fmt.Sprint(i), 300))
	}
	sha := r.commit("a", "1")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(files(t, m, sha))
	for n := range 60 {
		ext := []string{"pack", "idx"}[n%2]
		edit(t, one(t, m, "objects/pack/*."+ext), func(b []byte) []byte {
			b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
			return b
		})
		if got := fmt.Sprint(files(t, m, sha)); got != want {
			t.Fatalf("a bit flipped in the %s gives %s", ext, got)
		}
		// What the walk did not read is not looked at: begin again.
		if err := os.RemoveAll(m.Dir()); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLargeFileDamagedOnDiskEndsTheWalkAndComesAnewWithARetry(t *testing.T) {
	r := newRepo(t)
	random := make([]byte, 9<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(random)
	sha := r.commit("big", string(random))
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	edit(t, one(t, m, "objects/pack/*.pack"), func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})
	err := m.Walk(t.Context(), sha, func(_ deploy.TreeFile, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	assertError(t, err, `reading "big" of example.com/r: damaged on disk`, "\x00")
	assertError(t, err, "; a retry fetches it anew", "\x00")
	if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, m, sha); got["big"] != "file:"+string(random) {
		t.Error("the file is not what was pushed")
	}
}

func TestDamagedMirrorStaysWhileTheRemoteIsAway(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := m.Fetch(t.Context(), first, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	pack := one(t, m, "objects/pack/*.pack")
	second := r.commit("a", "2")
	if _, err := m.Fetch(t.Context(), second, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	away := r.dir + ".away"
	if err := os.Rename(r.dir, away); err != nil {
		t.Fatal(err)
	}
	list, _ := filepath.Glob(filepath.Join(m.Dir(), "objects/pack/*.pack"))
	for _, p := range list {
		if p != pack {
			edit(t, p, func(b []byte) []byte { return b[:40] })
		}
	}
	err := m.Walk(t.Context(), second, func(deploy.TreeFile, io.Reader) error { return nil })
	assertError(t, err, "and it could not be fetched anew: fetching example.com/r: there is no git repository at clone_url", "\x00")
	if got := files(t, m, first); got["a"] != "file:1" {
		t.Errorf("what is not damaged gives %v", got)
	}
	if err := os.Rename(away, r.dir); err != nil {
		t.Fatal(err)
	}
	if got := files(t, m, second); got["a"] != "file:2" {
		t.Errorf("when the remote is back: %v", got)
	}
}

// TestMain is also the process that is killed while it fetches, and the one
// that is measured.
func TestMain(m *testing.M) {
	if args := strings.Split(os.Getenv("TEST_EXPORT"), "\n"); len(args) == 4 {
		if err := export(args[0], args[1], args[2], args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		// Not as its parent sees it, which is told at least its own.
		b, _ := os.ReadFile("/proc/self/status")
		_, peak, _ := strings.Cut(string(b), "VmHWM:")
		fmt.Println(strings.Fields(peak)[0])
		os.Exit(0)
	}
	dir := os.Getenv("TEST_FETCH_INTO")
	if dir == "" {
		os.Exit(m.Run())
	}
	all, err := git.Open(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	git.PacksMost(2) // so that it is killed while it makes packs one, too
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		if _, err := all.Mirror(git.Remote{Repository: "example.com/r", URL: os.Getenv("TEST_FETCH_FROM")}).Fetch(context.Background(), in.Text(), "refs/heads/main"); err != nil {
			fmt.Println(err)
		}
	}
	os.Exit(0)
}

func TestKillWhileFetchingLeavesAMirrorThatGoesOn(t *testing.T) {
	r := newRepo(t)
	for i := range 200 {
		r.write(fmt.Sprintf("d%d/f", i), strings.Repeat(fmt.Sprint(i), 200))
	}
	var list []string
	for i := range 12 {
		list = append(list, r.commit("a", fmt.Sprint(i)))
	}
	s := serve(t, filepath.Dir(r.dir), "")
	url := s.URL + "/" + filepath.Base(r.dir) + "/.git"
	dir := t.TempDir()
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i, sha := range list {
		cmd := exec.Command(me)
		cmd.Env = append(os.Environ(), "TEST_FETCH_INTO="+dir, "TEST_FETCH_FROM="+url)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "ready\n" {
			t.Fatalf("the process says %q, %v", line, err)
		}
		fmt.Fprintln(in, sha)
		time.Sleep(time.Duration(i*i) * time.Millisecond) // any moment will do: the kill is the test
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if i%3 != 2 {
			continue // on half of one comes another
		}
		all, err := git.Open(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		m := all.Mirror(git.Remote{Repository: "example.com/r", URL: url})
		if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
			t.Fatalf("after a kill: %s, %v", got, err)
		}
		if got := files(t, m, sha); len(got) != 201 || got["a"] != fmt.Sprintf("file:%d", i) {
			t.Fatalf("after a kill there are %d files, a is %q", len(got), got["a"])
		}
		// What is left over goes with the next push.
		next := r.commit("b", fmt.Sprint(i))
		if got, err := m.Fetch(t.Context(), next, "refs/heads/main"); got != next || err != nil {
			t.Fatalf("the next push after a kill: %s, %v", got, err)
		}
		r.git("reset", "-q", "--hard", list[len(list)-1])
		if left, _ := filepath.Glob(filepath.Join(m.Dir(), "objects/pack/tmp_*")); len(left) > 0 {
			t.Errorf("%v is left over", left)
		}
	}
}

func TestFetchesAtOnceOfDifferentBranchesAndWhileOthersRead(t *testing.T) {
	r := newRepo(t)
	base := r.commit("a", "base")
	var list []string
	for i := range 6 {
		r.git("checkout", "-q", "-b", fmt.Sprintf("b%d", i), base)
		list = append(list, r.commit("a", fmt.Sprint(i)))
	}
	everywhere(t, r, func(t *testing.T, m *git.Mirror) {
		if _, err := m.Fetch(t.Context(), base, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 2*len(list))
		for i, sha := range list {
			go func() {
				_, err := m.Fetch(t.Context(), sha, fmt.Sprintf("refs/heads/b%d", i))
				errs <- err
			}()
			go func() {
				errs <- m.Walk(t.Context(), base, func(_ deploy.TreeFile, r io.Reader) error {
					b, err := io.ReadAll(r)
					if string(b) != "base" {
						return fmt.Errorf("the file is %q", b)
					}
					return err
				})
			}()
		}
		for range 2 * len(list) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRenewalUnderReadersDoesNotHurtThem(t *testing.T) {
	r := newRepo(t)
	for i := range 50 {
		r.write(fmt.Sprintf("f%d", i), fmt.Sprint(i))
	}
	sha := r.commit("a", "1")
	m := mirrors(t).Mirror(git.Remote{Repository: "example.com/r", URL: r.dir})
	if _, err := m.Fetch(t.Context(), sha, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := m.Walk(t.Context(), sha, func(f deploy.TreeFile, _ io.Reader) error {
		if n++; n%10 == 0 {
			edit(t, one(t, m, "objects/pack/*.pack"), func(b []byte) []byte { return b[:50] })
			if got := files(t, m, sha); len(got) != 51 {
				return fmt.Errorf("the other walk gave %d files", len(got))
			}
		}
		return nil
	})
	if n != 51 || err != nil {
		t.Errorf("the walk gave %d files, %v", n, err)
	}
}
