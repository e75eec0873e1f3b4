package release

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

// files are those of a commit: a path, and its content. One that begins with
// -> is a link, one with #! an executable.
type files map[string]string

func (f files) tree() []deploy.TreeFile {
	var list []deploy.TreeFile
	for _, name := range slices.Sorted(maps.Keys(f)) {
		text, mode := f[name], deploy.TreePlain
		if strings.HasPrefix(text, "#!") {
			mode = deploy.TreeExecutable
		}
		if target, ok := strings.CutPrefix(text, "->"); ok {
			text, mode = target, deploy.TreeSymlink
		}
		id := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text))
		list = append(list, deploy.TreeFile{Path: name, Mode: mode, Size: int64(len(text)), Blob: fmt.Sprintf("%x", id)})
	}
	return list
}

// place is a directory with its agent's state.
type place struct {
	t     *testing.T
	state string
	dir   string
	n     int
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	return &place{t: t, state: filepath.Join(dir, "state"), dir: filepath.Join(dir, "www")}
}

func (p *place) open() *InPlace {
	p.t.Helper()
	p.n++
	ip, err := OpenInPlace(p.t.Context(), p.state, p.dir, Owner{Daemon: "me", Run: int64(p.n), Job: "deploy", Attempt: 1})
	if err != nil {
		p.t.Fatal(err)
	}
	return ip
}

// id is the n-th name of a release.
func nth(n int) string { return deploy.ReleaseID(time.Unix(int64(n), 0), "aaaaaaa", 1) }

func nthCommit(n int) string { return fmt.Sprintf("%040x", n) }

// stage compares and writes what is new; it gives the names of that.
func stage(ip *InPlace, f files, n int, overwrite bool) (sent []string, err error) {
	if err := ip.Begin(Spec{Release: nth(n), Repository: "r", Commit: nthCommit(n)}, overwrite); err != nil {
		return nil, err
	}
	var lacking []deploy.TreeFile
	for _, one := range f.tree() {
		has, err := ip.Compare(one)
		if err != nil {
			return nil, err
		}
		if !has {
			lacking = append(lacking, one)
		}
	}
	if err := ip.Compared(); err != nil {
		return nil, err
	}
	if err := ip.Stage(); err != nil {
		return nil, err
	}
	for _, one := range lacking {
		sent = append(sent, one.Path)
		if err := ip.Write(one, strings.NewReader(strings.TrimPrefix(f[one.Path], "->"))); err != nil {
			return nil, err
		}
	}
	return sent, nil
}

// deploy deploys files as one run does.
func (p *place) deploy(f files, overwrite bool) (sent []string, err error) {
	p.t.Helper()
	ip := p.open()
	defer ip.Close()
	sent, err = stage(ip, f, p.n, overwrite)
	if err == nil {
		err = ip.Switch(false)
	}
	if err != nil {
		if derr := ip.Discard(); derr != nil {
			p.t.Error(derr)
		}
		return sent, err
	}
	return sent, ip.Live()
}

