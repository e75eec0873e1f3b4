package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deployhook/internal/deploy"
)

// aKey is a public key as host_key has it.
var aKey = strings.TrimSpace(aHostKey)

// farText is a file with hosts, and a job with lines.
func farText(hosts, job string) string {
	return "hosts:\n" + indent(hosts, "  ") + jobText(job+"steps: [ { run: x } ]\n")
}

// farHost is one host with keys, which a job names.
func farHost(keys string) string {
	return farText("web1: { "+keys+" }\n", "host: web1\n")
}

func TestHostsAreReadAsWritten(t *testing.T) {
	f := parsed(t, `secrets: { ssh: { credential: ssh-key } }
hosts:
  bastion: { user: jump, host_key: "`+aKey+` root@bastion" }
  web1:
    address: 192.0.2.11
    user: deploy
    port: 2222
    identity_file: /etc/deployhook/id
    jump: bastion
    known_hosts: "[192.0.2.11]:2222 `+aKey+`"
    keepalive: 30s
    labels: [web, all]
  web2: { address: "2001:db8::7", identity-file: ssh, ssh_config: /etc/deployhook/ssh_config, labels: all }
  db: { identity_file: { file: /k }, host_key: `+aKey+`, labels: [all] }
`+jobText("hosts: [web, local, all]\nsteps: [ { run: x } ]\n"))
	h := f.Deploy.Hosts
	if len(h) != 4 || h[1].Jump != &h[0] {
		t.Fatalf("the hosts are %+v", h)
	}
	want := []deploy.Host{
		{Name: "bastion", User: "jump", HostKey: aKey},
		{
			Name: "web1", Address: "192.0.2.11", User: "deploy", Port: 2222, Identity: &deploy.Secret{Name: "hosts.web1.identity_file", File: "/etc/deployhook/id"},
			Jump: &h[0], KnownHosts: "[192.0.2.11]:2222 " + aKey, Keepalive: 30 * time.Second, Labels: []string{"web", "all"},
		},
		{Name: "web2", Address: "2001:db8::7", Identity: &deploy.Secret{Name: "ssh", Credential: "ssh-key"}, SSHConfig: "/etc/deployhook/ssh_config", Labels: []string{"all"}},
		{Name: "db", Identity: &deploy.Secret{Name: "hosts.db.identity_file", File: "/k"}, HostKey: aKey, Labels: []string{"all"}},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
	if got, want := f.Deploy.Pipelines[0].Jobs[0].Hosts, []string{"web1", "local", "web2", "db"}; !slices.Equal(got, want) {
		t.Errorf("the job runs on %q, want %q", got, want)
	}
	for _, name := range []string{"ssh", "hosts.web1.identity_file", "hosts.db.identity_file"} {
		if !slices.ContainsFunc(f.Secrets(), func(s deploy.Secret) bool { return s.Name == name }) {
			t.Errorf("%s is not among the secrets", name)
		}
	}
	var b bytes.Buffer
	Describe(&b, f)
	for _, want := range []string{
		"host bastion\n  address   bastion (default)\n  user      jump\n  key       the SSH agent's, and those that ssh has by default (default)\n  is        ssh-ed25519 SHA256:",
		"host web1\n  address   192.0.2.11:2222\n  user      deploy\n  key       from file /etc/deployhook/id\n  is        as known_hosts says\n  through   bastion\n  asked     every 30s when it is silent\n  labels    web, all\n",
		"\n  config    /etc/deployhook/ssh_config counts where nothing is written here\n", "\n    host      web1, local, web2, db\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestEachMistakeInHostsIsOneSentence(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "h%d: { host_key: %s, labels: [all] }\n", i, aKey)
		}
		return b.String()
	}
	private := "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEA\\n-----END OPENSSH PRIVATE KEY-----\\n"
	for _, tt := range []struct{ name, text, want string }{
		{"local", farText("local: { address: a }\n", ""), "2:12: hosts.local: local is this machine, and no other can have its name"},
		{"text for a host", farText("web1: 192.0.2.1\n", "host: web1\n"), "hosts.web1: a section with address, user, port, identity_file, … is wanted here, not text"},
		{"bad name", farText("web.1: { address: a }\n", ""), "hosts.web.1: a name has letters, digits"},
		{"unknown key", farHost("adress: a"), `hosts.web1.adress: unknown key; did you mean "address"?`},
		{"ssh's word", farHost("hostname: a"), "hosts.web1.hostname: unknown key; write address"},
		{"password", farHost("password: a"), "hosts.web1.password: unknown key; deployhook logs in with keys alone: write identity_file"},
		{"too many hosts", farText(many(1001), ""), "hosts: there are 1001 hosts, and 1000 are the most"},

		{"user in the address", farHost("address: deploy@web1"), "hosts.web1.address: who logs in stands in user: write the part after the @ alone"},
		{"port in the address", farHost("address: 'web1:22'"), "hosts.web1.address: the port stands in port: write the part before the colon alone"},
		{"port after brackets", farHost("address: '[2001:db8::7]:22'"), "the port stands in port"},
		{"brackets", farHost("address: '[2001:db8::7]'"), "hosts.web1.address: write 2001:db8::7, without brackets"},
		{"URL", farHost("address: 'ssh://web1'"), "a name or an address is wanted here, not a URL"},
		{"option as an address", farHost("address: -oProxyCommand=x"), "a name or an address does not begin with -"},
		{"spaces in the address", farHost("address: 'web1 web2'"), `a name or an address is wanted here, like web1.example.com, 192.0.2.7 or 2001:db8::7, not "web1 web2"`},
		{"control characters in the address", farHost(`address: "web\e1"`), "hosts.web1.address: one line is wanted here, without control characters"},
		{"long address", farHost("address: " + strings.Repeat("a", 254)), "at most 253 characters"},
		{"empty address", farHost("address: ''"), "hosts.web1.address: this is empty"},
		{"host in the user", farHost("user: deploy@web1"), "hosts.web1.user: the host stands in address: write the part before the @ alone"},
		{"option as a user", farHost("user: -lroot"), "the name of a user does not begin with -"},
		{"spaces in the user", farHost("user: 'a b'"), "the name of a user has no spaces"},
		{"port 0", farHost("port: 0"), `hosts.web1.port: a whole number from 1 to 65535 is wanted here, not "0"`},
		{"port 65536", farHost("port: 65536"), `a whole number from 1 to 65535 is wanted here, not "65536"`},
		{"short keepalive", farHost("keepalive: 10ms"), `hosts.web1.keepalive: a duration from 1s to 10m is wanted here, not "10ms"`},
		{"long keepalive", farHost("keepalive: 11m"), "a duration from 1s to 10m is wanted here"},

		{"relative key file", farHost("identity_file: keys/id"), "hosts.web1.identity_file: an absolute path of a private key is wanted here, the name of a secret, or an object like {credential: NAME}"},
		{"key file at home", farHost("identity_file: ~/.ssh/id_ed25519"), "~ stands for no home directory here"},
		{"key in the file", farHost(`identity_file: "` + private + `"`), "a private key never stands in this file"},
		{"two key files", farHost("identity_file: [/a, /b]"), "one private key is wanted here, not a list"},
		{"no such secret", farHost("identity_file: id_ed25519"), "hosts.web1.identity_file: there is no such name under secrets"},
		{"two sources", farHost("identity_file: { file: /a, credential: b }"), "exactly one of environment, file, credential and command is wanted"},
		{"relative ssh_config", farHost("ssh_config: ssh/config"), `hosts.web1.ssh_config: an absolute path is wanted here, like /etc/deployhook/ssh_config, not "ssh/config"`},
		{"ssh_config at home", farHost("ssh_config: ~/.ssh/config"), "~ stands for no home directory here"},

		{"no key", farHost("host_key: AAAA"), "hosts.web1.host_key: its public key is wanted here, like ssh-ed25519 AAAA…: ssh-keyscan HOST prints it after the host's name"},
		{"empty host key", farHost("host_key: ''"), "hosts.web1.host_key: this is empty"},
		{"private host key", farHost(`host_key: "` + private + `"`), "this is a private key, which never leaves its host"},
		{"fingerprint", farHost("host_key: 'SHA256:abc'"), "this is a fingerprint: the key itself is wanted here"},
		{"path of a host key", farHost("host_key: /etc/ssh/ssh_host_ed25519_key.pub"), "this is a path: its public key is wanted here"},
		{"name before the host key", farHost("host_key: web1 " + aKey), "the host's name stands before the key: write the key alone"},
		{"two host keys", farHost(`host_key: "` + aKey + `\n` + aKey + `"`), "one key is wanted here: several lines stand in known_hosts"},
		{"authority as a host key", farHost("host_key: '@cert-authority * " + aKey + "'"), "lines with @cert-authority and @revoked stand in known_hosts"},
		{"another type before the host key", farHost("host_key: " + strings.Replace(aKey, "ssh-ed25519", "ssh-rsa", 1)), "the key is of type ssh-ed25519, and another is written before it"},
		{"host_key and known_hosts", farHost("host_key: " + aKey + ", known_hosts: 'web1 " + aKey + "'"), "hosts.web1.known_hosts: host_key and known_hosts do not go together"},
		{"path of known_hosts", farHost("known_hosts: /etc/ssh/known_hosts"), "the lines themselves are wanted here, not a path"},
		{"known_hosts that are none", farHost("known_hosts: web1 AAAA"), "line 1 is not one of known_hosts"},
		{"known_hosts without a line", farHost("known_hosts: '# none'"), "hosts.web1.known_hosts: there is no line with a key in it"},

		{"bad label", farHost("labels: ['a b']"), "hosts.web1.labels: a label has letters, digits"},
		{"label local", farHost("labels: [local]"), "local is this machine, and no label can have its name"},
		{"label of its own name", farHost("labels: [web1]"), "web1 is the name of a host: a label needs another"},
		{"label of another's name", farText("web1: { labels: [web2] }\nweb2: { address: a }\n", ""), "2:20: hosts.web1.labels: web2 is the name of a host"},
		{"label twice", farHost("labels: [a, a]"), "label a stands here twice"},

		{"jump to itself", farHost("jump: web1"), "hosts.web1.jump: web1 would be reached through itself"},
		{"jump to local", farHost("jump: local"), "every host is reached from this machine: leave jump out"},
		{"unknown jump", farText("web1: { jump: web3 }\nweb2: { address: a }\n", ""), `hosts.web1.jump: no host "web3"; did you mean "web1"?`},
		{"jump with a user", farHost("jump: me@bastion"), "the name of a host under hosts is wanted here: its address, user and port stand there"},
		{"jump to a label", farText("web1: { jump: all }\nweb2: { labels: [all] }\n", ""), "hosts.web1.jump: all is a label: one host is wanted here"},
		{"circle", farText("a: { jump: b }\nb: { jump: c }\nc: { jump: b }\n", ""), "3:14: hosts.b.jump: these hosts are reached through each other: b through c through b"},

		{"unknown host", farText("web1: { address: a }\n", "host: wbe1\n"), `pipelines.p.jobs.j.host: no host or label "wbe1"; did you mean "web1"?`},
		{"unknown label", farText("web1: { labels: [production] }\n", "hosts: [prodution]\n"), `jobs.j.hosts: no host or label "prodution"; did you mean "production"?`},
		{"no hosts at all", jobText("host: production\nsteps: [ { run: x } ]\n"), `no host or label "production": it is written under hosts, with its address`},
		{"misspelt local", jobText("host: lokal\nsteps: [ { run: x } ]\n"), `no host or label "lokal"; did you mean "local"?`},
		{"several in one text", farText("web1: { address: a }\nweb2: { address: b }\n", "host: web1, web2\n"), `no host "web1, web2": a list is written hosts: [web1, web2]`},
		{"user before a host", farText("web1: { address: a }\n", "host: deploy@web1\n"), `no host "deploy@web1": a name under hosts is wanted here; address, user and port stand there`},
		{"host twice", farText("web1: { address: a }\n", "hosts: [web1, web1]\n"), "10:23: pipelines.p.jobs.j.hosts: web1 stands here twice"},
		{"too many of a job", farText(many(201), "host: all\n"), "the job would run on more than 200 hosts"},
		{"a host that is wrong is not missed", farText("web1: { port: 0 }\n", "hosts: [web1, web2]\n"), "hosts.web1.port: a whole number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := problemsOf(t, tt.text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got\n  %s\nwant one problem with\n  %s", strings.Join(got, "\n  "), tt.want)
			}
			for _, g := range got {
				if strings.Contains(g, "b3BlbnNza") {
					t.Errorf("a private key is repeated: %s", g)
				}
			}
		})
	}
}

