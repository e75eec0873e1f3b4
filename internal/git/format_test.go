package git_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deployhook/internal/git"
)

// written makes a commit with a message, and an author in a zone of its own.
func (r *repo) written(message, author, date string) string {
	r.t.Helper()
	r.git("add", "-A")
	cmd := exec.Command("git", "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", "-")
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME="+author, "GIT_AUTHOR_EMAIL=Old.Name@example.com", "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME=Com Mitter", "GIT_COMMITTER_EMAIL=c@example.com", "GIT_COMMITTER_DATE=1700000000 -0830")
	cmd.Stdin = strings.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	return r.git("rev-parse", "HEAD")
}

// placeholders are put one to a line, each between $Format: and $.
var placeholders = []string{
	"%H", "%h", "%T", "%t", "%P", "%p", "%an", "%ae", "%al", "%aN", "%aE", "%aL", "%ad", "%aD", "%at", "%ai", "%aI", "%as", "%cn", "%ce", "%cl", "%cN", "%cE", "%cL", "%cd", "%cD", "%ct", "%ci", "%cI", "%cs",
	"%e", "%s", "%f", "%b", "%B", "%n", "%%", "%x00", "%x41%x7f%xzz%x4", "%m", "%d", "%D", "%S", "%N", "%G", "%GG", "%G?", "%GS", "%GK", "%GF", "%GP", "%GT", "%GX", "%g", "%gd", "%gD", "%gs", "%gn", "%gN", "%ge", "%gE", "%gx",
	"%", "%z", "%Z", "%a", "%az", "%c", "%aX", "%ar", "%cr", "%ah", "%ch", "%Cred%H%Creset", "%Cbold", "%C(red)x%C(reset)", "%C(auto)%h", "%C(auto,red)x", "%C(always,red)x", "%C(red", "%C", "%(", "%(x)",
	"%+s", "%-s", "% s", "%+b", "%-e", "a\n%-e", "%+e", "% e", "%+z", "%-z", "% %h", "%+w(10)", "%+", "%-", "% ",
	"%w(20)%B", "%w(20,4)%B", "%w(20,4,2)%B", "%w(0,3,1)%B", "%w(30,1,2)%s%w()%b", "%w()", "%w(", "%w(x)", "%w(1,2,3,4)", "%w(99999)", "%w(10)%an %ae\tx\ny", "x%w(8,2,3)%s%n%n%n%s",
	"%<(30)%an|", "%>(30)%an|", "%><(30)%an|", "%<(31)%s|", "%<(4)%an|", "%<(6,trunc)%s|", "%<(6,ltrunc)%s|", "%<(7,mtrunc)%s|", "%<(60,trunc)%an|", "xy   %>>(9)%an|", "x %<|(20)%an|", "x %>|(20)%an|", "%<(0)%an", "%<(x)%an", "%<(5", "%<(5,what)%an|", "%<(-5)%an", "%<|(-5)%an|", "%<", "%>", "%<()%h", "%<(20)%Cred%an|", "%<(20)%z|", "%>(5)%%|", "%<(99999)%h",
	"%(trailers)", "%(trailers:only)", "%(trailers:only=no)", "%(trailers:unfold)", "%(trailers:only,unfold)", "%(trailers:key=Reviewed-by)", "%(trailers:key=reviewed-BY:,valueonly)", "%(trailers:key=Reviewed-by,valueonly,separator=%x2C )", "%(trailers:keyonly)", "%(trailers:separator=%n%%)", "%(trailers:key_value_separator=#,only)", "%(trailers:bogus)", "%(trailers:", "%(trailers", "%(trailers:key=None)", "%(trailers:valueonly=false)", "%(trailersx)",
	"%H %h\n%an", "", "no placeholder", "%h%", "100%", "%aN <%aE>", "\x00%H", "%h\x00%H",
}