func (p *place) must(f files) []string {
	p.t.Helper()
	sent, err := p.deploy(f, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return sent
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) write(name, text string) {
	p.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(p.path(name)), 0o755), os.WriteFile(p.path(name), []byte(text), 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) do(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// there reads all that is in the directory, in the form of files.
func (p *place) there() files {
	p.t.Helper()
	got := files{}
	err := filepath.WalkDir(p.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(p.dir, name)
		switch {
		case d.IsDir():
			if entries, err := os.ReadDir(name); err == nil && len(entries) == 0 && rel != "." {
				got[rel+"/"] = ""
			}
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			got[rel] = "->" + target
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(name)
			got[rel] = string(b)
			st, _ := d.Info()
			want := fs.FileMode(0o644)
			if strings.HasPrefix(string(b), "#!") {
				want = 0o755
			}
			if st.Mode().Perm() != want && !strings.HasPrefix(d.Name(), ".deployhook-") {
				p.t.Errorf("%s has mode %v", rel, st.Mode())
			}
			return err
		default:
			got[rel] = d.Type().String()
		}
		return nil
	})
	p.do(err)
	return got
}

func (p *place) want(want files) {
	p.t.Helper()
	if got := p.there(); !maps.Equal(got, want) {
		p.t.Errorf("the files are %q\nwant %q", got, want)
	}
}

// with adds to files.
func (f files) with(more files) files {
	all := maps.Clone(f)
	maps.Copy(all, more)
	return all
}

func TestTrackedFilesBecomeThoseOfTheCommit(t *testing.T) {
	p := newPlace(t)
	long := strings.Repeat("n", 255)
	one := files{
		"a": "1", "b/c": "2", "b/d/e": "3", "run": "#!/bin/sh\n", "link": "->b/c", "out": "->/etc/passwd", "gone/x": "4", "gone/deep/y": "5",
		"new\nline \xff": "6", long: "7", "empty": "", "file-then-dir": "8", "dir-then-file/x": "9", "dir-then-file/z/w": "10",
		"link-then-dir": "->b", "Case": "11", "flips": "12",
	}
	if sent := p.must(one); len(sent) != len(one) {
		t.Errorf("of the first deploy only %q were sent", sent)
	}
	p.want(one)
	untracked := files{"upload": "mine", "b/mine": "mine", "gone/deep/mine": "mine", "cache/x": "->nowhere"}
	for name, text := range untracked {
		if target, ok := strings.CutPrefix(text, "->"); ok {
			p.do(os.MkdirAll(filepath.Dir(p.path(name)), 0o755))
			p.do(os.Symlink(target, p.path(name)))
			continue
		}
		p.write(name, text)
	}
	two := files{
		"a": "1", "b/c": "changed", "b/d/e": "3", "run": "no script", "link": "->a", "out": "#!now a program", "new\nline \xff": "6 too", long: "7", "empty": "",
		"file-then-dir/x/y": "8", "dir-then-file": "9", "link-then-dir/c": "2", "case": "11", "flips": "->a", "fresh/er/x": "13",
	}
	sent := p.must(two)
	for _, same := range []string{"a", "b/d/e", long, "empty"} {
		if slices.Contains(sent, same) {
			t.Errorf("%q was sent, and had not changed", same)
		}
	}
	p.want(two.with(untracked))
	// Back again, by the same way: what becomes empty goes.
	p.must(one)
	p.want(one.with(untracked))
	p.do(os.Remove(p.path("gone/deep/mine")))
	p.do(os.Mkdir(p.path("b/empty"), 0o755))
	p.must(files{"a": "1"})
	delete(untracked, "gone/deep/mine")
	p.want(files{"a": "1", "b/empty/": ""}.with(untracked))
	p.must(files{})
	p.want(files{"b/empty/": ""}.with(untracked))
}

func TestUnchangedFilesAreNotTouched(t *testing.T) {
	p := newPlace(t)
	f := files{"a": "1", "b/c": "2", "run": "#!x"}
	p.must(f)
	before, err := os.Stat(p.path("b/c"))
	p.do(err)
	dir, err := os.Stat(p.path("b"))
	p.do(err)
	if sent := p.must(f.with(files{"a": "one"})); !slices.Equal(sent, []string{"a"}) {
		t.Errorf("%q were sent", sent)
	}
	after, err := os.Stat(p.path("b/c"))
	p.do(err)
	dirAfter, err := os.Stat(p.path("b"))
	p.do(err)
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) || !dir.ModTime().Equal(dirAfter.ModTime()) {
		t.Error("an unchanged file, or its directory, was written")
	}
}

