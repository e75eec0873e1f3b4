package doctor

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"deployhook/internal/deploy"
)

// answers is a proxy that has one answer for a path, and passes on the rest.
func answers(path string, status int, header, value, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			daemonPages.ServeHTTP(w, r)
			return
		}
		if header != "" {
			w.Header().Set(header, value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func (m *machine) delivery(status int, word string) {
	m.github["/repos/acme/shop/hooks/7/deliveries"] = []any{
		map[string]any{"id": 9, "delivered_at": "2026-04-01T10:15:00Z", "event": "push", "status": word, "status_code": status},
	}
}

func (m *machine) hook(key string, value any) {
	hook := m.github["/repos/acme/shop/hooks"].([]any)[0].(map[string]any)
	hook[key] = value
}

// A key of a host, and its fingerprint.
const (
	farKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	farPrint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
)

// far adds a host over SSH, and what the daemon says of it.
func (m *machine) far(reports ...deploy.AgentReport) {
	m.config("pipelines:", "hosts: { web1: { address: 192.0.2.1, host_key: "+farKey+" } }\npipelines:")
	m.agents = append(m.agents, reports...)
}

// told adds somebody who is told of runs.
func (m *machine) told() {
	m.config("    jobs:\n", "    notify: [ { name: chat, slack: { credential: github-token } } ]\n    jobs:\n")
}

// broken is everything that doctor finds: what was broken, which check says
// so, how badly, and what to type.
var broken = []struct {
	name, check string
	state       State
	text, fix   string
	do          func(m *machine)
}{
	{"no deploy.yaml at all", "config", Failure, "is not there", "sudo deployhook init", func(m *machine) { m.missing = true }},
	{"an empty deploy.yaml", "config", Failure, "the file is empty", "deployhook check", func(m *machine) { m.text = "" }},
	{"a deploy.yaml that is a directory", "config", Failure, "is a directory", "", func(m *machine) {
		m.missing = true
		m.write(etc+"/x", "", 0o644)
	}},
	{"an unknown key", "config", Failure, `did you mean "pipelines"`, "deployhook check", func(m *machine) { m.config("pipelines:", "pipelinse:") }},
	{"two errors at once", "config", Failure, "hooks.github.provider", "deployhook check", func(m *machine) {
		m.config("provider: github", "provider: gitlabb")
		m.config("run: npm test", "runn: npm test")
	}},
	{"a warning of check", "config", Warning, "a webhook may have 25 MiB", "", func(m *machine) {
		m.config("  data:", "  limits: { body_memory: 20MiB }\n  data:")
		m.report.Digest = ""
	}},
	{"a deploy.yaml that the daemon cannot read", "config", Failure, "it cannot be read by deployhook", "sudo chmod 0644", func(m *machine) { m.shut = true }},
	{"deploy.yaml newer than the daemon's", "config", Warning, "has changed since the daemon read it", "sudo systemctl reload deployhook", func(m *machine) { m.report.Digest = "old" }},
	{"a daemon of another file", "config", Warning, "the daemon runs with another file, /srv/other.yaml", "--config /srv/other.yaml", func(m *machine) {
		m.report.Digest, m.report.Config = "old", "/srv/other.yaml"
	}},
	{"a certificate that is not there", "config", Failure, "server.tls.certificate", "deployhook check", func(m *machine) {
		m.config("  data:", "  tls: { certificate: /nowhere/a.pem, key: /nowhere/b.pem }\n  data:")
	}},

	{"a short secret", "secrets", Failure, "it has 5 characters, and 16 are the least", "deployhook check", func(m *machine) { m.write("etc/deployhook/credentials/github-webhook", "short", 0o600) }},
	{"an empty secret", "secrets", Failure, "it is empty", "deployhook check", func(m *machine) { m.write("etc/deployhook/credentials/github-webhook", "\n", 0o600) }},
	{"a secret's file that is not there", "secrets", Failure, "/nowhere is not there", "deployhook check", func(m *machine) { m.config("{ credential: github-webhook }", "{ file: /nowhere }") }},
	{"a credential's file that is not there", "secrets", Failure, "github-webhook is not there, and deployhook.service does not start without it", "sudo install -m 0600 /dev/stdin", func(m *machine) {
		m.remove("etc/deployhook/credentials/github-webhook")
	}},
	{"a credential that the unit does not load", "secrets", Failure, "deployhook.service has no LoadCredential=github-webhook:", "sudo systemctl daemon-reload", func(m *machine) {
		m.says("systemctl cat deployhook.service", "[Service]\nLoadCredential=github-token:/etc/deployhook/credentials/github-token\n", 0)
	}},
	{"credentials that were taken back", "secrets", Failure, "no LoadCredential=github-token", "daemon-reload", func(m *machine) {
		m.says("systemctl cat deployhook.service", "LoadCredential=github-token:/x\nLoadCredential=\nLoadCredential=github-webhook:/etc/deployhook/credentials/github-webhook\n", 0)
	}},
	{"a credential newer than the daemon", "secrets", Warning, "is newer than what the daemon was started with", "sudo systemctl restart deployhook", func(m *machine) { m.report.Started = time.Now().Add(-time.Hour) }},
	{"a credential of other content than the daemon's", "secrets", Warning, "github-webhook is newer", "sudo systemctl restart deployhook", func(m *machine) {
		m.write("run/credentials/deployhook.service/github-webhook", "another-another-another\n", 0o400)
	}},
	{"a secret's file that only root reads", "secrets", Failure, "/srv/keys/k: it cannot be read by deployhook", "sudo chgrp deployhook /srv/keys/k", func(m *machine) {
		m.write("srv/keys/k", "x", 0o600)
		m.config("{ credential: github-webhook }", "{ file: /srv/keys/k }")
	}},
	{"a secret's file in a shut directory", "secrets", Failure, "/srv/keys cannot be entered by deployhook", "sudo chmod o+rx /srv/keys", func(m *machine) {
		m.write("srv/keys/k", "x", 0o644)
		m.mode("srv/keys", 0o700)
		m.config("{ credential: github-webhook }", "{ file: /srv/keys/k }")
	}},
	{"a secret's file at home", "secrets", Failure, "the daemon's unit hides /home from it", "sudo mv /home/alice/k", func(m *machine) {
		m.config("{ credential: github-webhook }", "{ file: /home/alice/k }")
	}},
	{"a variable that only the daemon has", "secrets", Warning, "there is no variable NOT_HERE", "", func(m *machine) { m.config("{ credential: github-webhook }", "{ environment: NOT_HERE }") }},
	{"a secret's command in a file that others write", "secrets", Failure, "names commands that would run as root now", "", func(m *machine) {
		m.config("{ credential: github-webhook }", "{ command: touch "+m.path("ran")+" }")
		m.owners["deploy.yaml"] = [2]int{uidA, 0}
	}},

	{"deploy.yaml of the deploy user", "modes", Failure, "deploy.yaml can be changed by its owner deploy", "sudo chown root:root", func(m *machine) { m.owners["deploy.yaml"] = [2]int{uidA, uidA} }},
	{"deploy.yaml of a person", "modes", Warning, "can be changed by its owner 1000", "sudo chown root:root", func(m *machine) { m.owners["deploy.yaml"] = [2]int{1000, 0} }},
	{"a directory that everybody writes", "modes", Failure, "etc can be changed by everybody", "sudo chmod 0755", func(m *machine) { m.mode("etc", 0o777) }},
	{"a directory that a group writes", "modes", Failure, "etc/deployhook can be changed by its group 1000", "sudo chmod 0755", func(m *machine) {
		m.mode("etc/deployhook", 0o775)
		m.owners["deployhook"] = [2]int{0, 1000}
	}},
	{"a secret for everybody", "modes", Failure, "has mode 0644: everybody on this machine may read", "sudo chmod go-rwx", func(m *machine) { m.mode("etc/deployhook/credentials/github-webhook", 0o644) }},
	{"a secret for steps", "modes", Failure, "can be read by deploy, and so by steps", "sudo chown root:root", func(m *machine) { m.owners["github-webhook"] = [2]int{uidA, uidA} }},
	{"a secret that a group changes", "modes", Failure, "its group may change", "sudo chmod go-rwx", func(m *machine) { m.mode("etc/deployhook/credentials/github-webhook", 0o660) }},
	{"credentials in an open directory", "modes", Warning, "credentials has mode 0755", "sudo chmod 0700", func(m *machine) { m.mode("etc/deployhook/credentials", 0o755) }},
	{"data for everybody", "modes", Failure, "/var/lib/data has mode 0755", "sudo chmod 0750 /var/lib/data", func(m *machine) { m.mode("var/lib/data", 0o755) }},
	{"a database for everybody", "modes", Warning, "deployhook.db has mode 0644", "sudo chmod 0600", func(m *machine) { m.mode("var/lib/data/deployhook.db", 0o644) }},
	{"data of root", "modes", Failure, "/var/lib/data belongs to 0", "sudo chown -R deployhook: /var/lib/data", func(m *machine) { m.owners["data"] = [2]int{0, 0} }},

	{"no user deployhook", "users", Failure, "there is no user deployhook, which the daemon runs as", "sudo systemd-sysusers", func(m *machine) { m.says("getent passwd deployhook", "", 2) }},
	{"no user for test jobs", "users", Failure, "there is no user deployhook-test", "sudo systemd-sysusers", func(m *machine) { m.says("getent passwd deployhook-test", "", 2) }},
	{"no admin group", "users", Warning, "there is no group deployhook-admin", "sudo systemd-sysusers", func(m *machine) { m.says("getent group deployhook-admin", "", 2) }},
	{"the daemon not in the admin group", "users", Failure, "deployhook is not in the group deployhook-admin", "sudo usermod -aG deployhook-admin deployhook", func(m *machine) { m.says("id -Gn deployhook", "deployhook", 0) }},
	{"steps that may do everything", "users", Failure, "deploy is in the group deployhook-admin", "sudo gpasswd -d deploy deployhook-admin", func(m *machine) { m.says("id -Gn deploy", "deploy deployhook-admin", 0) }},
	{"steps in the daemon's group", "users", Failure, "deployhook-test is in the group deployhook:", "sudo gpasswd -d deployhook-test deployhook", func(m *machine) {
		m.says("id -Gn deployhook-test", "deployhook-test deployhook", 0)
	}},
	{"test jobs with docker", "users", Failure, "deployhook-test is in the group docker", "sudo gpasswd -d deployhook-test docker", func(m *machine) {
		m.says("id -Gn deployhook-test", "deployhook-test docker", 0)
	}},
	{"deploy jobs with docker", "users", Warning, "deploy is in the group docker", "sudo gpasswd -d deploy docker", func(m *machine) { m.says("id -Gn deploy", "deploy docker", 0) }},
	{"steps as root", "users", Failure, "steps run as root", "sudo systemctl revert", func(m *machine) {
		m.agents[1].User, m.agents[1].UID = "root", 0
		m.user("root", 0, "root")
	}},
	{"one user for both", "users", Warning, "both run as deploy", "", func(m *machine) { m.agents[0].User = "deploy" }},
	{"agents that are the daemon's children", "users", Warning, "steps run as the daemon's own user", "server: { agent:", func(m *machine) {
		m.config("  agent: { test: /run/deployhook-agents/test.sock, deploy: /run/deployhook-agents/deploy.sock }\n", "")
	}},

	{"no systemd", "units", Warning, "systemd does not run here", "", func(m *machine) { m.remove("run/systemd") }},
	{"no service", "units", Warning, "deployhook is no service", "sudo deployhook init", func(m *machine) { m.remove("usr/lib/systemd/system") }},
	{"a unit that is not there", "units", Failure, "deployhook-agent@.service is not there", "make install", func(m *machine) { m.remove("usr/lib/systemd/system/deployhook-agent@.service") }},
	{"a unit that is not enabled", "units", Failure, "deployhook.service is disabled", "sudo systemctl enable deployhook.service", func(m *machine) { m.changed("deployhook.service", "=enabled", "=disabled") }},
	{"a unit that is dead", "units", Failure, "deployhook-test.socket is failed (resources)", "sudo systemctl start deployhook-test.socket", func(m *machine) {
		m.changed("deployhook-test.socket", "ActiveState=active", "ActiveState=failed")
		m.changed("deployhook-test.socket", "Result=success", "Result=resources")
	}},
	{"a masked unit", "units", Failure, "deployhook.socket is masked", "sudo systemctl unmask deployhook.socket", func(m *machine) { m.changed("deployhook.socket", "=loaded", "=masked") }},
	{"a unit that systemd does not understand", "units", Failure, "deployhook.service cannot be loaded by systemd: bad-setting", "systemd-analyze verify", func(m *machine) {
		m.changed("deployhook.service", "=loaded", "=bad-setting")
	}},
	{"units that were not loaded anew", "units", Failure, "systemd still has units as they were", "sudo systemctl daemon-reload", func(m *machine) {
		m.changed("deployhook.service", "NeedDaemonReload=no", "NeedDaemonReload=yes")
	}},
	{"a unit of another version", "units", Warning, "deployhook.service is not what this version brings", "make install", func(m *machine) {
		m.write("usr/lib/systemd/system/deployhook.service", "[Service]\nExecStart=/usr/bin/deployhook serve\n", 0o644)
	}},
	{"a unit that hides the package's", "units", Warning, "/etc/systemd/system/deployhook.socket hides /usr/lib/systemd/system/deployhook.socket", "sudo rm /etc/systemd/system/deployhook.socket", func(m *machine) {
		m.write("etc/systemd/system/deployhook.socket", "[Socket]\nListenStream=80\n", 0o644)
	}},

	{"no daemon", "daemon", Failure, "no daemon answers on", "sudo systemctl start deployhook", func(m *machine) { m.down = true }},
	{"an older daemon", "daemon", Warning, "the daemon that runs is deployhook 1.2.2, and this program is 1.2.3", "sudo systemctl restart deployhook", func(m *machine) { m.report.Version = "1.2.2" }},
	{"a program that was replaced", "daemon", Warning, "the program was replaced since the daemon was started", "sudo systemctl restart deployhook", func(m *machine) {
		dir := m.path(fmt.Sprintf("proc/%d", m.report.PID))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Symlink("/usr/bin/deployhook (deleted)", filepath.Join(dir, "exe")); err != nil {
			m.t.Fatal(err)
		}
	}},

	{"no agent socket", "sockets", Failure, "the agent socket /run/deployhook-agents/test.sock is not there", "sudo systemctl enable --now deployhook-test.socket", func(m *machine) { m.remove("run/deployhook-agents/test.sock") }},
	{"a file in a socket's place", "sockets", Failure, "deploy.sock is no socket", "sudo systemctl restart deployhook-agent.socket", func(m *machine) {
		m.remove("run/deployhook-agents/deploy.sock")
		m.write("run/deployhook-agents/deploy.sock", "", 0o660)
	}},
	{"a socket of another", "sockets", Failure, "belongs to deploy and not to root", "sudo systemctl restart deployhook-agent.socket", func(m *machine) { m.owners["deploy.sock"] = [2]int{uidA, uidD} }},
	{"a socket for everybody", "sockets", Failure, "test.sock has mode 0666", "sudo systemctl restart deployhook-test.socket", func(m *machine) { m.mode("run/deployhook-agents/test.sock", 0o666) }},
	{"a socket of another group", "sockets", Failure, "test.sock is not open to the group deployhook", "sudo systemctl restart deployhook-test.socket", func(m *machine) { m.owners["test.sock"] = [2]int{0, 0} }},
	{"a directory of sockets that steps write", "sockets", Failure, "/run/deployhook-agents can be changed by everybody", "sudo chmod 0755", func(m *machine) { m.mode("run/deployhook-agents", 0o777) }},
	{"fewer connections than workers", "sockets", Warning, "takes 3 connections at once", "MaxConnections=10", func(m *machine) {
		m.config("  data:", "  workers: 4\n  data:")
		m.changed("deployhook-agent.socket", "MaxConnections=64", "MaxConnections=3")
	}},
	{"a control socket of another group", "sockets", Warning, "does not belong to the group deployhook-admin", "sudo systemctl restart deployhook", func(m *machine) { m.owners["control.sock"] = [2]int{uidD, uidD} }},

	{"an agent that does not start", "agents", Failure, "no agent for deploy jobs: user 61 has connected, and only user 60 may", "sudo systemctl restart deployhook-agent.socket", func(m *machine) {
		m.agents[1].Error = "user 61 has connected, and only user 60 may"
	}},
	{"a child agent that does not start", "agents", Failure, "no agent for test jobs: no memory", "sudo systemctl restart deployhook", func(m *machine) { m.agents[0].Error, m.agents[0].Socket = "no memory", "" }},
	{"an agent of another version", "agents", Warning, "the agent for test jobs is deployhook 1.3.0, and the daemon is 1.2.3", "sudo systemctl restart deployhook", func(m *machine) { m.agents[0].Version = "1.3.0" }},
	{"a host that is not known to the daemon", "hosts", Warning, "web1: the daemon does not know this host yet", "sudo systemctl reload deployhook", func(m *machine) { m.far() }},
	{"a host that is down", "hosts", Failure, "web1: dialing 192.0.2.1:22: connection refused", "", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Error: "host web1: dialing 192.0.2.1:22: connection refused"})
	}},
	{"a host with another key", "hosts", Failure, "web1: the host key is not known", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub   (on web1: it must be " + farPrint + ")\nput into deploy.yaml: hosts: { web1: { host_key: " + farKey + " } }", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Error: "the host key is not known", HostKey: farKey + " root@web1"})
	}},
	{"a host whose key is none", "hosts", Failure, "web1: the host key is not known", "", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Error: "the host key is not known", HostKey: "ssh-ed25519 AAAA; rm -rf /"})
	}},
	{"a host where steps are root", "hosts", Warning, "web1: steps run as root there", "hosts: { web1: { user: deploy } }", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.2.3", User: "root"})
	}},
	{"a host whose clock is ahead", "hosts", Warning, "web1: its clock is 3 hours ahead of the daemon's: certificates are refused there", "sudo timedatectl set-ntp true   (on web1)", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.2.3", User: "deploy", UID: 1, ClockMS: 3*3600_000 + 5000})
	}},
	{"a host whose clock is behind", "hosts", Warning, "web1: its clock is 56 years behind the daemon's", "sudo timedatectl set-ntp true   (on web1)", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.2.3", User: "deploy", UID: 1, ClockMS: -56 * 366 * 24 * 3600_000})
	}},
	{"a host with an old agent", "hosts", Warning, "web1: its agent is deployhook 1.1.0, and the daemon is 1.2.3", "sudo systemctl restart deployhook", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.1.0", User: "deploy", UID: 1})
	}},
	{"a release path of a host that cannot be written", "hosts", Failure, "web1: the release path /srv/a cannot be written", "", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.2.3", User: "deploy", UID: 1, Paths: []deploy.Room{{Path: "/srv/a", Error: "the release path /srv/a cannot be written"}}})
	}},
	{"a full disk of a host", "hosts", Failure, "web1: /srv/a: 5 MiB are free, too few for a release", "df -h /srv/a   (on web1)", func(m *machine) {
		m.far(deploy.AgentReport{Host: "web1", Version: "1.2.3", User: "deploy", UID: 1, Paths: []deploy.Room{{Path: "/srv/a", Bytes: 5 << 20, Inodes: -1}}})
	}},
	{"hosts without a daemon", "hosts", Warning, "not tried: only the daemon can reach them", "", func(m *machine) {
		m.far()
		m.down = true
	}},
	{"a target that does not answer", "notify", Warning, "shop/chat does not take what it is told: 2 notifications wait, the first since 2026-11-29 03:00 UTC; the last answer: it answered 500",
		"deployhook notifications 7", func(m *machine) {
			m.told()
			at := time.Date(2026, 11, 29, 3, 0, 0, 0, time.UTC)
			m.untold = []deploy.Notification{
				{ID: 8, Target: "shop/chat", State: deploy.Waiting, Created: at.Add(2 * time.Hour)}, // not its turn yet
				{ID: 7, Target: "shop/chat", State: deploy.Waiting, Attempts: 1, Error: "it answered 500", Created: at.Add(time.Hour)},
				{ID: 6, Target: "shop/chat", State: deploy.Waiting, Attempts: 4, Error: "it does not answer", Created: at},
			}
		}},
	{"a target that was given up", "notify", Warning, "shop/chat was not told of 1 change, and is tried no more; the last answer: it answered 410",
		"deployhook notifications --failed --target shop/chat\ndeployhook notifications resend 7", func(m *machine) {
			m.told()
			m.untold = []deploy.Notification{{ID: 7, Target: "shop/chat", State: deploy.Failed, Attempts: 1, Error: "it answered 410"}}
		}},
	{"targets without a daemon", "notify", Warning, "not looked at: only the daemon knows what waits", "", func(m *machine) {
		m.told()
		m.down = true
	}},
	{"agents without a daemon", "agents", Warning, "not tried", "", func(m *machine) { m.down = true }},

	{"a command that sudo does not allow", "sudo", Failure, "sudo systemctl restart shop: sudo does not allow it to deploy", "echo 'deploy ALL=(root) NOPASSWD: /usr/bin/systemctl restart shop'", func(m *machine) {
		m.says("sudo -n -l -U deploy systemctl restart shop", "", 1)
	}},
	{"a command with signs of sudoers", "sudo", Failure, "sudo does not allow it", `NOPASSWD: /usr/bin/systemctl restart a\:b\=c`, func(m *machine) {
		m.config("sudo systemctl restart shop", "sudo systemctl restart a:b=c")
		m.says("sudo -n -l -U deploy systemctl restart a:b=c", "", 1)
	}},
	{"a command with a password", "sudo", Failure, "sudo asks deploy for a password", "NOPASSWD", func(m *machine) {
		m.says("sudo -n -l -U deploy", "User deploy may run the following commands on vps:\n    (root) PASSWD: /usr/bin/systemctl restart shop\n    (root) NOPASSWD: /usr/bin/systemctl restart blog\n", 0)
	}},
	{"no sudo", "sudo", Failure, "sudo is not installed", "sudo apt-get install sudo", func(m *machine) { m.says("sudo -n -l -U deploy systemctl restart shop", "", -1) }},
	{"sudoers with an error", "sudo", Warning, "visudo finds fault with the sudoers files: /etc/sudoers.d/x:1:9: syntax error", "sudo visudo -c", func(m *machine) {
		m.says("visudo -c", "/etc/sudoers: parsed OK\n/etc/sudoers.d/x:1:9: syntax error\nnonsense\n", 1)
	}},
	{"sudo in a test job", "sudo", Failure, "shop/test: sudo npm test: sudo refuses in test jobs", "let a deploy job do it", func(m *machine) { m.config("run: npm test", "run: sudo npm test") }},
	{"sudo within the daemon's unit", "sudo", Failure, "sudo refuses within the daemon's own unit", "deploy: /run/deployhook-agents/deploy.sock", func(m *machine) {
		m.config(", deploy: /run/deployhook-agents/deploy.sock", "")
	}},
	{"a command that the shell makes", "sudo", Warning, "the shell makes the command", "sudo -l -U deploy", func(m *machine) { m.config("sudo systemctl restart shop", "sudo systemctl restart $APP") }},

	{"a repository that is not there", "repository", Failure, "not found (404)", "", func(m *machine) { m.repo += "x" }},
	{"a repository that asks for a login", "repository", Failure, "the server asks for a login (401)", "", func(m *machine) {
		m.forge = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	}},
	{"a host that is not known", "repository", Failure, "github.com/acme/shop: its host key is not known: compare the fingerprint SHA256:", "[127.0.0.1]:", func(m *machine) { m.overSSH("") }},
	{"a host with another key", "repository", Failure, "its host key is another one than auth.known_hosts has", "ssh-ed25519 AAAA", func(m *machine) {
		m.overSSH("known_hosts: '[127.0.0.1]:PORT ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl'")
	}},
	{"a key that is none", "repository", Failure, "cannot be read: it must be a private key without a passphrase", "sudo ssh-keygen -y -f", func(m *machine) {
		m.overSSH("")
		m.write("etc/deployhook/credentials/deploy-key", "no key\n", 0o600)
	}},
	{"a key that is not there", "repository", Failure, "pipeline shop: secret pipelines.shop.auth.ssh_key:", "", func(m *machine) {
		m.overSSH("")
		m.remove("etc/deployhook/credentials/deploy-key")
	}},
	{"a repository at home", "repository", Failure, "pipeline shop: /root/shop.git: the daemon's unit hides /root from it", "sudo mv", func(m *machine) {
		m.config("REPO", "/root/shop.git")
		m.config("    auth: { token: { credential: github-token } }\n", "")
	}},
	{"a repository that the daemon may not read", "repository", Failure, "/srv/git/shop.git cannot be entered by deployhook", "sudo chmod o+rx", func(m *machine) {
		m.write("srv/git/shop.git/HEAD", "", 0o644)
		m.mode("srv/git/shop.git", 0o750)
		m.config("REPO", "/srv/git/shop.git")
		m.config("    auth: { token: { credential: github-token } }\n", "")
	}},
	{"a branch that is not there", "repository", Warning, "waits for branch mainn, which github.com/acme/shop does not have", "", func(m *machine) { m.config("[main]", "[mainn]") }},
	{"a branch with another name", "repository", Warning, "there is main", "", func(m *machine) { m.config("[main]", "[production, 'release/**', '!x']") }},

	{"a release path that cannot be written", "release", Failure, "the release path /srv/shop cannot be written by deploy", "sudo install -d -o deploy -g deploy /srv/shop", func(m *machine) {
		m.agents[1].Paths[0].Error = "the release path /srv/shop cannot be written by deploy"
	}},
	{"a release path of another", "release", Failure, "the release path /srv/shop cannot be written by deploy", "sudo chown -R deploy: /srv/shop", func(m *machine) {
		m.down = true // then by modes
		m.write("srv/shop/x", "", 0o644)
	}},
	{"a full disk", "release", Failure, "/srv/shop: 5 MiB are free, too few for a release", "lower release.keep", func(m *machine) { m.agents[1].Paths[0].Bytes = 5 << 20 }},
	{"a disk that is nearly full", "release", Warning, "/srv/shop: only 100 MiB are free", "df -h /srv/shop", func(m *machine) { m.agents[1].Paths[0].Bytes = 100 << 20 }},
	{"no inodes", "release", Failure, "/srv/shop: 0 inodes are free", "df -h", func(m *machine) { m.agents[1].Paths[0].Inodes = 0 }},
	{"few inodes", "release", Warning, "/srv/shop: only 5000 inodes are free", "df -h", func(m *machine) { m.agents[1].Paths[0].Inodes = 5000 }},

	{"no data directory, and no daemon", "data", Warning, "/var/lib/data is not there yet", "sudo systemctl start deployhook", func(m *machine) { m.remove("var/lib/data"); m.down = true }},
	{"a file for data", "data", Failure, "/var/lib/data is not a directory", "sudo mv", func(m *machine) { m.remove("var/lib/data"); m.write("var/lib/data", "", 0o640) }},

	{"little memory", "memory", Warning, "97 MiB of 1953 MiB memory are available", "ps aux", func(m *machine) { m.memory(2000000, 100000, 1000000, 1000000) }},
	{"no memory", "memory", Failure, "what is started now is killed", "fallocate", func(m *machine) { m.memory(500000, 20000, 0, 0) }},
	{"a small machine without swap", "memory", Warning, "488 MiB of memory and no swap", "sudo mkswap /swapfile", func(m *machine) { m.memory(500000, 400000, 0, 0) }},
	{"no meminfo", "memory", Warning, "cannot be read", "", func(m *machine) { m.remove("proc/meminfo") }},

	{"a clock that nobody keeps", "clock", Warning, "nobody keeps the clock right", "sudo timedatectl set-ntp true", func(m *machine) { m.synced = false }},
	{"a clock that may not be asked about", "clock", Warning, "nobody keeps the clock right", "sudo timedatectl set-ntp true", func(m *machine) {
		m.clockErr = unix.EPERM
		m.says("timedatectl show -p NTPSynchronized --value", "no\n", 0)
	}},
	{"a clock of which nothing is known", "clock", Warning, "cannot be found out: operation not permitted", "timedatectl", func(m *machine) { m.clockErr = unix.EPERM }},
	{"a clock that is wrong", "clock", Failure, "behind that of https://", "sudo timedatectl set-ntp true", func(m *machine) { m.now = func() time.Time { return time.Now().Add(-10 * time.Minute) } }},

	{"nobody on the port", "port", Failure, "nothing listens on", "sudo systemctl start deployhook", func(m *machine) {
		m.report.Listen = unused(m.t)
	}},
	{"somebody else on the port", "port", Failure, "another program answers on", "sudo ss -ltnp", func(m *machine) {
		m.local, m.public = http.NotFoundHandler(), daemonPages
	}},
	{"who has the port", "port", Failure, "python3 has the port", "ss -ltnp", func(m *machine) {
		m.local, m.public, m.down = http.NotFoundHandler(), daemonPages, true
		m.said["ss"] = said{`LISTEN 0 5 0.0.0.0:8484 0.0.0.0:* users:(("python3",pid=7,fd=3))` + "\n", 0}
	}},
	{"a socket unit with another port", "port", Failure, "deployhook.socket listens on 127.0.0.1:9 and server.listen is", "ListenStream=", func(m *machine) { m.changed("deployhook.socket", "LISTEN", "127.0.0.1:9") }},

	{"no server.url", "url", Warning, "server.url is not set", "put into deploy.yaml", func(m *machine) { m.config("  url: URL\n", "") }},
	{"a certificate of nobody", "url", Failure, "signed by nobody whom this machine trusts", "docs/proxy.md", func(m *machine) { m.roots = x509.NewCertPool() }},
	{"a name that is not known", "url", Failure, "deployhook.invalid", "curl -v", func(m *machine) { m.config("url: URL", "url: https://deployhook.invalid") }},
	{"nobody at server.url", "url", Failure, "the connection was refused", "curl -v", func(m *machine) { m.config("url: URL", "url: http://"+unused(m.t)) }},
	{"no TLS there", "url", Failure, "it does not speak TLS there", "curl -v", func(m *machine) { m.config("url: URL", "url: https://LISTEN") }},
	{"a redirect", "url", Failure, "it redirects to https://www.example.com, and GitHub does not follow", "curl -i", func(m *machine) {
		m.public = answers("/healthz", 301, "Location", "https://www.example.com/healthz", "")
	}},
	{"a login in front", "url", Failure, "the proxy asks for a login", "curl -i", func(m *machine) { m.public = answers("/healthz", 401, "", "", "") }},
	{"a firewall in front", "url", Failure, "forbids it", "curl -i", func(m *machine) { m.public = answers("/healthz", 403, "", "", "") }},
	{"another site", "url", Failure, "the proxy does not pass /healthz on", "curl -i", func(m *machine) { m.public = answers("/healthz", 404, "", "", "") }},
	{"a proxy without a daemon", "url", Failure, "the proxy does not reach deployhook", "curl -i", func(m *machine) { m.public = answers("/healthz", 502, "", "", "") }},
	{"a page", "url", Failure, "something else than deployhook answers there", "curl -i", func(m *machine) { m.public = answers("/healthz", 200, "", "", "<html>welcome") }},
	{"a certificate that ends soon", "url", Warning, "ends in", "sudo certbot renew", func(m *machine) {
		m.now = func() time.Time { return time.Date(2084, 1, 20, 0, 0, 0, 0, time.UTC) } // httptest's is until 2084-01-29
	}},

	{"a token that GitHub refuses", "github", Failure, "GitHub refuses the token (401)", "settings/tokens", func(m *machine) { m.status["/repos/acme/shop/hooks"] = 401 }},
	{"a token that may not read webhooks", "github", Warning, "the token may not read webhooks (404): it needs admin:repo_hook", "", func(m *machine) { m.status["/repos/acme/shop/hooks"] = 404 }},
	{"a GitHub that is down", "github", Warning, "GitHub answered 503", "", func(m *machine) { m.status["/repos/acme/shop/hooks"] = 503 }},
	{"no webhook", "github", Failure, "acme/shop has no webhook for https://", "settings/hooks/new", func(m *machine) { m.github["/repos/acme/shop/hooks"] = []any{} }},
	{"a webhook to another server", "github", Failure, "has no webhook for", "Payload URL: https://", func(m *machine) {
		m.hook("config", map[string]any{"url": "https://other.example.com/hooks/github"})
	}},
	{"a webhook that is not active", "github", Failure, "its webhook is not active", "tick Active", func(m *machine) { m.hook("active", false) }},
	{"a webhook without pushes", "github", Failure, "its webhook does not send pushes", "Just the push event", func(m *machine) { m.hook("events", []string{"issues"}) }},
	{"a webhook that verifies nothing", "github", Warning, "does not verify the certificate", "Enable SSL verification", func(m *machine) {
		m.hook("config", map[string]any{"url": "URL/hooks/github", "insecure_ssl": "1"})
	}},
	{"a delivery that was refused", "github", Failure, "was answered 401, Invalid HTTP Response: 401: wrong signature: the secret here is not the one", "Redeliver", func(m *machine) {
		m.delivery(401, "Invalid HTTP Response: 401")
	}},
	{"a delivery that did not arrive", "github", Failure, "did not arrive, failed to connect to host", "Redeliver", func(m *machine) { m.delivery(0, "failed to connect to host") }},
	{"no delivery", "github", Warning, "has sent nothing in the last days", "git push", func(m *machine) { m.github["/repos/acme/shop/hooks/7/deliveries"] = []any{} }},
	{"an answer that is none", "github", Warning, "GitHub's answer cannot be read", "", func(m *machine) { m.github["/repos/acme/shop/hooks"] = "x" }},

	{"a proxy with a small limit", "proxy", Failure, "the proxy refuses bodies of 25 MiB (413)", "client_max_body_size 25m", func(m *machine) { m.public = answers(sizePath, 413, "", "", "<html>") }},
	{"a proxy that does not pass hooks on", "proxy", Failure, "/hooks/ answers 404 Not Found", "curl -i", func(m *machine) { m.public = answers(sizePath, 404, "", "", "<html>") }},
	{"a daemon of an earlier version", "proxy", Warning, "the daemon is of an earlier version", "restart", func(m *machine) {
		m.public = answers(sizePath, 404, "", "", `{"message":"there is no such hook: the path is"}`)
	}},
	{"a probe that somebody else sends", "proxy", Warning, "another probe is being read", "sudo deployhook doctor", func(m *machine) {
		m.public = answers(sizePath, 503, "", "", `{"message":"another probe is being read"}`)
	}},
	{"something that changes bodies", "proxy", Failure, "3 came through", "docs/proxy.md", func(m *machine) { m.public = answers(sizePath, 200, "", "", `{"bytes":3}`) }},
	{"nobody to take bodies", "proxy", Warning, "was not found out: the connection was refused", "docs/proxy.md", func(m *machine) { m.config("url: URL", "url: http://"+unused(m.t)) }},
}

