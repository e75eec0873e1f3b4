package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
	"deployhook/systemd"
)

// unitDirs are where units are looked for: the first that has one counts.
//
// Source: systemd.unit(5), "Unit File Load Path".
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unit is one of our units, as systemd has it.
type unit struct {
	file string            // that counts; empty: there is none
	keys map[string]string // of systemctl show
}

// ownUnits are the names of the units of this version.
func ownUnits() []string {
	entries, err := fs.ReadDir(systemd.Units, ".")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".sysusers") {
			names = append(names, e.Name())
		}
	}
	return names
}

// readUnits asks systemd for all of our units.
func (e *exam) readUnits(ctx context.Context) map[string]unit {
	units := map[string]unit{}
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, name := range ownUnits() {
		all.Go(func() {
			u := unit{keys: e.show(ctx, name)}
			for _, dir := range unitDirs {
				if p := path.Join(dir, name); e.exists(p) {
					u.file = p
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			units[name] = u
		})
	}
	all.Wait()
	return units
}

// show asks systemd for properties of a unit; of a template, for those that
// its instances have.
func (e *exam) show(ctx context.Context, name string) map[string]string {
	if base, suffix, ok := strings.Cut(name, "@."); ok {
		name = base + "@doctor." + suffix
	}
	out, code, err := e.Command(ctx, "systemctl", "show", name, "-p",
		"LoadState,ActiveState,UnitFileState,NeedDaemonReload,Result,NoNewPrivileges,MaxConnections,Listen,MainPID")
	keys := map[string]string{}
	if err != nil || code != 0 {
		return keys
	}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && keys[key] == "" {
			keys[key] = value
		}
	}
	return keys
}

// installed says whether deployhook is a service here.
func (e *exam) installed() bool { return e.systemd() && e.units()["deployhook.service"].file != "" }

// wanted says whether a unit is needed with this config: where an agent is a
// child of the daemon, nobody needs its socket.
func (e *exam) wanted(name string) bool {
	if e.file == nil {
		return true
	}
	sockets := e.file.Server.Agent.Sockets()
	switch {
	case strings.HasPrefix(name, "deployhook-test"):
		return sockets[deploy.TestAgent] != ""
	case strings.HasPrefix(name, "deployhook-agent"):
		return sockets[deploy.DeployAgent] != ""
	}
	return true
}

// checkUnits looks whether the units are there, those of this version, enabled
// and at work.
func (e *exam) checkUnits(ctx context.Context) (found []Check) {
	if !e.systemd() {
		return warn("systemd does not run here: nothing starts deployhook again after a crash or a reboot, and steps have no users of their own", "")
	}
	if !e.installed() {
		return warn("deployhook is no service on this machine: after a reboot nobody starts it", "sudo deployhook init")
	}
	stale := false
	for _, name := range ownUnits() {
		u := e.units()[name]
		if !e.wanted(name) {
			continue
		}
		found = append(found, e.checkUnit(name, u)...)
		stale = stale || u.keys["NeedDaemonReload"] == "yes"
	}
	if stale {
		found = append(found, fail("systemd still has units as they were before their files were changed", "sudo systemctl daemon-reload\n"+restartIt)...)
	}
	return unlessAny(found, "%d units of this version, enabled and at work", len(ownUnits()))
}

func (e *exam) checkUnit(name string, u unit) (found []Check) {
	if u.file == "" {
		return fail(name+" is not there", "install the package again, or in the sources: sudo make install\nsudo systemctl daemon-reload")
	}
	found = append(found, e.checkContent(name, u)...)
	switch state := u.keys["LoadState"]; state {
	case "loaded", "":
	case "masked":
		return append(found, fail(name+" is masked", "sudo systemctl unmask "+name)...)
	default:
		return append(found, fail(name+" cannot be loaded by systemd: "+state, "sudo systemd-analyze verify "+u.file+"\nsudo systemctl daemon-reload")...)
	}
	if strings.Contains(name, "@.") {
		return found
	}
	// With the service its sockets are enabled; each is named all the same.
	if s := u.keys["UnitFileState"]; s != "" && s != "enabled" && s != "enabled-runtime" {
		found = append(found, fail(name+" is "+s+": after a reboot it is not there", "sudo systemctl enable "+name)...)
	}
	if s := u.keys["ActiveState"]; s != "" && s != "active" && s != "reloading" {
		why := ""
		if r := u.keys["Result"]; r != "" && r != "success" {
			why = " (" + r + ")"
		}
		found = append(found, fail(name+" is "+s+why, "sudo systemctl start "+name+"\njournalctl -u "+name+" -n 20")...)
	}
	return found
}

// program is how units name the program; a package has it in another place
// than make install.
var program = regexp.MustCompile(`(?m)^(Exec[A-Za-z]+=)/[^\s]*/deployhook( |$)`)

// content is what a unit says, without comments and without the place of the
// program.
func content(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != ';' {
			lines = append(lines, line)
		}
	}
	return program.ReplaceAllString(strings.Join(lines, "\n"), "${1}deployhook$2")
}

// checkContent compares a unit with that of this version. Drop-ins may change
// whatever they like.
func (e *exam) checkContent(name string, u unit) []Check {
	ours, err := fs.ReadFile(systemd.Units, name)
	if err != nil {
		return nil
	}
	theirs, err := os.ReadFile(e.path(u.file))
	if err != nil {
		return warn(u.file+" cannot be read: "+rootCause(err).Error(), asRoot)
	}
	if content(string(ours)) == content(string(theirs)) {
		return nil
	}
	for _, dir := range unitDirs[2:] {
		below := path.Join(dir, name)
		if b, err := os.ReadFile(e.path(below)); err == nil && below != u.file && content(string(b)) == content(string(ours)) {
			return warn(u.file+" hides "+below+", which is that of this version", "sudo rm "+u.file+"\nsudo systemctl daemon-reload\n"+restartIt)
		}
	}
	return warn(u.file+" is not what this version brings: it is older, or was changed by hand, for which there are drop-ins",
		"install the package again, or in the sources: sudo make install\nsudo systemctl daemon-reload\n"+restartIt)
}

