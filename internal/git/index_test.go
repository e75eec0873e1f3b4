package git_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/git"
)

func TestIndexIsTheOneThatGitWrites(t *testing.T) {
	r := newRepo(t)
	r.write("big", strings.Repeat("0123456789", 600_000))
	text := ""
	for i := range 300 {
		text += fmt.Sprintf("line %d of a file that grows\n", i*i)
		if i%30 == 0 {
			r.write(fmt.Sprintf("dir%d/f", i), text)
			r.commit("grows", text)
		}
	}
	r.git("tag", "-a", "v1", "-m", "v1")
	sha := r.git("rev-parse", "main")
	r.git("repack", "-q", "-a", "-d", "-f", "--depth=50")
	t.Run("fetched", func(t *testing.T) {
		m := overHTTP(t, r, 0)
		if got, err := m.Fetch(t.Context(), sha, "refs/heads/main"); got != sha || err != nil {
			t.Fatalf("%s, %v", got, err)
		}
		pack := one(t, m, "objects/pack/*.pack")
		theirs := filepath.Join(t.TempDir(), "theirs.idx")
		r.git("index-pack", "-o", theirs, pack)
		want, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(one(t, m, "objects/pack/*.idx")); !bytes.Equal(got, want) || err != nil {
			t.Errorf("the index has %d bytes, git's %d, %v", len(got), len(want), err)
		}
		if !strings.Contains(r.git("verify-pack", "-v", pack), "chain length = ") {
			t.Error("there are no deltas in the pack: the test shows too little")
		}
		(&repo{t, m.Dir()}).git("fsck", "--full", "--strict")
	})
	for _, name := range []string{"ofs", "ref"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := os.ReadFile(filepath.Join("testdata", name+".pack"))
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := filepath.Join(dir, "ours.idx"), filepath.Join(dir, "theirs.idx")
			if err := git.Index(t.Context(), b, ours); err != nil {
				t.Fatal(err)
			}
			pack, err := filepath.Abs(filepath.Join("testdata", name+".pack"))
			if err != nil {
				t.Fatal(err)
			}
			r.git("index-pack", "-o", theirs, pack)
			want, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(ours); !bytes.Equal(got, want) || err != nil {
				t.Errorf("the index has %d bytes, git's %d, %v", len(got), len(want), err)
			}
		})
	}
}
