// Package packaging tests what make dist makes.
package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// output is what a command prints; the test fails when it fails.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return stdout.String()
}

// built is the directory of a make dist of this checkout with these variables.
func built(t *testing.T, vars ...string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("make", append([]string{"-s", "-C", "..", "dist", "DIST=" + dir}, vars...)...).CombinedOutput(); err != nil {
		t.Fatalf("make dist %q: %v\n%s", vars, err, out)
	}
	return dir
}

var once struct {
	sync.Mutex
	dir string
}

// released is the directory with the packages: that of DEPLOYHOOK_DIST, which
// .ci/run names, or one made here, for amd64 alone.
func released(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("DEPLOYHOOK_DIST"); dir != "" {
		return dir
	}
	once.Lock()
	defer once.Unlock()
	if once.dir == "" {
		dir, err := os.MkdirTemp("", "deployhook-dist")
		if err != nil {
			t.Fatal(err)
		}
		once.dir = dir
		if out, err := exec.Command("make", "-s", "-C", "..", "dist", "DIST="+dir, "ARCHS=amd64").CombinedOutput(); err != nil {
			t.Fatalf("make dist: %v\n%s", err, out)
		}
	}
	return once.dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if once.dir != "" {
		os.RemoveAll(once.dir)
	}
	os.Exit(code)
}

// only is the one file of a directory with such a name.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s in %s: %q (%v)", pattern, dir, names, err)
	}
	return names[0]
}

// need skips where a tool is not installed; in CI that is a failure.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
}

// files reads an archive: headers and contents by name.
func files(t *testing.T, r io.Reader) (map[string]*tar.Header, map[string]string) {
	t.Helper()
	headers, texts := map[string]*tar.Header{}, map[string]string{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return headers, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean("/" + h.Name)
		headers[name], texts[name] = h, string(b)
	}
}

// inPrefix are the files that stand below /usr, or in a .tar.gz below its top.
func inPrefix(t *testing.T) []string {
	t.Helper()
	names := []string{
		"bin/deployhook", "lib/sysusers.d/deployhook.conf", "share/man/man1/deployhook.1.gz", "share/man/man1/deployhook-rollback.1.gz",
		"share/man/man5/deploy.yaml.5.gz", "share/bash-completion/completions/deployhook", "share/fish/vendor_completions.d/deployhook.fish",
		"share/doc/deployhook/README.md", "share/doc/deployhook/CHANGELOG.md", "share/doc/deployhook/copyright",
		"share/doc/deployhook/third-party-licenses", "share/doc/deployhook/deploy.yaml.example", "share/doc/deployhook/docs/configuration.md",
	}
	units := 0
	for _, pattern := range []string{"*.service", "*.socket"} {
		found, err := filepath.Glob("../systemd/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range found {
			units++
			names = append(names, "lib/systemd/system/"+filepath.Base(u))
		}
	}
	if units == 0 {
		t.Fatal("no unit in systemd/")
	}
	return names
}

func checkTree(t *testing.T, headers map[string]*tar.Header, texts map[string]string, top, prefix, zsh string) {
	t.Helper()
	for _, name := range append(inPrefix(t), zsh) {
		if headers[top+"/"+name] == nil {
			t.Errorf("%s/%s is missing", top, name)
		}
	}
	for name, h := range headers {
		want := int64(0o644)
		if h.Typeflag == tar.TypeDir || strings.HasSuffix(name, "/bin/deployhook") {
			want = 0o755
		}
		if h.Mode&0o7777 != want || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: mode %o, owner %d:%d", name, h.Mode, h.Uid, h.Gid)
		}
		if h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeReg {
			t.Errorf("%s is a %c", name, h.Typeflag)
		}
		if !strings.HasPrefix(name, top) && h.Typeflag != tar.TypeDir {
			t.Errorf("%s is outside %s", name, top)
		}
		if !h.ModTime.Equal(headers[top+"/bin/deployhook"].ModTime) {
			t.Errorf("%s: its time is %s", name, h.ModTime)
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(strings.NewReader(texts[name]))
			if err != nil || !z.ModTime.IsZero() || z.Name != "" {
				t.Errorf("%s: %v, %s, %q: a gzip says when and from what it was made", name, err, z.ModTime, z.Name)
			}
		}
		if strings.Contains(name, "/systemd/system/") && h.Typeflag == tar.TypeReg {
			if prefix != "/usr/local" && strings.Contains(texts[name], "/usr/local/bin/") {
				t.Errorf("%s calls /usr/local/bin", name)
			}
			if strings.Contains(texts[name], "ExecStart=") && !strings.Contains(texts[name], "ExecStart="+prefix+"/bin/deployhook ") {
				t.Errorf("%s does not call %s/bin/deployhook", name, prefix)
			}
		}
	}
}