// checkDaemon asks the daemon over its control socket.
func (e *exam) checkDaemon(context.Context) (found []Check) {
	d, err := e.daemon()
	var gone *web.Unreachable
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission), errors.As(err, &gone) && strings.HasPrefix(gone.Hint, "join"):
		return warn("the daemon was not asked: this user may not open its control socket", asRoot)
	case errors.As(err, &gone):
		return fail(err.Error(), e.startIt())
	default:
		return fail(err.Error()+": is it of an earlier version?", restartIt)
	}
	if d.Version != e.Version {
		found = append(found, warn("the daemon that runs is deployhook "+d.Version+", and this program is "+e.Version, restartIt)...)
	} else if to, err := os.Readlink(e.path(fmt.Sprintf("/proc/%d/exe", d.PID))); err == nil && strings.HasSuffix(to, " (deleted)") {
		found = append(found, warn("the program was replaced since the daemon was started, which still is the old one", restartIt)...)
	}
	return unlessAny(found, "deployhook %s answers, as user %s, since %s", d.Version, d.User, d.Started.UTC().Format("2006-01-02 15:04 UTC"))
}

func (e *exam) startIt() string {
	if e.installed() {
		return "sudo systemctl start deployhook\njournalctl -u deployhook -n 20"
	}
	return "deployhook serve --config " + e.Config
}

// checkSockets looks at the control socket, and at those of the agents, which
// must be root's and open to the daemon alone.
func (e *exam) checkSockets(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	said := 0
	if st, err := e.stat(e.file.Server.Socket); err == nil {
		said++
		if st.Mode().Perm()&0o007 != 0 {
			found = append(found, fail(fmt.Sprintf("%s has mode %04o: everybody on this machine may do everything", e.file.Server.Socket, st.Mode().Perm()), restartIt)...)
		}
		if gid, there := e.group(ctx, adminGroup); there {
			if _, has := e.owner(st); has != gid {
				found = append(found, warn(e.file.Server.Socket+" does not belong to the group "+adminGroup+", which was made later", restartIt)...)
			}
		}
	}
	for _, kind := range deploy.AgentKinds {
		socket := e.file.Server.Agent.Sockets()[kind]
		if socket == "" {
			continue
		}
		said++
		found = append(found, e.agentSocket(ctx, kind, socket)...)
	}
	if said == 0 {
		return warn("the daemon does not run, and no agent has a socket: there is none to look at", "")
	}
	return unlessAny(found, "%s, for those who may use them", counted(said, "socket"))
}

// agentUnit is the socket unit of an agent.
func agentUnit(kind deploy.AgentKind) string {
	if kind == deploy.DeployAgent {
		return "deployhook-agent.socket"
	}
	return "deployhook-test.socket"
}

func (e *exam) agentSocket(ctx context.Context, kind deploy.AgentKind, socket string) (found []Check) {
	name := agentUnit(kind)
	st, err := e.stat(socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return warn(socket+" cannot be looked at by this user", asRoot)
	case err != nil:
		return fail("the agent socket "+socket+" is not there: "+string(kind)+" jobs wait", "sudo systemctl enable --now "+name)
	case st.Mode()&fs.ModeSocket == 0:
		return fail(socket+" is no socket", "sudo rm "+socket+"\nsudo systemctl restart "+name)
	}
	again := "sudo systemctl restart " + name
	uid, gid := e.owner(st)
	switch want, there := e.group(ctx, daemonUser); {
	case uid != 0:
		found = append(found, fail(socket+" belongs to "+e.name(ctx, uid)+" and not to root: the daemon does not take it", again)...)
	case st.Mode().Perm()&0o007 != 0:
		found = append(found, fail(fmt.Sprintf("%s has mode %04o: it is for the daemon's group alone", socket, st.Mode().Perm()), again)...)
	case there && gid != want || st.Mode().Perm()&0o060 != 0o060:
		found = append(found, fail(socket+" is not open to the group "+daemonUser+": the daemon cannot connect", again)...)
	}
	if who, _ := e.writers(ctx, e.path(path.Dir(socket))); who != "" {
		found = append(found, fail(path.Dir(socket)+" can be changed by "+who+", who could put another socket there", "sudo chown root:root "+path.Dir(socket)+"\nsudo chmod 0755 "+path.Dir(socket))...)
	}
	most, err := strconv.Atoi(e.units()[name].keys["MaxConnections"])
	// One agent is kept ready ahead, and commands need one too.
	if err == nil && e.systemd() && most < e.file.Server.Workers+2 {
		found = append(found, warn(fmt.Sprintf("%s takes %d connections at once (MaxConnections=), and server.workers is %d: jobs would fail", name, most, e.file.Server.Workers),
			fmt.Sprintf("printf '[Socket]\\nMaxConnections=%d\\n' | sudo install -D -m 0644 /dev/stdin /etc/systemd/system/%s.d/connections.conf\nsudo systemctl daemon-reload\nsudo systemctl restart %s", 2*e.file.Server.Workers+2, name, name))...)
	}
	return found
}

// listens are the addresses of deployhook.socket.
func (e *exam) listens() (addresses []string) {
	if !e.installed() {
		return nil
	}
	for word := range strings.FieldsSeq(e.units()["deployhook.socket"].keys["Listen"]) {
		if !strings.HasPrefix(word, "(") {
			addresses = append(addresses, word)
		}
	}
	slices.Sort(addresses)
	return addresses
}