func TestChangesByHandStopTheDeployWithTheirNames(t *testing.T) {
	base := files{"a": "aaaa", "b/c": "cccc", "b/d": "dddd", "old": "oooo", "link": "->a", "run": "#!x", "with space, (and more)": "w"}
	next := files{"a": "AAAA", "b/c": "cccc", "b/d": "dddd", "link": "->b", "run": "#!x", "with space, (and more)": "w", "new": "nnnn"}
	for name, tt := range map[string]struct {
		change func(p *place)
		want   string
		taken  bool // overwrite takes it over
	}{
		"same size":                     {func(p *place) { p.write("a", "bbbb") }, "changed by hand: a;", true},
		"not changed by the commit":     {func(p *place) { p.write("b/c", "longer than before") }, "changed by hand: b/c;", true},
		"with the old times":            {func(p *place) { p.sameTimes("b/c", "CCCC") }, "changed by hand: b/c;", true},
		"two":                           {func(p *place) { p.write("b/d", "x"); p.write("a", "y") }, "changed by hand: a, b/d;", true},
		"quoted":                        {func(p *place) { p.write("with space, (and more)", "x") }, `changed by hand: "with space, (and more)";`, true},
		"link":                          {func(p *place) { p.replace("link", "->elsewhere") }, "changed by hand: link;", true},
		"file to a link":                {func(p *place) { p.replace("b/c", "->../a") }, "changed by hand: b/c;", true},
		"link to a file":                {func(p *place) { p.replace("link", "a") }, "changed by hand: link;", true},
		"file to a pipe":                {func(p *place) { p.do(os.Remove(p.path("a"))); p.do(syscall.Mkfifo(p.path("a"), 0o644)) }, "changed by hand: a;", true},
		"removed by the commit":         {func(p *place) { p.write("old", "mine now") }, "changed by hand, and not in the commit any more: old;", true},
		"untracked in the way":          {func(p *place) { p.write("new", "mine") }, "there already with another content, and not from a deploy: new;", true},
		"directory to a link":           {func(p *place) { p.away("b"); p.do(os.Symlink("../elsewhere", p.path("b"))) }, "there already, where the commit has a directory: b;", true},
		"directory to a link inside":    {func(p *place) { p.do(os.Rename(p.path("b"), p.path("B"))); p.do(os.Symlink("B", p.path("b"))) }, "there already, where the commit has a directory: b;", true},
		"directory to a file":           {func(p *place) { p.away("b"); p.write("b", "x") }, "there already, where the commit has a directory: b;", true},
		"file to a directory of others": {func(p *place) { p.do(os.Remove(p.path("a"))); p.write("a/mine", "x") }, "the commit has a file a, and in ", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.must(base)
			p.must(base) // what was written just before is known by its looks now
			p.write("untracked", "mine")
			tt.change(p)
			before := p.there()
			_, err := p.deploy(next, false)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("the error is %v\nwant %s", err, tt.want)
			}
			p.want(before)
			if f, err := LookInPlace(p.state, p.dir); err != nil || f.Intent != nil || f.Half || f.Current != "releases/"+nth(2) {
				t.Errorf("the journal says %+v, %v", f, err)
			}
			_, err = p.deploy(next, true)
			if !tt.taken {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("overwrite: %v", err)
				}
				p.want(before)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rest := files{"untracked": "mine"}
			if name == "directory to a link inside" {
				rest["B/c"], rest["B/d"] = "cccc", "dddd" // what was moved by hand is nobody's
			}
			p.want(next.with(rest))
		})
	}
}

// sameTimes changes a file and gives it back the times that it had.
func (p *place) sameTimes(name, text string) {
	p.t.Helper()
	st, err := os.Stat(p.path(name))
	p.do(err)
	p.do(os.WriteFile(p.path(name), []byte(text), 0o644))
	p.do(os.Chtimes(p.path(name), st.ModTime(), st.ModTime()))
}

func (p *place) replace(name, text string) {
	p.t.Helper()
	p.do(os.Remove(p.path(name)))
	if target, ok := strings.CutPrefix(text, "->"); ok {
		p.do(os.Symlink(target, p.path(name)))
		return
	}
	p.write(name, text)
}

// away moves a directory out of the site.
func (p *place) away(name string) {
	p.t.Helper()
	p.do(os.Rename(p.path(name), filepath.Join(p.dir, "..", "elsewhere")))
}

