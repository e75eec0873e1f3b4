package git_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"deployhook/internal/deploy"
	"deployhook/internal/git"
)

// archived gives what the git command archives of a commit.
func (r *repo) archived(commit string) map[string]string {
	r.t.Helper()
	name := filepath.Join(r.t.TempDir(), "tar")
	r.git("-c", "core.attributesFile=/dev/null", "-c", "i18n.logOutputEncoding=UTF-8", "archive", "--format=tar", "-o", name, commit)
	f, err := os.Open(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	got := map[string]string{}
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			r.t.Fatal(err)
		}
		b, err := io.ReadAll(t)
		if err != nil {
			r.t.Fatal(err)
		}
		switch {
		case h.Typeflag == tar.TypeSymlink:
			got[h.Name] = "symlink:" + h.Linkname
		case h.Typeflag == tar.TypeReg && h.Mode&0o100 != 0:
			got[h.Name] = "executable:" + string(b)
		case h.Typeflag == tar.TypeReg:
			got[h.Name] = "file:" + string(b)
		}
	}
}

// exported gives what a release gets, and holds the list against it.
func exported(t *testing.T, x *git.Export) map[string]string {
	t.Helper()
	listed := map[string]deploy.TreeFile{}
	if err := x.List(t.Context(), func(f deploy.TreeFile) error {
		listed[f.Path] = f
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := x.Walk(t.Context(), func(f deploy.TreeFile, r io.Reader) error {
		b, err := io.ReadAll(r)
		got[f.Path] = string(f.Mode) + ":" + string(b)
		blob := plumbing.ComputeHash(plumbing.BlobObject, b).String()
		if l := listed[f.Path]; l != f || l.Blob != blob || l.Size != int64(len(b)) {
			t.Errorf("%q is listed as %+v, comes as %+v, and has %d bytes of blob %s", f.Path, l, f, len(b), blob)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(listed) != len(got) {
		t.Errorf("%d files are listed, %d come", len(listed), len(got))
	}
	return got
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have, ok := got[name]; !ok {
			t.Errorf("%q is missing", name)
		} else if have != want[name] {
			t.Errorf("%q is\n%q, want\n%q", name, have, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is too much", name)
		}
	}
}

// each makes a commit on a base for each content of a file, with one process.
func (r *repo) each(base, name string, contents []string) (commits []string) {
	r.t.Helper()
	var in strings.Builder
	for i, c := range contents {
		fmt.Fprintf(&in, "commit refs/heads/each/%d\nmark :%d\ncommitter a <a@example.com> 1700000000 +0000\ndata 1\nx\nfrom %s\nM 100644 inline %s\ndata %d\n%s\n\n", i, i+1, base, name, len(c)+1, c)
	}
	marks := filepath.Join(r.t.TempDir(), "marks")
	cmd := exec.Command("git", "fast-import", "--quiet", "--export-marks="+marks)
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(marks)
	if err != nil {
		r.t.Fatal(err)
	}
	commits = make([]string, len(contents))
	for line := range strings.Lines(string(b)) {
		var n int
		var sha string
		if _, err := fmt.Sscanf(line, ":%d %s", &n, &sha); err != nil {
			r.t.Fatal(err)
		}
		commits[n-1] = sha
	}
	return commits
}

func TestExportIgnoreIsThatOfGitArchive(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	m := local(t, r)
	all := []string{
		"README.md", "LICENSE", "Makefile", "a", "a.txt", "b.txt", "tests/a.go", "tests/deep/b.go", "src/a.go", "src/tests/a.go", "src/tests/deep/c.go",
		"docs/a.md", "docs/build/out.html", "docs/src/build/x", "build", "lib/build/keep", "lib/x/y/z.c", "lib/x/z.c", "lib/foo.c", "lib/foo.h", ".github/workflows/ci.yml", ".editorconfig",
		"a b/c d", "odd[1]", "odd1", "x*y", "xzy", "q?", "qa", "-dash", "ünï", "tail ", "new\nline", "back\\slash", "UPPER", "upper", "foo/bar/baz", "foo/baz", "foo/a/b/c/bar", "A1", "B2", "c3", "#hash", "!not", "dir.d/f",
	}
	for _, f := range all {
		r.write(f, f)
	}
	base := r.commit("last", "last")
	all = append(all, "last")
	cases := []string{
		"tests export-ignore", "tests/ export-ignore", "/tests export-ignore", "/tests/ export-ignore", "tests/* export-ignore", "tests/** export-ignore", "**/tests export-ignore", "**/tests/ export-ignore", "src/tests export-ignore",
		"*.txt export-ignore", "*.txt export-ignore\na.txt -export-ignore", "*.txt export-ignore\na.txt !export-ignore", "a.txt -export-ignore\n*.txt export-ignore", "*.txt export-ignore=yes", "*.txt export-ignore=true", "*.txt -export-ignore",
		"build export-ignore", "build/ export-ignore", "/build export-ignore", "docs/build export-ignore", "docs/**/build export-ignore", "docs/** export-ignore", "lib/**/z.c export-ignore", "lib/*/z.c export-ignore", "lib/x* export-ignore", "lib/f*.[ch] export-ignore",
		"foo/**/bar export-ignore", "foo/**bar export-ignore", "foo**/bar export-ignore", "**/baz export-ignore", "foo/** export-ignore\nfoo/baz -export-ignore", "foo/**/ export-ignore", "** export-ignore", "* export-ignore", "*/ export-ignore", "/* export-ignore", "*/* export-ignore",
		"[attr]drop export-ignore\ntests drop\ndocs drop", "[attr]drop export-ignore\n*.txt drop\na.txt -drop", "[attr]drop export-ignore\n*.txt drop\na.txt !drop", "[attr]drop export-ignore\n*.txt drop\na.txt -export-ignore",
		"[attr]one two\n[attr]two export-ignore\na one", "[attr]drop export-ignore\n[attr]drop -text\na drop", "[attr]drop -export-ignore\n* export-ignore\na drop", "[attr]self self export-ignore\na self", "a drop\n[attr]drop export-ignore", "[attr]drop=x export-ignore\na drop", "[attr]-bad export-ignore\na -bad", "[attr] drop export-ignore\na drop", "[attr]drop\ta export-ignore",
		"a b/* export-ignore", `"a b/*" export-ignore`, `"a b" export-ignore`, `"tail " export-ignore`, `"new\nline" export-ignore`, `"\303\274n\303\257" export-ignore`, "ünï export-ignore", `"open export-ignore`, `"bad\q" export-ignore`, `"a"export-ignore`,
		"odd[1] export-ignore", `odd\[1] export-ignore`, "x*y export-ignore", `x\*y export-ignore`, "q? export-ignore", `q\? export-ignore`, `back\\slash export-ignore`, `back\slash export-ignore`, "[A-C][0-9] export-ignore", "[!A-C]* export-ignore", "[^A-C]* export-ignore", "[[:upper:]][[:digit:]] export-ignore", "[[:bogus:]] export-ignore", "[a export-ignore", "[]-]* export-ignore", `[\]a] export-ignore`, "[[:alpha:]-] export-ignore", "[a-] export-ignore", "[[a] export-ignore",
		"!a.txt export-ignore", `\!not export-ignore`, "#hash export-ignore", `\#hash export-ignore`, "-dash export-ignore", "  a export-ignore", "\ta\texport-ignore\t", "a export-ignore bad=value=x", "a export-ignore b@d", "a export-ignore -", "a export-ignore !", "a export-ignore -text=x", "a -export-ignore export-ignore", "a export-ignore -export-ignore", "a export-ignore !export-ignore",
		"a export-ignore\r", "\ufeffa export-ignore", "a export-ignore\nb.txt export-ignore", "a", "a export-ignore\x00\nb.txt export-ignore", "/ export-ignore", "./a export-ignore", "a/ export-ignore", "// export-ignore", "UPPER export-ignore", "README.md LICENSE export-ignore", ".gitattributes export-ignore", ".git* export-ignore", "/.github export-ignore", ".github/** export-ignore", "tests/deep export-ignore", "tests export-ignore\ntests/a.go -export-ignore", "dir.d export-ignore",
		strings.Repeat("x", 2040) + " export-ignore\na export-ignore", "a export-ignore " + strings.Repeat("y", 2050), "**/**/**/z.c export-ignore", "lib/**/**/z.c export-ignore", "**z.c export-ignore", "lib/**.c export-ignore", "*/**/z.c export-ignore", "foo/*/b*r export-ignore", "foo/***/bar export-ignore", `foo/**\/bar export-ignore`,
	}
	commits := r.each(base, ".gitattributes", cases)
	for i, tt := range cases {
		commit := commits[i]
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			got := exported(t, m.Export(commit, git.View{Rules: true}))
			sameFiles(t, got, r.archived(commit))
			if t.Failed() {
				t.Logf(".gitattributes is %q", tt)
			}
			if n := len(files(t, m, commit)); n != len(all)+1 {
				t.Errorf("the whole tree has %d files, not %d", n, len(all)+1)
			}
		})
	}
}

func TestAttributesOfEveryDirectoryCount(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	for _, f := range []string{"a.txt", "keep/a.txt", "keep/b.txt", "keep/deep/a.txt", "drop/a.txt", "drop/b.md", "drop/deep/c.md", "deep/a/b/x", "deep/a/b/y", "deep/b/x", "link/a"} {
		r.write(f, f)
	}
	r.write(".gitattributes", "[attr]drop export-ignore\n*.txt export-ignore\n/drop/*.md export-ignore\n")
	r.write("keep/.gitattributes", "*.txt -export-ignore\n/b.txt drop\n[attr]other export-ignore\ndeep other\n")
	r.write("deep/.gitattributes", "b/x export-ignore\n/a/b/y export-ignore\n")
	r.write("deep/a/b/.gitattributes", "y !export-ignore\n")
	r.write("info/attributes", "keep export-ignore\n")
	if err := os.Symlink("../.gitattributes", filepath.Join(r.dir, "link", ".gitattributes")); err != nil {
		t.Fatal(err)
	}
	commit := r.commit("z", "z")
	m := local(t, r)
	if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
		t.Fatal(err)
	}
	want := r.archived(commit)
	sameFiles(t, exported(t, m.Export(commit, git.View{Rules: true})), want)
	for _, dir := range []string{"keep", "deep/a", "deep/a/b", "drop"} {
		below := map[string]string{}
		for name, content := range want {
			if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
				below[rest] = content
			}
		}
		sameFiles(t, exported(t, m.Export(commit, git.View{Subdir: dir, Rules: true})), below)
	}
	for _, dir := range []string{"none", "a.txt", "keep/none", "keep/b.txt/c", "link/.gitattributes", "Keep"} {
		_, _, err := m.Export(commit, git.View{Subdir: dir}).Measure(t.Context())
		assertError(t, err, fmt.Sprintf("commit %.7s of example.com/r has no directory %q, which release.subdir names", commit, dir), "\x00")
	}
}

// A pattern of many ** takes time that doubles with each, which nobody may
// make a deploy wait for.
func TestAttributesThatTakeForEver(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	// The git command would not come to an end with them either.
	id := r.object("blob", "x")
	mode := "100644"
	for range 60 {
		id, mode = r.object("tree", treeEntry(mode, "a", id)), "40000"
	}
	patterns := r.object("blob", strings.Repeat("**/a*/", 60)+"c export-ignore\n")
	slow := r.commitOf(r.object("tree", treeEntry("100644", ".gitattributes", patterns)+treeEntry(mode, "a", id)))
	r.write("big/.gitattributes", strings.Repeat("# nothing\n", 110_000))
	big := r.commit(".gitattributes", "")
	m := local(t, r)
	for commit, want := range map[string]string{
		slow: "a pattern takes too long to compare",
		big:  `reading "big/.gitattributes" of example.com/r: it has 1100000 bytes, more than 1048576`,
	} {
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		_, _, err := m.Export(commit, git.View{Rules: true}).Measure(t.Context())
		assertError(t, err, want, "\x00")
	}
}

// drain reads as much as an agent is sent.
func drain(f deploy.TreeFile, r io.Reader) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r, f.Size))
	return err
}

// An agent is sent as many bytes as were announced, and reads no further.
func TestContentIsHeldAgainstItsIDByWhoReadsItsSizeOnly(t *testing.T) {
	t.Parallel()
	blob := plumbing.ComputeHash(plumbing.BlobObject, []byte("content")).String()
	for text, right := range map[string]bool{"content": true, "Content": false} {
		for how, fn := range map[string]func(deploy.TreeFile, io.Reader) error{
			"its size": drain,
			"all": func(_ deploy.TreeFile, r io.Reader) error {
				_, err := io.ReadAll(r)
				return err
			},
		} {
			if err := git.Verified(int64(len(text)), strings.NewReader(text), blob, fn); (err == nil) != right {
				t.Errorf("%q, read %s: %v", text, how, err)
			}
		}
	}
}
