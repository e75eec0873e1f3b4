package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deployhook/internal/adopt"
)

// madeBy makes a release of a commit as another tool does: a directory of any
// name, with REVISION in it.
func (s *site) madeBy(name, text, commit string) {
	s.t.Helper()
	dir := "srv/releases/" + name
	s.put(dir+"/index.txt", text+"\n")
	s.put(dir+"/built.txt", text+"\n")
	if commit != "" {
		s.put(dir+"/REVISION", commit+"\n")
	}
}

// adopt takes the release path over.
func (s *site) adopt(path string) *adopt.Site {
	s.t.Helper()
	got, err := adopt.Look(s.t.Context(), path)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := got.Pipeline(); err != nil {
		s.t.Fatal(err)
	}
	u, err := adopt.UserOf("", path)
	if err != nil {
		s.t.Fatal(err)
	}
	u.UID, u.GID = os.Getuid(), os.Getgid()
	if _, err := got.Write(s.t.Context(), u); err != nil {
		s.t.Fatal(err)
	}
	return got
}

// foreign makes commits one, two and three, which another tool has deployed.
func (s *site) foreign() (commits []string) {
	s.t.Helper()
	for _, text := range []string{"one", "two", "three"} {
		commits = append(commits, s.commit(text))
	}
	s.last = commits[2]
	return commits
}

// listed are the releases as `deployhook releases` has them: the newest first.
func (s *site) listed() []string {
	s.t.Helper()
	list, err := s.client.Releases(s.t.Context(), "shop")
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for _, r := range list {
		line := r.ID + " " + string(r.State) + " " + fmt.Sprintf("%.7s", r.Commit)
		if r.Current {
			line += " current"
		}
		lines = append(lines, line)
	}
	return lines
}

func (s *site) wantListed(want ...string) {
	s.t.Helper()
	if got := s.listed(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		s.t.Fatalf("the releases are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTreeOfCapistranoGoesOnWithDeployhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.foreign()
	names := []string{"20240101100000", "20240102100000", "20240103100000"}
	log := ""
	for i, text := range []string{"one", "two", "three"} {
		s.madeBy(names[i], text, c[i])
		log += fmt.Sprintf("Branch main (at %s) deployed as release %s by alice\n", c[i], names[i])
	}
	s.put("srv/revisions.log", log)
	s.put("srv/repo/config", "[remote \"origin\"]\n\turl = git@github.com:acme/shop.git\n")
	s.put("srv/repo/HEAD", "ref: refs/heads/main\n")
	link := s.path("srv/releases/" + names[2])
	if err := os.Symlink(link, s.current()); err != nil {
		t.Fatal(err)
	}
	before, err := os.Lstat(s.current())
	if err != nil {
		t.Fatal(err)
	}
	s.adopt(s.path("srv"))
	if after, err := os.Lstat(s.current()); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Error("current was touched")
	}
	s.start(s.config(`
      deploy:
        release: { path: ` + s.path("srv") + `, keep: 3 }
        steps: [ { run: "cp index.txt built.txt; echo was $DEPLOYHOOK_PREVIOUS_RELEASE" } ]
        restart: "! grep -q crash index.txt"
`))
	three := names[2] + " live " + c[2][:7]
	two, one := names[1]+" live "+c[1][:7], names[0]+" live "+c[0][:7]
	s.wantListed(three+" current", two, one)
	// A commit that is contained in what the other tool deployed is no news.
	if r := s.want(s.send(strings.Repeat("0", 40), c[1]).Runs[0], "canceled"); !strings.Contains(why(r), "already live in "+names[2]) {
		t.Errorf("an older commit: %q", why(r))
	}
	// A release that does not restart goes back to the adopted one.
	if r := s.want(s.push("crash"), "failed"); !strings.Contains(why(r), names[2]+" is current again") {
		t.Errorf("the error is %q", why(r))
	}
	s.wantLive("three")
	if target, err := os.Readlink(s.current()); err != nil || target != "releases/"+names[2] {
		t.Errorf("current points to %q, %v", target, err)
	}
	// The next one stands beside the old ones, and the oldest goes.
	id := s.push("four")
	s.want(id, "succeeded")
	s.wantLive("four")
	if !strings.Contains(s.logOf(id), "was "+names[2]) {
		t.Errorf("the release before is not told:\n%s", s.logOf(id))
	}
	if s.exists("srv/releases/"+names[0]) || !s.exists("srv/releases/"+names[1]) {
		t.Error("not the oldest release was pruned")
	}
	if got := s.back(""); got.Target != names[2] {
		t.Errorf("the rollback is %+v, want one to %s", got, names[2])
	}
	s.wantLive("three")
	if r, err := s.client.Run(t.Context(), s.back(names[1]).Run); err != nil || r.Commit == nil || *r.Commit != c[1] {
		t.Errorf("the rollback to %s is %+v, %v", names[1], r, err)
	}
	s.wantLive("two")
	s.want(s.push("five"), "succeeded")
	s.want(s.push("six"), "succeeded")
	s.want(s.push("seven"), "succeeded")
	for _, n := range names[:1] {
		if s.exists("srv/releases/" + n) {
			t.Errorf("%s is still there", n)
		}
	}
	if list := s.listed(); !strings.HasSuffix(list[0], "current") {
		t.Errorf("the releases are %q", list)
	}
	s.wantLive("seven")
	if s.file("srv/revisions.log") != strings.TrimSpace(log) {
		t.Error("revisions.log was changed")
	}
}

func TestTreeOfDeployerGoesOnWithDeployhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.foreign()
	log := ""
	for i, text := range []string{"one", "two", "three"} {
		s.madeBy(fmt.Sprint(i+9), text, c[i]) // 9, 10, 11: by number, not by name
		log += fmt.Sprintf(`{"created_at":"2024-01-0%dT10:00:00+0000","release_name":"%d","user":"alice","target":"main"}`+"\n", i+1, i+9)
	}
	s.madeBy("8", "zero", "") // REVISION is missing
	s.put("srv/.dep/releases_log", log)
	s.put("srv/.dep/latest_release", "11\n")
	s.put("srv/releases/11/BAD_RELEASE", "2024-01-04,alice\n")
	// As after dep rollback.
	if err := os.Symlink("releases/10", s.current()); err != nil {
		t.Fatal(err)
	}
	got := s.adopt(s.path("srv"))
	if got.Tool != adopt.Deployer || got.Branch != "main" {
		t.Errorf("it is taken for %+v", got)
	}
	s.start(s.config(`
      deploy:
        release: { path: ` + s.path("srv") + `, keep: 3 }
        steps: [ { run: "cp index.txt built.txt" } ]
`))
	s.wantListed("11 bad "+c[2][:7], "10 live "+c[1][:7]+" current", "9 live "+c[0][:7], "8 live ")
	if got := s.back(""); got.From != "10" || got.Target != "9" {
		t.Errorf("the rollback is %+v, want one from 10 to 9", got)
	}
	s.wantLive("one")
	// To one whose commit nobody knows.
	if got := s.back(""); got.Target != "8" {
		t.Errorf("the rollback is %+v, want one to 8", got)
	}
	s.wantLive("zero")
	s.want(s.push("four"), "succeeded")
	s.wantLive("four")
	if got := s.back(""); got.Target != "8" {
		t.Errorf("the rollback is %+v, want one to 8", got)
	}
	s.wantLive("zero")
	s.back("10")
	s.wantLive("two")
	if list := s.listed(); !s.exists("srv/releases/8") || !strings.HasPrefix(list[0], "2") {
		t.Errorf("the releases are %q", list)
	}
}