func (m *machine) memory(total, available, swap, swapFree int) {
	m.write("proc/meminfo", fmt.Sprintf("MemTotal: %d kB\nMemAvailable: %d kB\nSwapTotal: %d kB\nSwapFree: %d kB\n", total, available, swap, swapFree), 0o644)
}

// overSSH has the repository on an SSH server whose key nobody knows.
func (m *machine) overSSH(known string) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		m.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("etc/deployhook/credentials/deploy-key", string(pem.EncodeToMemory(block)), 0o600)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	var served sync.WaitGroup
	m.t.Cleanup(func() { l.Close(); served.Wait() })
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conf := &ssh.ServerConfig{NoClientAuth: true}
			conf.AddHostKey(signer)
			_, _, _, _ = ssh.NewServerConn(c, conf)
			c.Close()
		}
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	m.config("REPO", "ssh://git@127.0.0.1:"+port+"/shop.git")
	if known != "" {
		known = ", " + strings.ReplaceAll(known, "PORT", port)
	}
	m.config("token: { credential: github-token }", "ssh_key: { credential: deploy-key }"+known)
}

// unused is an address that nobody listens on.
func unused(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWhatIsBrokenIsSaidWithWhatToType(t *testing.T) {
	failed := map[string]bool{}
	for _, tt := range broken {
		failed[tt.check] = true
		t.Run(tt.check+": "+tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			tt.do(m)
			var said []string
			found := false
			for _, c := range m.look() {
				line := fmt.Sprintf("%s %s: %s\n    %s", c.State, c.Name, c.Text, c.Fix)
				if c.State != OK {
					said = append(said, line)
				}
				for _, secret := range []string{"0123456789abcdef", "ghp_", "hidden-hidden"} {
					if strings.Contains(line, secret) {
						t.Errorf("a secret is said: %s", line)
					}
				}
				if c.Name == tt.check && c.State == tt.state && strings.Contains(c.Text, tt.text) && strings.Contains(c.Fix, tt.fix) {
					found = true
				}
			}
			if !found {
				t.Errorf("want %s %s: %s\n    %s\nsaid:\n%s", tt.state, tt.check, tt.text, tt.fix, strings.Join(said, "\n"))
			}
			if _, err := os.Stat(m.path("ran")); err == nil {
				t.Error("the command was run")
			}
		})
	}
	for _, name := range Names() {
		if !failed[name] {
			t.Errorf("nothing shows how %s fails", name)
		}
	}
}
