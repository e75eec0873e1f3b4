package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// outputMost bounds what is kept of a program's output, in bytes.
const outputMost = 1 << 20

// command runs a program, in English and without input.
func command(ctx context.Context, name string, args ...string) (out string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// Where sudo or cron left a short PATH, sbin may be missing.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
	if cmd.Err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
			if p, lerr := exec.LookPath(filepath.Join(dir, name)); lerr == nil {
				cmd.Path, cmd.Err = p, nil
				break
			}
		}
	}
	b := &bounded{}
	cmd.Stdout, cmd.Stderr = b, b
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return string(b.kept), exit.ExitCode(), nil
	}
	return string(b.kept), 0, err
}

// bounded keeps the beginning of what is written.
type bounded struct{ kept []byte }

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), outputMost-len(b.kept))]...)
	return len(p), nil
}

// path is a path of the machine that is looked at.
func (e *exam) path(p string) string {
	if e.Root == "" {
		return p
	}
	return filepath.Join(e.Root, p)
}

func (e *exam) stat(p string) (fs.FileInfo, error) { return os.Stat(e.path(p)) }

func (e *exam) exists(p string) bool {
	_, err := e.stat(p)
	return err == nil
}

// systemd says whether it runs here.
func (e *exam) systemd() bool { return e.exists("/run/systemd/system") }

// user is a user of the machine.
type user struct {
	name   string
	uid    int
	gids   []int
	groups []string
}

// user looks a user up, and its groups; nil: there is none. getent and id know
// users of a directory service too.
func (e *exam) user(ctx context.Context, name string) *user {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u, ok := e.users[name]; ok {
		return u
	}
	e.users[name] = nil
	out, code, err := e.Command(ctx, "getent", "passwd", name)
	f := strings.Split(strings.TrimSpace(out), ":")
	if err != nil || code != 0 || len(f) < 4 {
		return nil
	}
	uid, err := strconv.Atoi(f[2])
	if err != nil {
		return nil
	}
	u := &user{name: f[0], uid: uid}
	if out, code, err := e.Command(ctx, "id", "-G", name); err == nil && code == 0 {
		for word := range strings.FieldsSeq(out) {
			if gid, err := strconv.Atoi(word); err == nil {
				u.gids = append(u.gids, gid)
			}
		}
	}
	if out, code, err := e.Command(ctx, "id", "-Gn", name); err == nil && code == 0 {
		u.groups = strings.Fields(out)
	}
	e.users[name] = u
	return u
}

// group looks a group up.
func (e *exam) group(ctx context.Context, name string) (gid int, there bool) {
	out, code, err := e.Command(ctx, "getent", "group", name)
	f := strings.Split(strings.TrimSpace(out), ":")
	if err != nil || code != 0 || len(f) < 3 {
		return 0, false
	}
	gid, err = strconv.Atoi(f[2])
	return gid, err == nil
}

// name is a user's name by its number, where it is one that is known here.
func (e *exam) name(ctx context.Context, uid int) string {
	out, code, err := e.Command(ctx, "getent", "passwd", strconv.Itoa(uid))
	if name, _, ok := strings.Cut(out, ":"); err == nil && code == 0 && ok {
		return name
	}
	return strconv.Itoa(uid)
}

// may says whether a user may do what bits (4 read, 2 write, 1 enter) say.
func (e *exam) may(u *user, st fs.FileInfo, bits fs.FileMode) bool {
	uid, gid := e.owner(st)
	mode := st.Mode().Perm()
	switch {
	case u.uid == 0:
		return true
	case u.uid == uid:
		return mode>>6&bits == bits
	case slices.Contains(u.gids, gid):
		return mode>>3&bits == bits
	}
	return mode&bits == bits
}

// hidden are directories that the daemon's unit shows empty, or another one of.
var hidden = []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"}

// shut says why the daemon cannot read (bits 4), or read and enter (5), what
// root can; empty: it can, or there is no service here.
func (e *exam) shut(ctx context.Context, path string, bits fs.FileMode) (why, fix string) {
	u := e.user(ctx, daemonUser)
	if u == nil || !e.installed() {
		return "", ""
	}
	for _, h := range hidden {
		if strings.HasPrefix(path, h) {
			return "the daemon's unit hides " + strings.TrimSuffix(h, "/") + " from it (ProtectHome=, PrivateTmp=)", "sudo mv " + path + " /etc/deployhook/   # or /srv, and name it in deploy.yaml"
		}
	}
	for at, need := path, bits; ; at, need = filepath.Dir(at), 1 {
		if st, err := e.stat(at); err == nil && !e.may(u, st, need) {
			if at == path && bits == 4 {
				return "it cannot be read by " + daemonUser, "sudo chgrp " + daemonUser + " " + path + "\nsudo chmod 0640 " + path
			}
			return at + " cannot be entered by " + daemonUser, "sudo chmod o+rx " + at
		}
		if at == "/" || at == "." {
			return "", ""
		}
	}
}

// Users of an installation.
const (
	daemonUser = "deployhook"
	testUser   = "deployhook-test"
	deployUser = "deploy"
	adminGroup = "deployhook-admin"
)