func TestExportSubstIsThatOfGitArchive(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	m := local(t, r)
	// One file for all, and one for each: some change what stands before them.
	var all strings.Builder
	for i, p := range placeholders {
		fmt.Fprintf(&all, "line %d\n\n$Format:%s$|\n", i, p)
		r.write(fmt.Sprintf("each/%03d", i), "before\n\n$Format:"+p+"$ after")
	}
	r.write("all", all.String())
	r.write("open", "$Format:%H and no end")
	r.write("twice", "$Format:%h$$Format:%h$ $$Format:%h$")
	r.write("plain", "$Format:%H$")
	r.write(".gitattributes", "* export-subst\nplain -export-subst\n.mailmap -export-subst\n")
	r.write(".mailmap", "# people\nNew Name <new@example.com> <old.name@EXAMPLE.com>\n<commit@example.com> Com Mitter <c@example.com>\n")
	if err := os.Symlink("$Format:%H$", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	odd := "\n\n  The subject: of_it, has... odd/signs -- and\ngoes on\n\nA body with words that are long enough to be wrapped, 日本語 too.\n\n * a list\n * of two\n\nSigned-off-by: A <a@example.com>\nReviewed-by: B\n  and C\nReviewed-by : D\nnot a trailer\n"
	commits := []string{
		r.written(odd, "Ann Author", "1234567890 +0530"),
		r.written("short\n", "Jürgen Ö. 日本", "1500000000 +1245"),
		r.written("no end of line", "x", "@86400 +0100"),
		r.written("title\n\nKey: value\nother: 1\n  folded\n", "Ann", "1600000000 -0100"),
		r.written("title\n\ntext\nmore: text here\n", "Ann", "1600000000 -0100"),
		r.written("Fix: only\n\n\n\nbody  \n\n\n", "Ann", "1600000000 -0100"),
	}
	r.git("branch", "other")
	r.git("tag", "light")
	r.git("tag", "-a", "v1", "-m", "one")
	r.git("checkout", "-q", "-b", "side", "HEAD~2")
	commits = append(commits, r.written("on the side\n", "Ann", "1600000001 -0100"))
	r.git("checkout", "-q", "main")
	r.git("-c", "user.name=x", "-c", "user.email=x@example.com", "merge", "-q", "--no-ff", "-m", "merge", "side")
	r.git("config", "i18n.commitEncoding", "ISO-8859-1")
	commits = append(commits, r.written("j\xfcrgen\n\nb\xf6dy\n", "J\xfcrgen", "1600000002 -0100"))
	for _, commit := range commits {
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, exported(t, m.Export(commit, git.View{Rules: true})), r.archived(commit))
	}
}

func TestDescribeIsThatOfGit(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	m := local(t, r)
	options := []string{"", ":tags", ":tags=true", ":tags=no", ":abbrev=0", ":abbrev=12", ":abbrev=4", ":match=v1*", ":match=v1*,match=w*", ":exclude=v2*", ":tags,match=l*", ":match=none", ":bogus", ":abbrev=x", ":match=", ":tags=true,match=*[0-9]*", "x"}
	day := 0
	next := func(msg string) string {
		day++
		return r.written(msg+"\n", "Ann", fmt.Sprintf("%d +0100", 1_600_000_000+day*86_400))
	}
	first := next("first")
	r.git("tag", "-a", "v1.0", "-m", "one")
	second := next("second")
	r.git("tag", "light-2")
	r.git("checkout", "-q", "-b", "side")
	next("side 1")
	r.git("tag", "-a", "w1", "-m", "side")
	side := next("side 2")
	r.git("checkout", "-q", "main")
	next("third")
	fourth := next("fourth")
	r.git("merge", "-q", "--no-ff", "-m", "merge", "side")
	merge := r.git("rev-parse", "HEAD")
	r.git("tag", "-a", "v2.0", "-m", "two")
	r.git("tag", "-a", "v2.0-again", "-m", "two")
	last := next("last")
	for i := range 14 {
		next("more")
		r.git("tag", "-a", fmt.Sprintf("x%02d", i), "-m", "x")
	}
	many := next("many")
	r.git("checkout", "-q", "--orphan", "alone")
	alone := next("alone")
	for _, commit := range []string{first, second, side, fourth, merge, last, many, alone} {
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			format := "%(describe" + o + ")"
			want := r.git("log", "-1", "--no-color", "--format="+format, commit)
			if got, err := git.Fill(t.Context(), m, commit, format); got != want || err != nil {
				t.Errorf("%s of %s is %q, %v; git has %q", format, r.git("log", "-1", "--format=%s", commit), got, err, want)
			}
		}
	}
}

// The git command is asked at a moment of its own: what it prints then is
// compared where that cannot matter.
func TestTimesAsGitWritesThem(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	m := local(t, r)
	now := time.Now().Unix()
	const day = 86_400
	for _, past := range []int64{-1000 * day, 10 * 60, 95 * 60, 5 * 3600, 40 * 3600, 13 * day, 15 * day, 60 * day, 75 * day, 200 * day, 364 * day, 366 * day, 400 * day, 800 * day, 1820 * day, 1830 * day, 5000 * day} {
		commit := r.written("x\n", "Ann", fmt.Sprintf("@%d +0000", now-past-20))
		if _, err := m.Fetch(t.Context(), commit, "refs/heads/main"); err != nil {
			t.Fatal(err)
		}
		const format = "%ar|%ah|%ad|%aD|%ai|%as|%at"
		want := r.git("log", "-1", "--no-color", "--format="+format, commit)
		if got, err := git.Fill(t.Context(), m, commit, format); got != want || err != nil {
			t.Errorf("%d s ago is %q, %v; git has %q", past, got, err, want)
		}
	}
}
