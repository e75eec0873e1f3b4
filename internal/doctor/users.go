package doctor

import (
	"context"
	"slices"
	"strings"

	"deployhook/internal/deploy"
)

// separate says whether some steps have a user of their own.
func (e *exam) separate() bool { return e.file != nil && len(e.file.Server.Agent.Sockets()) > 0 }

// stepUsers are the users that steps run as, beside the daemon's.
func (e *exam) stepUsers() (names []string) {
	if e.file == nil {
		return nil
	}
	for kind := range e.file.Server.Agent.Sockets() {
		names = append(names, e.userOf(kind))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// userOf is the user that an agent runs as: as it says itself, or as the units
// of this version have it.
func (e *exam) userOf(kind deploy.AgentKind) string {
	if reports, err := e.agents(); err == nil {
		for _, r := range reports {
			if r.Local() && r.Kind == kind && r.User != "" {
				return r.User
			}
		}
	}
	switch {
	case e.file != nil && e.file.Server.Agent.Sockets()[kind] == "":
		return daemonUser
	case kind == deploy.DeployAgent:
		return deployUser
	}
	return testUser
}

// makeUsers makes what is missing.
const makeUsers = "sudo systemd-sysusers"

// asRootGroups are groups whose members can become root, or read what root can.
var asRootGroups = []string{"root", "sudo", "wheel", "admin", "docker", "lxd", "incus", "incus-admin", "libvirt", "disk", "shadow", "kmem"}

// checkUsers looks whether the users of an installation are there, and in no
// group that gives away what they are kept from.
func (e *exam) checkUsers(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	if !e.separate() {
		return warn("steps run as the daemon's own user and can read its secrets, as server.agent has no sockets",
			"put into deploy.yaml: server: { agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock } }")
	}
	if u := e.user(ctx, daemonUser); u == nil {
		found = append(found, fail("there is no user "+daemonUser+", which the daemon runs as", makeUsers)...)
	} else if _, there := e.group(ctx, adminGroup); !there {
		found = append(found, warn("there is no group "+adminGroup+": only the daemon's own group may use the command line", makeUsers)...)
	} else if !slices.Contains(u.groups, adminGroup) {
		found = append(found, fail(daemonUser+" is not in the group "+adminGroup+": the daemon cannot give it the control socket, and does not start",
			"sudo usermod -aG "+adminGroup+" "+daemonUser+"\n"+restartIt)...)
	}
	steps := e.stepUsers()
	for _, name := range steps {
		found = append(found, e.stepUser(ctx, name)...)
	}
	if len(steps) == 1 && len(e.file.Server.Agent.Sockets()) == 2 {
		found = append(found, warn("test jobs and deploy jobs both run as "+steps[0]+": whoever can push can change what deploy jobs can", "")...)
	}
	return unlessAny(found, "%s are there, and in no group that they should not be in", strings.Join(append([]string{daemonUser}, steps...), ", "))
}

// stepUser looks at a user that steps run as.
func (e *exam) stepUser(ctx context.Context, name string) (found []Check) {
	u := e.user(ctx, name)
	if u == nil {
		return fail("there is no user "+name+", which steps run as", makeUsers)
	}
	if u.uid == 0 {
		return fail("steps run as "+name+", which is root: whoever can push owns this machine", "sudo systemctl revert deployhook-test@.service deployhook-agent@.service")
	}
	for _, g := range u.groups {
		leave := "sudo gpasswd -d " + name + " " + g
		switch {
		case g == adminGroup:
			found = append(found, fail(name+" is in the group "+g+": steps may use the control socket, and with it do everything", leave)...)
		case g == daemonUser:
			found = append(found, fail(name+" is in the group "+g+": steps may read the daemon's data and open every agent", leave)...)
		case slices.Contains(asRootGroups, g) && name == e.userOf(deploy.TestAgent):
			found = append(found, fail(name+" is in the group "+g+": whoever can push to a tested branch can become root", leave)...)
		case slices.Contains(asRootGroups, g):
			found = append(found, warn(name+" is in the group "+g+": whoever can push to a deployed branch can become root", leave)...)
		}
	}
	return found
}
