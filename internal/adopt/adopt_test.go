package adopt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/release"
)

const (
	one, two, three = "20240101100000", "20240102100000", "20240103100000"
	sha             = "3f2c1ab000000000000000000000000000000000"
)

// site is a tree that a test makes: names that end with / are directories,
// name -> target is a link, all others are files with a content.
func site(t *testing.T, entries ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-24 * time.Hour)
	for _, e := range entries {
		name, content, _ := strings.Cut(e, "=")
		link, target, isLink := strings.Cut(e, " -> ")
		if isLink {
			name = link
		}
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		switch {
		case isLink:
			err = os.Symlink(strings.ReplaceAll(target, "ROOT", root), at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(root, "releases", "*"))
	for _, d := range dirs {
		if st, err := os.Lstat(d); err == nil && st.IsDir() {
			if err := os.Chtimes(d, long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func look(t *testing.T, root string) *Site {
	t.Helper()
	s, err := Look(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// me is the user that the test runs as.
func me() *User { return &User{Name: "me", UID: os.Getuid(), GID: os.Getgid()} }

func names(s *Site) string {
	var list []string
	for _, r := range s.Releases {
		list = append(list, fmt.Sprintf("%s %s %.7s", r.Name, r.State, r.Commit))
	}
	return strings.Join(list, "\n")
}

func TestWhatIsNoTreeIsSaidInOneSentence(t *testing.T) {
	tree := []string{"releases/" + one + "/", "releases/" + two + "/"}
	for name, tt := range map[string]struct {
		entries []string
		want    string
	}{
		"nothing":               {nil, "has neither releases/ and current nor .git: there is nothing to take over"},
		"no releases":           {[]string{"releases/", "current -> releases/1"}, "releases is empty: nothing was deployed there"},
		"no current":            {tree, "current is not there, so nothing is live that could be taken over"},
		"only current":          {[]string{"current -> x"}, "has current and no releases/"},
		"current dangles":       {append(tree, "current -> ROOT/releases/"+three), "points to releases/" + three + ", which is not there"},
		"current leads outside": {append(tree, "current -> /etc"), `points to "/etc", which is no release in`},
		"current leads above":   {append(tree, "current -> releases/../.."), "which is no release in"},
		"current is a file":     {append(tree, "current=x"), "current is a file, not a link to a release"},
		"a directory":           {append(tree, "current/x=x"), "current is a directory, not a link to a release"},
		"current to a link":     {append(tree, "releases/x -> "+one, "current -> releases/x"), "which is no directory of its own"},
		"a hidden release":      {append(tree, "releases/.x/", "current -> releases/.x"), "which is no release in"},
		"a name with a newline": {append(tree, "releases/a\nb/", "current -> releases/a\nb"), "which is no release in"},
		"capistrano switches":   {append(tree, "current -> ROOT/releases/"+one, "releases/current -> x"), "the link of a switch that Capistrano has not finished"},
		"deployer is locked":    {append(tree, "current -> releases/"+one, ".dep/deploy.lock=alice\n"), "a deploy of Deployer is going on, or was cut short by alice; adopt when it has ended, or after: dep deploy:unlock"},
		"a worktree":            {[]string{".git=gitdir: /x"}, "this is a worktree or a submodule of another clone"},
		"an empty clone":        {[]string{".git/config=", ".git/HEAD=ref: refs/heads/main\n"}, "has no commit checked out"},
		"git is at work":        {[]string{".git/config=", ".git/HEAD=" + sha, ".git/MERGE_HEAD=x"}, "git is at work in"},
		"no journal of ours":    {[]string{"releases/20240101T100000Z-3f2c1ab/", "current -> releases/20240101T100000Z-3f2c1ab"}, "points to a release that deployhook made"},
		"journal is a link":     {append(tree, "current -> releases/"+two, ".deployhook -> /etc"), ".deployhook is not a directory: move it away"},
		"an unfinished switch":  {append(tree, "current -> releases/"+two, ".deployhook/intent.json=x"), "a switch of deployhook is unfinished"},
	} {
		root := site(t, tt.entries...)
		s, err := Look(t.Context(), root)
		if err == nil {
			_, err = s.Write(t.Context(), me())
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if list, _ := os.ReadDir(root); strings.Contains(fmt.Sprint(list), "lock") && tt.entries == nil {
			t.Errorf("%s: something was written", name)
		}
	}
	for _, path := range []string{"/nowhere/at/all", "adopt_test.go"} {
		if _, err := Look(t.Context(), path); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestDeployThatIsGoingOnIsWaitedFor(t *testing.T) {
	for _, entries := range [][]string{
		{"releases/" + one + "/", "releases/" + two + "/", "current -> releases/" + one, "revisions.log="},
		{"releases/1/", "releases/2/", "current -> releases/1", ".dep/latest_release=2", "release -> releases/2"},
	} {
		root := site(t, entries...)
		newest := filepath.Join(root, "releases", strings.TrimSuffix(filepath.Base(entries[1]), "/"))
		now := time.Now()
		if err := os.Chtimes(newest, now, now); err != nil {
			t.Fatal(err)
		}
		if _, err := Look(t.Context(), root); err == nil || !strings.Contains(err.Error(), "seems to be going on") {
			t.Errorf("%q: %v", entries, err)
		}
		old := now.Add(-time.Hour)
		if err := os.Chtimes(newest, old, old); err != nil {
			t.Fatal(err)
		}
		s := look(t, root)
		if len(s.Releases) != 1 || len(s.Left) != 1 || !strings.Contains(s.Left[0].Why, "it is newer than what is live") {
			t.Errorf("%q: taken %s, left %+v", entries, names(s), s.Left)
		}
	}
}

func TestRevisionsLogSaysWhatWasLive(t *testing.T) {
	root := site(t,
		"releases/"+one+"/REVISION="+sha+"\n", "releases/"+two+"/REVISION=garbage", "releases/"+three+"/",
		"releases/20240104100000/", "releases/odd name/", "releases/file=x", "current -> ROOT/releases/"+two,
		"revisions.log=Branch a b (at 1234567) deployed as release x by y\nBranch feature/x (at "+sha+") deployed as release "+one+" by alice\n"+
			"Branch main (at abcdef0000000000000000000000000000000000) deployed as release "+two+" by \nnonsense\n"+
			"alice rolled back to release "+three+"\n",
		"repo/config=[remote \"other\"]\n url = https://x.example/a/b\n[remote \"origin\"]\n\turl = https://bob:hunter2@github.com/Acme/shop.git ; c\n",
		"repo/HEAD=ref: refs/heads/master\n",
	)
	s := look(t, root)
	if want := one + " live 3f2c1ab\n" + two + " live abcdef0\n" + three + " live "; names(s) != want {
		t.Errorf("taken over are\n%s\nwant\n%s", names(s), want)
	}
	if len(s.Left) != 3 || s.Left[2].Name != "20240104100000" || !strings.Contains(s.Left[2].Why, "revisions.log does not say that it was live") {
		t.Errorf("left alone are %+v", s.Left)
	}
	if s.Repository != "github.com/Acme/shop" || s.Identity != "github.com/acme/shop" || s.Branch != "main" || s.Commit[:7] != "abcdef0" {
		t.Errorf("it is %+v", s)
	}
	text, err := s.Pipeline()
	if err != nil || strings.Contains(text+fmt.Sprint(s), "hunter2") || strings.Contains(text, "bob") {
		t.Errorf("the login is shown: %v\n%s", err, text)
	}
	// three was gone back from: it is no step back.
	if _, err := s.Write(t.Context(), me()); err != nil {
		t.Fatal(err)
	}
	f, err := release.Look(root)
	if err != nil {
		t.Fatal(err)
	}
	if target := deploy.RollbackTarget(f); target != one || f.Current != "releases/"+two {
		t.Errorf("current is %s, one step back %s", f.Current, target)
	}
	if list := deploy.Releases(f); len(list) != 3 || list[0].ID != three || !list[1].Current {
		t.Errorf("the releases are %+v", list)
	}
	first, err := os.ReadFile(filepath.Join(root, ".deployhook", "releases.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	again := look(t, root)
	if lines, err := again.Write(t.Context(), me()); err != nil || len(lines) > 0 || !again.Known {
		t.Errorf("the second time it writes %d lines, %v", len(lines), err)
	}
	if second, err := os.ReadFile(filepath.Join(root, ".deployhook", "releases.ndjson")); err != nil || string(first) != string(second) {
		t.Errorf("the second time it changed the journal, %v", err)
	}
}

func TestOfThousandsTheNewestAreTakenOver(t *testing.T) {
	var entries []string
	for i := range 3000 {
		entries = append(entries, fmt.Sprintf("releases/%d/", i+1))
	}
	root := site(t, append(entries, "current -> releases/7", ".dep/latest_release=3000")...)
	for i := 8; i <= 3000; i++ { // all were live, and gone back from
		if err := os.WriteFile(filepath.Join(root, "releases", fmt.Sprint(i), "BAD_RELEASE"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := look(t, root)
	if n := len(s.Releases); n != adoptMost+1 || s.Releases[0].Name != "7" || s.Releases[n-1].Name != "3000" {
		t.Errorf("%d are taken over, from %s to %s", n, s.Releases[0].Name, s.Releases[n-1].Name)
	}
	if _, err := s.Write(t.Context(), me()); err != nil {
		t.Fatal(err)
	}
	f, err := release.Look(root)
	if err != nil || len(f.Lines) != adoptMost+1 {
		t.Errorf("the journal has %d lines, %v", len(f.Lines), err)
	}
}

func TestSharedLinksAreFound(t *testing.T) {
	r := "releases/" + one + "/"
	root := site(t, "current -> ROOT/releases/"+one,
		"shared/log/", "shared/tmp/pids/", "shared/config/master.key=k", "shared/.env=e", "shared/other/", "shared/deep/a b/",
		r+"log -> ROOT/shared/log", r+"tmp/pids -> ../../../shared/tmp/pids", r+"config/master.key -> ROOT/shared/config/master.key",
		r+".env -> ../../shared/.env", r+"renamed -> ../../shared/other", r+"gone -> ../../shared/gone", r+"out -> /etc/passwd",
		r+"in -> log/x", r+"deep/a b -> ../../../shared/deep/a b", r+"node_modules/x -> ../../../shared/log")
	s := look(t, root)
	if got := strings.Join(s.SharedDirs, ", "); got != "deep/a b, log, tmp/pids" {
		t.Errorf("dirs are %s", got)
	}
	if got := strings.Join(s.SharedFiles, ", "); got != ".env, config/master.key" {
		t.Errorf("files are %s", got)
	}
	if notes := strings.Join(s.Notes, "\n"); !strings.Contains(notes, "cannot make them: gone, renamed") {
		t.Errorf("the notes are %s", notes)
	}
	f := parsed(t, s)
	if spec := f.Deploy.Pipelines[0].Jobs[0].Release; strings.Join(spec.SharedDirs, ", ") != "deep/a b, log, tmp/pids" || spec.Path != root || spec.Keep != 5 {
		t.Errorf("the pipeline has %+v", spec)
	}
}

// parsed reads the pipeline as check does.
func parsed(t *testing.T, s *Site) *config.File {
	t.Helper()
	text, err := s.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	f, err := config.Parse("deploy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return f
}

func TestOriginBecomesTheRepository(t *testing.T) {
	for _, tt := range []struct{ url, repository, clone, ssh string }{
		{"git@github.com:acme/shop.git", "github.com/acme/shop", "", "ssh"},
		{"https://github.com/acme/shop", "github.com/acme/shop", "", ""},
		{"https://x-access-token:ghp_hunter2@github.com/acme/shop.git", "github.com/acme/shop", "", ""},
		{"ssh://git@git.example.com:2222/acme/shop.git", "git.example.com/acme/shop", "ssh://git@git.example.com:2222/acme/shop.git", "ssh"},
		{"ssh://git:hunter2@git.example.com/acme/shop.git", "git.example.com/acme/shop", "", "ssh"},
		{"alice@git.example.com:shop.git", "git.example.com/shop", "alice@git.example.com:shop.git", "ssh"},
		{"http://bob:hunter2@git.example.com/acme/shop.git", "http://git.example.com/acme/shop.git", "", ""},
		{"https://git.example.com:8443/acme/shop.git", "git.example.com:8443/acme/shop", "", ""},
		{"/srv/git/shop.git", "", "/srv/git/shop.git", ""},
		{"file:///srv/git/shop.git", "", "/srv/git/shop.git", ""},
		{"../shop.git", "", "", ""}, {"%%%", "", "", ""}, {"", "", "", ""}, {"-oProxyCommand=x", "", "", ""}, {"ext::sh -c id", "", "", ""},
	} {
		root := site(t, "releases/1/", "current -> releases/1", ".dep/repo/config=[remote \"origin\"]\n\turl = "+tt.url+"\n", ".dep/repo/HEAD=ref: refs/heads/trunk")
		s := look(t, root)
		ssh := ""
		if s.SSH {
			ssh = "ssh"
		}
		if s.Repository != tt.repository || s.CloneURL != tt.clone || ssh != tt.ssh {
			t.Errorf("%s becomes %q, %q, %q", tt.url, s.Repository, s.CloneURL, ssh)
		}
		text, err := s.Pipeline()
		if err != nil || strings.Contains(text+fmt.Sprintf("%+v", s), "hunter2") {
			t.Errorf("%s: %v\n%s", tt.url, err, text)
		}
		f := parsed(t, s)
		if p := f.Deploy.Pipelines[0]; tt.repository != "" && p.Repository != s.Identity {
			t.Errorf("%s: the journal has %q, the pipeline %q", tt.url, s.Identity, p.Repository)
		}
		if ssh != "" && !strings.Contains(text, "# auth: { ssh_key:") {
			t.Errorf("%s: no word about ssh_key\n%s", tt.url, text)
		}
	}
}

// needsRoot skips a test that only root can do; in CI it must be done.
func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestTreeOfAnotherUserIsGivenWhatItNeeds(t *testing.T) {
	needsRoot(t, "only root can give files away")
	root := site(t, "releases/"+one+"/", "shared/x=", "current -> releases/"+one)
	s := look(t, root)
	u := &User{Name: "deploy", UID: 4711, GID: 4712}
	if _, err := s.Write(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".deployhook", ".deployhook/lock", ".deployhook/releases.ndjson"} {
		if uid, gid, err := ownerOf(filepath.Join(root, name)); err != nil || uid != 4711 || gid != 4712 {
			t.Errorf("%s belongs to %d:%d, %v", name, uid, gid, err)
		}
	}
	for _, name := range []string{"", "releases", "shared", "releases/" + one} {
		if uid, _, err := ownerOf(filepath.Join(root, name)); err != nil || uid != 0 {
			t.Errorf("%q was given away to %d, %v", name, uid, err)
		}
	}
	want := "sudo chown deploy " + root + " " + root + "/releases " + root + "/shared\nsudo chown -R -h deploy " + root + "/releases/*/   # so that old releases can be pruned"
	if got := strings.Join(s.Chown(u), "\n"); got != want {
		t.Errorf("the commands are\n%s\nwant\n%s", got, want)
	}
	if s.Chown(&User{Name: "root"}) != nil {
		t.Error("root is given commands")
	}
}

func TestFilesChangedByHandAreNamed(t *testing.T) {
	root := site(t, "releases/1.txt=of the commit", "a/kept=kept", "a/changed=one", "gone=gone", "-> x=weird", "long=12345")
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", root, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	if err := os.Symlink("a/kept", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	run("init", "-q", "-b", "trunk")
	run("remote", "add", "origin", "git@github.com:acme/shop.git")
	run("add", "-A")
	run("commit", "-qm", "one")
	s := look(t, root)
	if s.Tool != Clone || s.Branch != "trunk" || len(s.Changed) > 0 || s.Removed > 0 || len(s.Notes) > 0 {
		t.Errorf("an unchanged clone is %+v", s)
	}
	run("gc", "-q") // packed
	run("pack-refs", "--all")
	for name, text := range map[string]string{"a/changed": "two", "long": "54321", "new": "untracked"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"gone", "link"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	s = look(t, root)
	if got := strings.Join(s.Changed, ", "); got != "a/changed, link, long" || s.Removed != 1 {
		t.Errorf("changed are %s, and %d removed", got, s.Removed)
	}
	f := parsed(t, s)
	if spec := f.Deploy.Pipelines[0].Jobs[0].Release; !spec.InPlace || spec.Path != root {
		t.Errorf("the pipeline has %+v", spec)
	}
	run("checkout", "-q", "--detach")
	if s = look(t, root); s.Branch != "" || s.Commit == "" {
		t.Errorf("a detached clone is %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Look(ctx, root); err != nil || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "cannot be compared") {
		t.Errorf("cut short: %+v, %v", s, err)
	}
}

// TestUserWithoutRightsIsToldHow runs itself as a user who may do nothing.
func TestUserWithoutRightsIsToldHow(t *testing.T) {
	if root := os.Getenv("ADOPT_AS_NOBODY"); root != "" {
		s, err := Look(t.Context(), root)
		if err == nil {
			_, err = s.Write(t.Context(), me())
		}
		fmt.Println("SAID", err)
		return
	}
	needsRoot(t, "only root can become nobody")
	for name, tt := range map[string]struct {
		mode os.FileMode
		at   string
		want string
	}{
		"nothing is readable":       {0o700, "", "ROOT cannot be read by this user: run deployhook adopt with sudo"},
		"releases is unreadable":    {0o700, "releases", "ROOT/releases cannot be read by this user: run deployhook adopt with sudo"},
		"a log is unreadable":       {0o600, "revisions.log", "ROOT/revisions.log cannot be read by this user"},
		"everything is only read":   {0o755, "", "ROOT cannot be written by nobody: sudo deployhook adopt ROOT"},
		"the journal is only read":  {0o755, ".deployhook", "ROOT cannot be written by nobody: sudo deployhook adopt ROOT"},
		"the journal is not opened": {0o700, ".deployhook", "with sudo"},
	} {
		dir, err := os.MkdirTemp("", "adopt")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		for _, sub := range []string{"releases/" + one, ".deployhook"} {
			if tt.at != ".deployhook" && sub == ".deployhook" {
				continue
			}
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, "revisions.log"), nil, 0o644), os.Symlink("releases/"+one, filepath.Join(dir, "current")),
			os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, tt.at), tt.mode),
		); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestUserWithoutRightsIsToldHow$")
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "ADOPT_AS_NOBODY="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if want := strings.ReplaceAll(tt.want, "ROOT", dir); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v\n%s\nwant %q", name, err, out, want)
		}
	}
}