func TestDebHasItsFilesAndNothingElse(t *testing.T) {
	need(t, "dpkg-deb")
	deb := only(t, released(t), "*_amd64.deb")
	headers, texts := files(t, strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", deb)))
	checkTree(t, headers, texts, "/usr", "/usr", "share/zsh/vendor-completions/_deployhook")
	for name := range headers {
		if strings.HasPrefix(name, "/etc") || strings.HasPrefix(name, "/var") {
			t.Errorf("%s: a package that has it would overwrite or remove it", name)
		}
	}

	control, scripts := files(t, strings.NewReader(output(t, "dpkg-deb", "--ctrl-tarfile", deb)))
	if control["/conffiles"] != nil {
		t.Error("the package has conffiles")
	}
	for _, name := range []string{"/postinst", "/prerm", "/postrm"} {
		if control[name] == nil || control[name].Mode&0o777 != 0o755 {
			t.Errorf("%s is missing or cannot be run", name)
			continue
		}
		b, err := os.ReadFile(name[1:])
		if err != nil || string(b) != scripts[name] {
			t.Errorf("%s is not the one of packaging (%v)", name, err)
		}
	}
	for field, want := range map[string]string{"Package": "deployhook", "Architecture": "amd64", "Section": "admin", "Depends": "systemd | systemd-standalone-sysusers | passwd"} {
		if got := strings.TrimSpace(output(t, "dpkg-deb", "-f", deb, field)); got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
	version := strings.TrimSpace(output(t, "dpkg-deb", "-f", deb, "Version"))
	output(t, "dpkg", "--validate-version", version)
	if filepath.Base(deb) != "deployhook_"+version+"_amd64.deb" {
		t.Errorf("%s has version %s", filepath.Base(deb), version)
	}
	if _, err := exec.LookPath("lintian"); err == nil {
		if out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", deb).CombinedOutput(); err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	}
}

func TestTarIsUnpackedBelowUsrLocal(t *testing.T) {
	archive := only(t, released(t), "*-linux-amd64.tar.gz")
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	headers, texts := files(t, z)
	top := "/" + strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
	checkTree(t, headers, texts, top, "/usr/local", "share/zsh/site-functions/_deployhook")
}

func TestRPMHasTheSameFiles(t *testing.T) {
	need(t, "rpm")
	rpm := only(t, released(t), "*.x86_64.rpm")
	query := func(args ...string) string {
		return output(t, "rpm", append([]string{"--nodb", "-qp"}, append(args, rpm)...)...)
	}
	list := strings.Fields(query("-l"))
	for _, name := range append(inPrefix(t), "share/zsh/site-functions/_deployhook") {
		if !slices.Contains(list, "/usr/"+name) {
			t.Errorf("/usr/%s is missing", name)
		}
	}
	for line := range strings.Lines(query("--qf", `[%{FILEUSERNAME} %{FILEGROUPNAME} %{FILEMODES:perms} %{FILENAMES}\n]`)) {
		words := strings.Fields(line)
		want := "-rw-r--r--"
		switch {
		case words[2][0] == 'd':
			want = "drwxr-xr-x"
		case words[3] == "/usr/bin/deployhook":
			want = "-rwxr-xr-x"
		}
		if words[0] != "root" || words[1] != "root" || words[2] != want {
			t.Errorf("%s", line)
		}
	}
	if host := query("--qf", "%{BUILDHOST}"); host != "localhost" {
		t.Errorf("the package says that %s built it", host)
	}
	for _, part := range []string{"POSTIN", "PREUN", "POSTUN"} {
		if script := query("--qf", "%{"+part+"}"); !strings.HasPrefix(script, "#!/bin/sh\n") {
			t.Errorf("%s: %.60s", part, script)
		}
	}
}

func TestScriptsAreSound(t *testing.T) {
	scripts := []string{"postinst", "prerm", "postrm", "version", "build", "again"}
	for _, s := range scripts {
		output(t, "sh", "-n", s)
	}
	if _, err := exec.LookPath("shellcheck"); err == nil {
		output(t, "shellcheck", append([]string{"--external-sources"}, append(scripts, "testdata/lab.sh")...)...)
	}
}

func TestChecksumsAreOfEveryFile(t *testing.T) {
	dir := released(t)
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(sums), "\n"); lines != len(entries)-1 || lines < 4 {
		t.Errorf("SHA256SUMS has %d lines for %d files", lines, len(entries)-1)
	}
	for _, e := range entries {
		if e.Name() == "SHA256SUMS" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(sums), fmt.Sprintf("%x  %s\n", sha256.Sum256(b), e.Name())) {
			t.Errorf("SHA256SUMS lacks %s", e.Name())
		}
	}
}

// The list of parts is compared with what the binary says itself, and the
// licences with the list.
func TestBillOfMaterialsNamesEveryModule(t *testing.T) {
	need(t, "dpkg-deb")
	dir := released(t)
	headers, texts := files(t, strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", only(t, dir, "*_amd64.deb"))))
	if headers["/usr/bin/deployhook"] == nil {
		t.Fatal("no binary")
	}
	info, err := buildinfo.Read(strings.NewReader(texts["/usr/bin/deployhook"]))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(only(t, dir, "*-linux-amd64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BOMFormat, SpecVersion string
		SerialNumber           string
		Metadata               struct{ Timestamp string }
		Components             []struct{ Name, Version string }
	}
	if err := json.Unmarshal(b, &bill); err != nil {
		t.Fatal(err)
	}
	if bill.BOMFormat != "CycloneDX" || bill.SpecVersion != "1.6" || bill.SerialNumber != "" || bill.Metadata.Timestamp != "" {
		t.Errorf("%s %s %q %q", bill.BOMFormat, bill.SpecVersion, bill.SerialNumber, bill.Metadata.Timestamp)
	}
	have := map[string]string{}
	for _, c := range bill.Components {
		have[c.Name] = c.Version
	}
	licences := texts["/usr/share/doc/deployhook/third-party-licenses"]
	for _, m := range info.Deps {
		if have[m.Path] != m.Version {
			t.Errorf("the bill has %s %q, the binary %s", m.Path, have[m.Path], m.Version)
		}
		if !strings.Contains(licences, "======== "+m.Path+" "+m.Version+": ") {
			t.Errorf("no licence of %s %s", m.Path, m.Version)
		}
	}
	if have["std"] != info.GoVersion || !strings.Contains(licences, "======== std "+info.GoVersion+": LICENSE") {
		t.Errorf("Go itself: %s, want %s", have["std"], info.GoVersion)
	}
	if len(info.Deps) < 30 {
		t.Errorf("the binary has %d modules", len(info.Deps))
	}
}

func TestVersionsAreOrderedAsDpkgAndRpmDo(t *testing.T) {
	need(t, "dpkg")
	versions := []struct{ is, want string }{
		{"0.1.0-dev", "0.1.0~dev.20260401101500.gabcdef0"},
		{"0.1.0", "0.1.0"},
		{"0.1.0-5-gabcdef0", "0.1.0+5.gabcdef0"},
		{"0.1.0-5-gabcdef0-dirty", "0.1.0+5.gabcdef0.dirty"},
		{"0.1.0-12-gabcdef0", "0.1.0+12.gabcdef0"},
		{"0.2.0-alpha", "0.2.0~alpha"},
		{"0.2.0-rc.1", "0.2.0~rc.1"},
		{"0.2.0-rc.1-3-gabcdef0", "0.2.0~rc.1+3.gabcdef0"},
		{"0.2.0-rc-2", "0.2.0~rc.2"},
		{"0.2.0", "0.2.0"},
		{"0.2.0-dirty", "0.2.0+dirty"},
		{"0.10.0", "0.10.0"},
		{"1.0.0", "1.0.0"},
		{"1.0.0+meta", "1.0.0+meta"},
		{"1.0.0+meta-3-gabcdef0", "1.0.0+meta.3.gabcdef0"},
	}
	before := ""
	for _, v := range versions {
		got := strings.TrimSpace(output(t, "sh", "version", v.is, "1775038500", "abcdef0"))
		if got != v.want {
			t.Errorf("version %s is %s, want %s", v.is, got, v.want)
		}
		output(t, "dpkg", "--validate-version", got)
		if before != "" {
			if err := exec.Command("dpkg", "--compare-versions", before, "lt", got).Run(); err != nil {
				t.Errorf("%s is not before %s", before, got)
			}
			if _, err := exec.LookPath("rpm"); err == nil {
				if cmp := strings.TrimSpace(output(t, "rpm", "--eval", fmt.Sprintf("%%{lua:print(rpm.vercmp(%q, %q))}", before, got))); cmp != "-1" {
					t.Errorf("rpm: %s is not before %s: %s", before, got, cmp)
				}
			}
		}
		before = got
	}
	for _, bad := range []string{"", "v1.0.0", "1.0 0", "1:2.0", "1.0.0/..", "$(id)", "latest", "1.0_0"} {
		if out, err := exec.Command("sh", "version", bad, "1775038500", "abcdef0").CombinedOutput(); err == nil {
			t.Errorf("version %q is taken for %s", bad, out)
		}
	}
}

func TestInstallTakesEveryUnit(t *testing.T) {
	root := t.TempDir()
	binary := filepath.Join(root, "made")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "make", "-s", "-C", "..", "install", "BINARY="+binary, "DESTDIR="+root, "PREFIX=/opt/d")
	n := 0
	for _, name := range inPrefix(t) {
		unit, ok := strings.CutPrefix(name, "lib/systemd/system/")
		if !ok {
			continue
		}
		n++
		file := filepath.Join(root, "etc/systemd/system", unit)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.Contains(string(b), "/usr/local/bin/") || strings.Contains(string(b), "ExecStart=") && !strings.Contains(string(b), "ExecStart=/opt/d/bin/deployhook ") {
			t.Errorf("%s does not call /opt/d/bin/deployhook", unit)
		}
		if info, err := os.Stat(file); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %v %v", unit, info.Mode(), err)
		}
	}
	for _, name := range []string{"opt/d/bin/deployhook", "opt/d/lib/sysusers.d/deployhook.conf", "opt/d/share/doc/deployhook/deploy.yaml.example"} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if n == 0 {
		t.Error("no unit")
	}
}