func TestNextDeployOfTheOtherToolIsNotOverwrittenUnseen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.foreign()
	s.madeBy("20240101100000", "one", c[0])
	link := func(name string) {
		t.Helper()
		_ = os.Remove(s.current())
		if err := os.Symlink(s.path("srv/releases/"+name), s.current()); err != nil {
			t.Fatal(err)
		}
	}
	link("20240101100000")
	s.adopt(s.path("srv"))
	s.start(s.config(""))
	s.madeBy("20240102100000", "two", c[1])
	link("20240102100000")
	r := s.want(s.push("four"), "failed")
	if w := why(r); !strings.Contains(w, "deployhook adopt "+s.path("srv")+" takes over what another tool made") {
		t.Errorf("the error is %q", w)
	}
	s.adopt(s.path("srv"))
	s.wantListed("20240102100000 live "+c[1][:7]+" current", "20240101100000 live "+c[0][:7])
	s.want(s.push("five"), "succeeded")
	s.wantLive("five")
	if got := s.back(""); got.Target != "20240102100000" {
		t.Errorf("the rollback is %+v", got)
	}
}

func TestCloneGoesOnInPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.foreign()
	s.git("clone", "-q", s.repo(), s.path("www"))
	s.put("www/uploads/photo.jpg", "a photo")
	got := s.adopt(s.path("www"))
	if got.Tool != adopt.Clone || got.Commit != s.last || len(got.Changed) > 0 || got.Branch != "main" {
		t.Errorf("it is taken for %+v", got)
	}
	if s.exists("www/.deployhook") {
		t.Error("something was written among the site's files")
	}
	s.start(s.inPlace(""))
	s.want(s.push("four"), "succeeded")
	s.wantFiles(s.rev())
	if s.file("www/uploads/photo.jpg") != "a photo" || !s.exists("www/.git") {
		t.Error("what is not tracked did not stay")
	}
	s.put("www/index.txt", "by hand\n")
	if again, err := adopt.Look(t.Context(), s.path("www")); err != nil || strings.Join(again.Changed, " ") != "index.txt" {
		t.Errorf("changed by hand: %+v, %v", again, err)
	}
	if list, err := filepath.Glob(s.path("www/.deployhook*")); err != nil || len(list) > 0 {
		t.Errorf("left among the files: %q, %v", list, err)
	}
}
