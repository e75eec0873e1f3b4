package adopt

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTreeOfTheRealCapistrano deploys with Capistrano itself, on this machine
// and without SSH, and goes back once.
func TestTreeOfTheRealCapistrano(t *testing.T) {
	cap, err := exec.LookPath("cap")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("capistrano is not installed: scripts/tools")
		}
		t.Skip("capistrano is not installed: apt-get install capistrano")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	run := func(in string, words ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
		cmd.Dir = in
		cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "TMPDIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", words, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, text string) {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("app/Capfile", "require \"capistrano/setup\"\nrequire \"capistrano/deploy\"\nrequire \"capistrano/scm/git\"\ninstall_plugin Capistrano::SCM::Git\n")
	write("app/config/deploy.rb", `set :application, "shop"
set :repo_url, "file://`+dir+`/origin"
set :branch, "main"
set :deploy_to, "`+dir+`/srv"
set :tmp_dir, "`+dir+`"
append :linked_dirs, "log", "tmp/pids"
append :linked_files, "config/master.key"
`)
	write("app/config/deploy/production.rb", "role :app, [:local]\n")
	write("srv/shared/config/master.key", "k")
	write("origin/index.txt", "")
	run(dir, "git", "init", "-q", "-b", "main", "origin")
	var commits, releases []string
	for _, text := range []string{"one", "two", "three"} {
		write("origin/index.txt", text)
		run(dir+"/origin", "git", "add", "-A")
		run(dir+"/origin", "git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", text)
		commits = append(commits, run(dir+"/origin", "git", "rev-parse", "HEAD"))
		run(dir+"/app", cap, "production", "deploy")
		target, err := os.Readlink(dir + "/srv/current")
		if err != nil || !filepath.IsAbs(target) {
			t.Fatalf("current points to %q, %v", target, err)
		}
		releases = append(releases, filepath.Base(target))
		for time.Now().UTC().Format("20060102150405") <= releases[len(releases)-1] {
			time.Sleep(10 * time.Millisecond) // its names have no finer time
		}
	}
	run(dir+"/app", cap, "production", "deploy:rollback")
	s := look(t, dir+"/srv")
	want := releases[0] + " live " + commits[0][:7] + "\n" + releases[1] + " live " + commits[1][:7]
	if s.Tool != Capistrano || names(s) != want || s.Current != releases[1] || s.Commit != commits[1] || s.Branch != "main" {
		t.Errorf("it is taken for %+v, want\n%s", s, want)
	}
	if s.CloneURL != dir+"/origin" || strings.Join(s.SharedDirs, " ") != "log tmp/pids" || strings.Join(s.SharedFiles, " ") != "config/master.key" {
		t.Errorf("it is taken for %+v", s)
	}
	for _, l := range s.Left {
		t.Logf("left alone: %+v", l)
	}
	before := run(dir, "find", "srv", "-not", "-path", "*/.deployhook*", "-not", "-path", "srv", "-printf", "%p %m %U %s %T@ %l\n")
	if lines, err := s.Write(t.Context(), me()); err != nil || len(lines) != 2 {
		t.Errorf("wrote %+v, %v", lines, err)
	}
	if after := run(dir, "find", "srv", "-not", "-path", "*/.deployhook*", "-not", "-path", "srv", "-printf", "%p %m %U %s %T@ %l\n"); after != before {
		t.Errorf("something else was touched:\n%s\nwas\n%s", after, before)
	}
	// A commit that a log shortened is found in the tool's own mirror.
	write("srv/releases/"+releases[0]+"/REVISION", commits[0][:8]+"\n")
	if err := os.RemoveAll(dir + "/srv/.deployhook"); err != nil {
		t.Fatal(err)
	}
	write("srv/revisions.log", "Branch main (at "+commits[0][:7]+") deployed as release "+releases[0]+" by alice\n")
	if s := look(t, dir+"/srv"); s.Releases[0].Commit != commits[0] {
		t.Errorf("a short commit is %q, want %s", s.Releases[0].Commit, commits[0])
	}
}