func TestWarningsOfHosts(t *testing.T) {
	keyed := "host_key: " + aKey
	both := func(hosts, test, release string) string {
		return "hosts:\n" + indent(hosts, "  ") + hooksPart + "pipelines: { p: { repository: github.com/a/b, on: { push: { branches: [main] } }, jobs: { test: { host: " + test + ", steps: [ { run: x } ] }, deploy: { host: " + release + ", release: /srv/a } } } }\n"
	}
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"no key of the host", farHost("user: deploy"), []string{"2:11: hosts.web1: without host_key or known_hosts, its key is looked for in ~/.ssh/known_hosts of the daemon's user"}},
		{"what ssh_config says", farHost("ssh_config: /etc/ssh_config"), nil},
		{"unused", farText("web1: { "+keyed+" }\nweb2: { "+keyed+" }\n", "host: web1\n"), []string{"3:11: hosts.web2: no job runs on this host"}},
		{"gone through", farText("web1: { "+keyed+", jump: b }\nb: { "+keyed+" }\n", "host: web1\n"), nil},
		{"gone through by one that is unused", farText("web1: { "+keyed+" }\nb: { "+keyed+" }\nc: { "+keyed+", jump: b }\n", "host: web1\n"), []string{"hosts.b: no job runs", "hosts.c: no job runs"}},
		{"limits", farText("web1: { "+keyed+" }\n", "host: web1\nlimits: { pids: 9 }\n"), []string{"pipelines.p.jobs.j.limits: they need agents that systemd starts: on host web1, over SSH, the job fails"}},
		{"one user for test and deploy", both("a: { "+keyed+", user: deploy }\n", "a", "a"), []string{"hosts.a: test jobs (p/test) and deploy jobs (p/deploy) run as the same user of this host: whoever can push can read and change what deploy jobs can"}},
		{"one user under two names", both("a: { address: x, "+keyed+", user: d }\nb: { address: x, "+keyed+", user: d, port: 22 }\n", "a", "b"), []string{"hosts.a: test jobs (p/test)"}},
		{"two users", both("a: { address: x, "+keyed+", user: t }\nb: { address: x, "+keyed+", user: d }\n", "a", "b"), nil},
		{"two hosts", both("a: { "+keyed+" }\nb: { "+keyed+" }\n", "a", "b"), nil},
		{"tests here", both("a: { "+keyed+" }\n", "local", "a"), []string{"test jobs (p/test) run as the daemon's own user"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if tt.name == "tests here" {
				text = "server: { agent: { deploy: /a.sock } }\n" + text
			}
			got := warningsOf(parsed(t, text))
			ok := len(got) == len(tt.want)
			for i := range min(len(got), len(tt.want)) {
				ok = ok && strings.Contains(got[i], tt.want[i])
			}
			if !ok {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestOnePathOnTwoHostsIsTwoPaths(t *testing.T) {
	file := func(a, b string) string {
		return "hosts: { a: { address: x }, b: { address: y } }\n" + hooksPart + `pipelines:
  one: { repository: github.com/acme/shop, jobs: { d: { hosts: ` + a + `, release: /srv/shop } } }
  two: { repository: github.com/acme/other, jobs: { d: { hosts: ` + b + `, release: /srv/shop } } }
`
	}
	parsed(t, file("[a]", "[b, local]"))
	if got := problemsOf(t, file("[a, local]", "[local, b]")); len(got) != 1 || !strings.Contains(got[0], "pipeline one deploys another repository to /srv/shop") {
		t.Errorf("got %q", got)
	}
}
