package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/deploy"
)

// checkHosts has the daemon open an agent on each host over SSH: only it has
// the keys.
func (e *exam) checkHosts(context.Context) (found []Check) {
	switch {
	case e.file == nil:
		return e.needsConfig()
	case len(e.file.Deploy.Hosts) == 0:
		return ok("there are none over SSH: all jobs run on this machine")
	}
	d, err := e.daemon()
	if err != nil {
		return warn("not tried: only the daemon can reach them, and it could not be asked", e.startIt())
	}
	reports, err := e.agents()
	if err != nil {
		return fail("the daemon did not say in time what became of reaching them: "+err.Error(), "journalctl -u deployhook -p warning -n 20")
	}
	byHost := map[string]*deploy.AgentReport{}
	for i := range reports {
		byHost[reports[i].Host] = &reports[i]
	}
	for _, h := range e.file.Deploy.Hosts {
		if r := byHost[h.Name]; r != nil {
			found = append(found, farHost(r, d.Version)...)
		} else {
			found = append(found, warn(h.Name+": the daemon does not know this host yet", "sudo systemctl reload deployhook")...)
		}
	}
	return found
}

// clockMost is how far a host's clock may be from the daemon's.
const clockMost = 5 * time.Second

// apart says by how much a clock is ahead of the daemon's, roughly.
func apart(ahead time.Duration) string {
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	n, unit := int64(ahead.Abs()/time.Second), "second"
	for _, u := range []struct {
		seconds int64
		name    string
	}{{365 * 24 * 3600, "year"}, {24 * 3600, "day"}, {3600, "hour"}, {60, "minute"}} {
		if n >= 2*u.seconds {
			n, unit = n/u.seconds, u.name
			break
		}
	}
	return counted(int(n), unit) + " " + side + " the daemon's"
}

// farHost judges what became of reaching a host.
func farHost(r *deploy.AgentReport, version string) (found []Check) {
	if r.Error != "" {
		return fail(r.Host+": "+strings.TrimPrefix(r.Error, "host "+r.Host+": "), trustIt(r))
	}
	if r.Version != version {
		found = append(found, warn(fmt.Sprintf("%s: its agent is deployhook %s, and the daemon is %s", r.Host, r.Version, version), restartIt)...)
	}
	if r.UID == 0 {
		found = append(found, warn(r.Host+": steps run as root there: whoever can push owns that machine", "give it a user of its own in deploy.yaml: hosts: { "+r.Host+": { user: deploy } }")...)
	}
	if ahead := time.Duration(r.ClockMS) * time.Millisecond; ahead.Abs() > clockMost {
		found = append(found, warn(fmt.Sprintf("%s: its clock is %s: certificates are refused there, and what compares times goes wrong", r.Host, apart(ahead)), "sudo timedatectl set-ntp true   (on "+r.Host+")")...)
	}
	writes := ""
	for _, p := range r.Paths {
		if p.Error != "" {
			found = append(found, fail(r.Host+": "+p.Error, "")...)
			continue
		}
		found = append(found, space(r.Host+": "+p.Path, p.Bytes, p.Inodes, "df -h "+p.Path+"   (on "+r.Host+")\nlower release.keep in deploy.yaml, or make room on that disk")...)
		writes += ", " + p.Path + " can be written"
	}
	return unlessAny(found, "%s: reached as %s, deployhook %s%s", r.Host, r.User, r.Version, writes)
}

// trustIt is how a host's key is looked at and then written down. What the
// host showed is nothing to paste before it is known to be a key.
func trustIt(r *deploy.AgentReport) string {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(r.HostKey))
	if r.HostKey == "" || err != nil || len(rest) > 0 {
		return ""
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	kind := strings.TrimPrefix(key.Type(), "ssh-")
	if kind, _, _ = strings.Cut(strings.TrimPrefix(kind, "sk-"), "-"); strings.HasPrefix(key.Type(), "ecdsa") {
		kind = "ecdsa"
	}
	return fmt.Sprintf("ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub   (on %s: it must be %s)\nput into deploy.yaml: hosts: { %s: { host_key: %s } }",
		kind, r.Host, ssh.FingerprintSHA256(key), r.Host, line)
}