func TestManyChangesAreCutInOneSentence(t *testing.T) {
	p := newPlace(t)
	f := files{}
	for i := range 2000 {
		f[fmt.Sprintf("dir/file-%04d", i)] = "x"
	}
	p.must(f)
	for name := range f {
		p.write(name, "y")
	}
	_, err := p.deploy(f, false)
	if err == nil || len(err.Error()) > 3500 || !strings.Contains(err.Error(), "changed by hand: dir/file-0000, dir/file-0001") || !strings.Contains(err.Error(), " more; put them back") {
		t.Errorf("the error is %v", err)
	}
}

func TestRemovedByHandIsThereAgain(t *testing.T) {
	p := newPlace(t)
	f := files{"a": "1", "b/c": "2"}
	p.must(f)
	p.do(os.RemoveAll(p.path("b")))
	ip := p.open()
	if sent, err := stage(ip, f, p.n, false); err != nil || !slices.Equal(sent, []string{"b/c"}) {
		t.Fatalf("%q were sent, %v", sent, err)
	}
	if b := ip.Begun(); b.Write != 1 || b.Keep != 1 {
		t.Errorf("it says %+v", b)
	}
	p.do(errors.Join(ip.Switch(false), ip.Live(), ip.Close()))
	p.want(f)
}

func TestModeIsSetRightAndIsNoChangeByHand(t *testing.T) {
	p := newPlace(t)
	f := files{"run": "#!x", "page": "p"}
	p.must(f)
	p.do(errors.Join(os.Chmod(p.path("run"), 0o644), os.Chmod(p.path("page"), 0o755)))
	if sent := p.must(f); !slices.Equal(sent, []string{"page", "run"}) {
		t.Errorf("%q were sent", sent)
	}
	p.want(f)
}

func TestFirstDeployIntoFilesThatAreThere(t *testing.T) {
	p := newPlace(t)
	p.write("same", "1")
	p.write("upload", "mine")
	p.write(".git/HEAD", "ref: refs/heads/main\n")
	f := files{"same": "1", "new": "2"}
	before, err := os.Stat(p.path("same"))
	p.do(err)
	if sent := p.must(f); !slices.Equal(sent, []string{"new"}) {
		t.Errorf("%q were sent", sent)
	}
	after, err := os.Stat(p.path("same"))
	p.do(err)
	if !os.SameFile(before, after) {
		t.Error("a file that was equal was written")
	}
	p.want(f.with(files{"upload": "mine", ".git/HEAD": "ref: refs/heads/main\n"}))
	p.must(files{"new": "2"}) // what was adopted is removed like any other
	p.want(files{"new": "2", "upload": "mine", ".git/HEAD": "ref: refs/heads/main\n"})
}

func TestCloneIsTheStartingPoint(t *testing.T) {
	p := newPlace(t)
	old := files{"a": "1", "b": "2", "gone": "3"}
	for name, text := range old {
		p.write(name, text)
	}
	commit := strings.Repeat("c", 40)
	for name, at := range map[string]func(){
		"a branch": func() { p.write(".git/refs/heads/main", commit+"\n") },
		"a packed branch": func() {
			p.write(".git/packed-refs", "# pack-refs\n"+nthCommit(1)+" refs/heads/other\n"+commit+" refs/heads/main\n")
		},
		"a commit": func() { p.write(".git/HEAD", commit+"\n") },
	} {
		p.do(os.RemoveAll(p.path(".git")))
		p.write(".git/HEAD", "ref: refs/heads/main\n")
		at()
		ip := p.open()
		if got := ip.Clone(); got != commit {
			t.Errorf("%s: the clone is of %q", name, got)
		}
		p.do(ip.Close())
	}
	for name, head := range map[string]string{
		"elsewhere": "ref: refs/../../../etc/passwd\n", "nothing": "", "no ref": "ref: HEAD\n", "too long": strings.Repeat("a", 5000), "no such branch": "ref: refs/heads/x\n",
	} {
		p.write(".git/HEAD", head)
		ip := p.open()
		if got := ip.Clone(); got != "" {
			t.Errorf("%s: the clone is of %q", name, got)
		}
		p.do(ip.Close())
	}
	ip := p.open()
	for _, f := range old.tree() {
		p.do(ip.Base(f))
	}
	next := files{"a": "one", "b": "2"}
	if sent, err := stage(ip, next, p.n, false); err != nil || !slices.Equal(sent, []string{"a"}) {
		t.Fatalf("%q were sent, %v", sent, err)
	}
	p.do(errors.Join(ip.Switch(false), ip.Live(), ip.Close()))
	p.do(os.RemoveAll(p.path(".git")))
	p.want(next)
	ip = p.open()
	if got := ip.Clone(); got != "" {
		t.Errorf("after a deploy the clone is of %q", got)
	}
	p.do(ip.Close())
}

func TestWhatStepsChangedIsNoChangeByHand(t *testing.T) {
	p := newPlace(t)
	f := files{"lock.json": "1", "a": "1"}
	ip := p.open()
	_, err := stage(ip, f, p.n, false)
	p.do(errors.Join(err, ip.Switch(false)))
	p.write("lock.json", "written by npm install")
	p.do(errors.Join(ip.Proving(), ip.Live(), ip.Close()))
	if sent := p.must(f); !slices.Equal(sent, []string{"lock.json"}) {
		t.Errorf("%q were sent", sent)
	}
	p.want(f)
	// Of a deploy that failed too.
	ip = p.open()
	_, err = stage(ip, f, p.n, false)
	p.do(errors.Join(err, ip.Switch(false)))
	p.write("lock.json", "written again")
	p.do(errors.Join(ip.Failed(), ip.Close()))
	p.must(f)
	p.write("lock.json", "by hand")
	if _, err := p.deploy(f, false); err == nil || !strings.Contains(err.Error(), "changed by hand: lock.json;") {
		t.Errorf("the error is %v", err)
	}
}

func TestChangeDuringTheDeployStopsIt(t *testing.T) {
	for name, change := range map[string]func(p *place){
		"a file":        func(p *place) { p.write("a", "by hand") },
		"a new file":    func(p *place) { p.write("new", "by hand") },
		"a gone file":   func(p *place) { p.write("old", "by hand") },
		"the directory": func(p *place) { p.do(os.Rename(p.dir, p.dir+".old")); p.do(os.Mkdir(p.dir, 0o755)) },
		"a directory":   func(p *place) { p.do(os.Rename(p.path("d"), p.path("e"))); p.do(os.Symlink("e", p.path("d"))) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.must(files{"a": "1", "old": "2", "d/x": "3"})
			ip := p.open()
			_, err := stage(ip, files{"a": "one", "new": "2", "d/x": "three"}, p.n, false)
			p.do(err)
			change(p)
			before := p.there()
			err = ip.Switch(false)
			if !errors.Is(err, ErrNotBegun) {
				t.Fatalf("the error is %v", err)
			}
			p.do(errors.Join(ip.Discard(), ip.Close()))
			for at := range p.there() {
				if strings.Contains(at, ".deployhook-") && !strings.HasPrefix(at, "e/") { // that was moved away with its directory
					t.Errorf("%s was left", at)
				}
			}
			delete(before, "")
			for at, text := range before {
				if !strings.Contains(at, ".deployhook-") && p.there()[at] != text {
					t.Errorf("%s was changed", at)
				}
			}
		})
	}
}

func TestOneDirectoryIsOpenedOnce(t *testing.T) {
	p := newPlace(t)
	ip := p.open()
	defer ip.Close()
	// Another daemon has another journal, and the same directory.
	other := filepath.Join(t.TempDir(), "state")
	ctx, cancel := contextFor(t, 200*time.Millisecond)
	defer cancel()
	if _, err := OpenInPlace(ctx, p.state, p.dir, Owner{}); err == nil || !strings.Contains(err.Error(), p.dir+" is in use by run 1 job deploy") {
		t.Errorf("the same journal: %v", err)
	}
	ctx, cancel = contextFor(t, 200*time.Millisecond)
	defer cancel()
	link := p.dir + "-link"
	p.do(os.Symlink(p.dir, link))
	for _, dir := range []string{p.dir, link} {
		if _, err := OpenInPlace(ctx, other, dir, Owner{}); err == nil || !strings.Contains(err.Error(), "in use by another deployhook") {
			t.Errorf("another journal, %s: %v", dir, err)
		}
	}
}

func TestDirectoryThatCannotBeUsedIsSaid(t *testing.T) {
	p := newPlace(t)
	p.do(os.WriteFile(p.dir, []byte("x"), 0o644))
	if _, err := OpenInPlace(t.Context(), p.state, p.dir, Owner{}); err == nil || !strings.Contains(err.Error(), "is not a directory: move it away") {
		t.Errorf("a file: %v", err)
	}
	p.do(os.Remove(p.dir))
	p.write(".deployhook/releases.ndjson", "")
	if _, err := OpenInPlace(t.Context(), p.state, p.dir, Owner{}); err == nil || !strings.Contains(err.Error(), "of strategy symlink") {
		t.Errorf("a release path: %v", err)
	}
}

func TestNothingIsWrittenOutside(t *testing.T) {
	p := newPlace(t)
	outside := t.TempDir()
	p.do(os.MkdirAll(p.dir, 0o755))
	p.do(os.Symlink(outside, p.path("d")))
	for _, overwrite := range []bool{false, true} {
		_, err := p.deploy(files{"d/x": "1"}, overwrite)
		if (err == nil) != overwrite {
			t.Errorf("overwrite %v: %v", overwrite, err)
		}
		if list, _ := os.ReadDir(outside); len(list) > 0 {
			t.Fatalf("%v was written outside", list)
		}
	}
	p.want(files{"d/x": "1"}) // the link gave way
	for _, bad := range []string{"../x", "/etc/x", ".git/config", "a/.GIT/x", "", "a//b", "./x", "a\x00b"} {
		ip := p.open()
		p.do(ip.Begin(Spec{Release: nth(9), Commit: nthCommit(9)}, true))
		if _, err := ip.Compare(deploy.TreeFile{Path: bad, Mode: deploy.TreePlain, Blob: strings.Repeat("a", 40)}); err == nil {
			t.Errorf("%q was taken", bad)
		}
		p.do(ip.Close())
	}
}

func TestWhatIsSentIsHeldAgainstTheList(t *testing.T) {
	p := newPlace(t)
	f := files{"a": "1", "b": "2"}
	ip := p.open()
	defer ip.Close()
	p.do(ip.Begin(Spec{Release: nth(1), Commit: nthCommit(1)}, false))
	tree := f.tree()
	for _, one := range tree {
		_, err := ip.Compare(one)
		p.do(err)
	}
	p.do(errors.Join(ip.Compared(), ip.Stage()))
	if err := ip.Write(tree[0], strings.NewReader("X")); err == nil || !strings.Contains(err.Error(), "is not its content") {
		t.Errorf("another content: %v", err)
	}
	if err := ip.Write(deploy.TreeFile{Path: "c", Mode: deploy.TreePlain}, strings.NewReader("")); err == nil {
		t.Error("a file that was not asked for was taken")
	}
	if err := ip.Switch(false); err == nil || !errors.Is(err, ErrNotBegun) {
		t.Errorf("a switch without all files: %v", err)
	}
}

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// mounted makes the directory a small file system of its own.
func (p *place) mounted(options string) {
	p.t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			p.t.Fatal("this test mounts a file system and needs root")
		}
		p.t.Skip("this test mounts a file system and needs root")
	}
	p.do(os.MkdirAll(p.dir, 0o755))
	p.do(syscall.Mount("tmpfs", p.dir, "tmpfs", 0, options))
	p.t.Cleanup(func() { _ = syscall.Unmount(p.dir, syscall.MNT_DETACH) })
}

func TestWithoutRoomNothingIsChanged(t *testing.T) {
	many := files{}
	for i := range 300 {
		many[fmt.Sprintf("many/%d", i)] = ""
	}
	for name, tt := range map[string]struct {
		options string
		next    files
		want    string
	}{
		"bytes":  {"size=20m", files{"a": strings.Repeat("x", 6<<20)}, "no space left in "},
		"inodes": {"size=40m,nr_inodes=350", many, "no inodes left in "},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.mounted(tt.options)
			one := files{"a": "1", "b": "2"}
			p.must(one)
			if _, err := p.deploy(tt.next, false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v", err)
			}
			p.want(one)
			p.must(one)
		})
	}
}

func TestDiskThatFillsWhileFilesAreWrittenChangesNothing(t *testing.T) {
	p := newPlace(t)
	p.mounted("size=24m")
	one := files{"a": "1", "b": "2"}
	p.must(one)
	next := files{"a": strings.Repeat("x", 2<<20), "b": strings.Repeat("y", 2<<20)}
	ip := p.open()
	p.do(ip.Begin(Spec{Release: nth(2), Commit: nthCommit(2)}, false))
	for _, f := range next.tree() {
		_, err := ip.Compare(f)
		p.do(err)
	}
	p.do(errors.Join(ip.Compared(), ip.Stage()))
	p.do(ip.Write(next.tree()[0], strings.NewReader(next["a"])))
	p.write("filler", strings.Repeat("z", 21<<20))
	err := ip.Write(next.tree()[1], strings.NewReader(next["b"]))
	if err == nil || err.Error() != "no space left in "+p.dir {
		t.Errorf("the error is %v", err)
	}
	p.do(errors.Join(ip.Discard(), ip.Close()))
	p.want(one.with(files{"filler": strings.Repeat("z", 21<<20)}))
	p.do(os.Remove(p.path("filler")))
	p.must(next)
	p.want(next)
}

func TestManifestThatIsDamagedIsActedUponByNobody(t *testing.T) {
	p := newPlace(t)
	f := files{"a": "1", "b": "2"}
	p.must(f)
	list := filepath.Join(inPlaceDir(p.state, p.dir), "manifest")
	good, err := os.ReadFile(list)
	p.do(err)
	text := string(good)
	for name, bad := range map[string]string{
		"empty": "", "cut": text[:len(text)-8], "garbage": "\x00\x01", "another format": strings.Replace(text, `"format":1`, `"format":2`, 1),
		"another directory": strings.Replace(text, p.dir, "/elsewhere", 1), "an entry without a path": strings.Replace(text, ` "a"`, "", 1),
		"a path out of it": strings.Replace(text, `"a"`, `"../a"`, 1), "more": text + "more\n", "a count that is wrong": strings.Replace(text, "end 2", "end 3", 1),
		"a release that is none": strings.Replace(text, "releases/", "elsewhere/", 1),
	} {
		p.do(os.WriteFile(list, []byte(bad), 0o644))
		ip := p.open()
		found, err := ip.Found()
		p.do(err)
		if found.Foreign == "" || strings.Contains(found.Foreign, "\n") {
			t.Errorf("%s: it is taken", name)
		}
		if err := ip.Begin(Spec{Release: nth(5), Commit: nthCommit(5)}, true); err == nil {
			t.Errorf("%s: a deploy begins", name)
		}
		p.do(ip.Close())
	}
	ip := p.open()
	p.do(errors.Join(ip.Abandon(), ip.Close()))
	p.write("b", "by hand")
	if _, err := p.deploy(f, false); err == nil || !strings.Contains(err.Error(), "not from a deploy: b;") {
		t.Errorf("the error is %v", err)
	}
	p.write("b", "2")
	p.must(f)
	p.want(f)
}

func FuzzManifest(f *testing.F) {
	f.Add("")
	f.Add(`{"format":1,"path":"/srv","current":"","whole":true}` + "\nend 0\n")
	f.Add(`{"format":1,"path":"/srv","current":"releases/20260401T101500Z-aaaaaaa","whole":false}` + "\n" +
		strings.Repeat("a", 40) + ` f 1 2 3 4 5 "a b\n\xff"` + "\n" + strings.Repeat("b", 40) + ` l 1 0 0 0 0 "x/y"` + "\nend 2\n")
	f.Add(`{"format":1}` + "\n" + strings.Repeat("a", 40) + ` x -1 0 0 0 0 "../x"` + "\nend 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseManifest(manifestScanner(strings.NewReader(text)))
		if err != nil {
			return
		}
		for path := range m.files {
			if ValidTreePath(path) != nil {
				t.Errorf("it has the path %q", path)
			}
		}
		var b strings.Builder
		if err := m.write(&b); err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(manifestScanner(strings.NewReader(b.String())))
		if err != nil || len(again.files) != len(m.files) || again.Current != m.Current || again.Whole != m.Whole {
			t.Errorf("written and read again it is %+v, %v", again, err)
		}
	})
}

func FuzzStaged(f *testing.F) {
	f.Add(".deployhook-0123456789abcdef-\n\".\"\n\"a/b\"\n")
	f.Add(".deployhook-0123456789abcdef-\n\"../etc\"\n")
	f.Add("\n")
	f.Fuzz(func(t *testing.T, text string) {
		prefix, dirs, err := parseStaged(text)
		if err != nil {
			return
		}
		if !stagedPrefix.MatchString(prefix) {
			t.Errorf("the prefix is %q", prefix)
		}
		for _, dir := range dirs {
			if dir != "." && ValidTreePath(dir) != nil {
				t.Errorf("it has the directory %q", dir)
			}
		}
	})
}

func FuzzPackedRef(f *testing.F) {
	f.Add("# pack-refs with: peeled\n"+strings.Repeat("a", 40)+" refs/heads/main\n^"+strings.Repeat("b", 40)+"\n", "refs/heads/main")
	f.Add("x refs/heads/main", "refs/heads/main")
	f.Fuzz(func(t *testing.T, text, ref string) {
		if id := packedRef(text, ref); id != "" && !deploy.ValidCommit(id) {
			t.Errorf("it names %q", id)
		}
	})
}

// BenchmarkInPlace is a deploy to 4,000 files of 10 KB, of which one changed.
func BenchmarkInPlace(b *testing.B) {
	for _, known := range []bool{true, false} {
		b.Run(fmt.Sprintf("known by their looks %v", known), func(b *testing.B) {
			dir := b.TempDir()
			f := files{}
			for i := range 4000 {
				f[fmt.Sprintf("dir%d/file%d", i%40, i)] = strings.Repeat(fmt.Sprint(i), 10_000/len(fmt.Sprint(i)))
			}
			open := func(n int) *InPlace {
				ip, err := OpenInPlace(b.Context(), filepath.Join(dir, "state"), filepath.Join(dir, "www"), Owner{Daemon: "me", Run: int64(n), Job: "j"})
				if err != nil {
					b.Fatal(err)
				}
				return ip
			}
			once := func(n int) {
				f["dir0/file0"] = fmt.Sprint(n)
				ip := open(n)
				_, err := stage(ip, f, n, false)
				if err = errors.Join(err, ip.Switch(false), ip.Live(), ip.Close()); err != nil {
					b.Fatal(err)
				}
			}
			once(1)
			time.Sleep(2100 * time.Millisecond) // what was written just now is not known by its looks
			once(2)
			n := 2
			for b.Loop() {
				n++
				if !known {
					b.StopTimer()
					ip := open(n)
					for _, list := range ip.known.files {
						for i := range list {
							list[i].seen = stamp{}
						}
					}
					if err := errors.Join(ip.writeManifest(ip.known), ip.Close()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				once(n)
			}
		})
	}
}
