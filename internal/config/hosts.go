package config

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"deployhook/internal/deploy"
)

// Bounds of hosts.
const (
	hostsMost    = 1000 // in a file
	jobHostsMost = 200  // of a job, with those that its labels stand for
	addressMost  = 253  // characters: the longest name that DNS has
	userMost     = 256  // characters

	keepaliveLeast = time.Second
	keepaliveMost  = 10 * time.Minute
)

// hostSet are the hosts of a file: what jobs may name.
type hostSet struct {
	nodes  map[string]*node
	labels map[string][]string // hosts by label, in the order written
	names  []string            // of hosts, then of labels, in the order written
	used   map[string]bool     // hosts that a job names
}

// readHosts reads the section hosts.
func (b *builder) readHosts(n *node) {
	b.hosts = hostSet{nodes: map[string]*node{}, labels: map[string][]string{}, used: map[string]bool{}}
	if n == nil {
		return
	}
	if len(n.order) > hostsMost {
		b.bad(n, "there are %d hosts, and %d are the most", len(n.order), hostsMost)
		return
	}
	for _, name := range n.order {
		k := n.keys[name]
		if name == deploy.Local {
			b.bad(k, "local is this machine, and no other can have its name")
			continue
		}
		b.hosts.nodes[name] = k
		b.hosts.names = append(b.hosts.names, name)
		b.cfg.Hosts = append(b.cfg.Hosts, b.host(name, k))
	}
	for _, h := range b.cfg.Hosts { // once all names are known
		b.labels(h.Name)
	}
	b.jumps()
}

func (b *builder) host(name string, n *node) deploy.Host {
	h := deploy.Host{
		Name: name, Address: b.address(n.get("address")), User: b.loginName(n.get("user")), Port: numberOf(n.get("port"), 0),
		Identity: b.identity(n.get("identity_file")), HostKey: b.hostKey(n.get("host_key")), KnownHosts: b.knownHosts(n.get("known_hosts")),
		SSHConfig: b.sshConfig(n.get("ssh_config")), Keepalive: durationOf(n.get("keepalive"), 0), Labels: textsOf(n.get("labels")),
	}
	known := n.get("known_hosts")
	switch {
	case n.get("host_key") != nil && known != nil:
		b.bad(known, "host_key and known_hosts do not go together: one of them says which key the host has")
	case known != nil && !b.within(known.path) && !slices.ContainsFunc(strings.Split(known.text, "\n"), func(line string) bool {
		line = strings.TrimSpace(line)
		return line != "" && line[0] != '#'
	}):
		b.bad(known, "there is no line with a key in it: ssh-keyscan HOST prints them")
	case b.absent(n, "host_key") && b.absent(n, "known_hosts") && n.get("ssh_config") == nil:
		b.warn(n, "without host_key or known_hosts, its key is looked for in ~/.ssh/known_hosts of the daemon's user")
	}
	if k := n.get("keepalive"); k != nil && (h.Keepalive < keepaliveLeast || h.Keepalive > keepaliveMost) {
		b.bad(k, "a duration from %s to %s is wanted here, not %q", span(keepaliveLeast), span(keepaliveMost), short(k.text))
	}
	return h
}

// address checks a host's name or address, which is no more than that.
func (b *builder) address(n *node) string {
	if n == nil {
		return ""
	}
	text := n.text
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	_, notIP := netip.ParseAddr(text)
	_, notBare := netip.ParseAddr(bare)
	_, _, noPort := net.SplitHostPort(text)
	switch {
	case strings.Contains(text, "://"):
		b.bad(n, "a name or an address is wanted here, not a URL: the port stands in port, the user in user")
	case strings.Contains(text, "@"):
		b.bad(n, "who logs in stands in user: write the part after the @ alone")
	case notIP == nil:
	case notBare == nil:
		b.bad(n, "write %s, without brackets", bare)
	case noPort == nil:
		b.bad(n, "the port stands in port: write the part before the colon alone")
	case strings.HasPrefix(text, "-"):
		b.bad(n, "a name or an address does not begin with -")
	case len(text) > addressMost:
		b.bad(n, "at most %d characters are wanted here", addressMost)
	case strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.ContainsAny(text, " :/"):
		b.bad(n, "a name or an address is wanted here, like web1.example.com, 192.0.2.7 or 2001:db8::7, not %q", short(text))
	}
	return text
}

func (b *builder) loginName(n *node) string {
	if n == nil {
		return ""
	}
	switch {
	case strings.Contains(n.text, "@"):
		b.bad(n, "the host stands in address: write the part before the @ alone")
	case strings.HasPrefix(n.text, "-"):
		b.bad(n, "the name of a user does not begin with -")
	case strings.ContainsFunc(n.text, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' || r == '/' }):
		b.bad(n, "the name of a user has no spaces, colons, slashes and control characters")
	case len(n.text) > userMost:
		b.bad(n, "at most %d characters are wanted here", userMost)
	}
	return n.text
}

// identity reads a private key's file, or the secret that it is.
func (b *builder) identity(n *node) *deploy.Secret {
	if n == nil || n.keys != nil || !path.IsAbs(n.text) {
		return b.secretOf(n)
	}
	return &deploy.Secret{Name: n.path, File: n.text}
}

// identityForm is the form of identity_file: a path, or a secret. What is
// neither is not repeated in the message: it may be the key itself.
func (c *checker) identityForm(n *node) *node {
	v := n.v
	bad := func(text string) *node {
		c.problem(v.line, v.column, n.path, "%s", text)
		return nil
	}
	switch {
	case v.isList:
		return bad("one private key is wanted here, not a list")
	case v.scalar && strings.Contains(v.text, "PRIVATE KEY"):
		return bad("a private key never stands in this file: write the path of a file that only the daemon can read")
	case v.scalar && strings.HasPrefix(v.text, "~"):
		return bad("~ stands for no home directory here: write the whole path")
	case v.scalar && path.IsAbs(v.text):
		if strings.ContainsFunc(v.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad("a path without control characters is wanted here")
		}
		if !c.literal(v, n.path) {
			return nil
		}
		n.text = v.text
		return n
	case v.scalar && !validName(v.text):
		return bad("an absolute path of a private key is wanted here, the name of a secret, or an object like {credential: NAME}")
	}
	return c.secret(n)
}

// keyForm is what a host's key looks like.
const keyForm = "its public key is wanted here, like ssh-ed25519 AAAA…: ssh-keyscan HOST prints it after the host's name"

// hostKey reads a public key and gives it without a comment. What stands there
// is not repeated in messages: it may be the private one.
func (b *builder) hostKey(n *node) string {
	if n == nil {
		return ""
	}
	text := strings.TrimSpace(n.text)
	kind, rest, _ := strings.Cut(text, " ")
	blob, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	raw, err := base64.StdEncoding.DecodeString(blob)
	var key ssh.PublicKey
	if err == nil {
		key, err = ssh.ParsePublicKey(raw)
	}
	why := ""
	switch {
	case text == "":
		why = "this is empty: " + keyForm
	case strings.Contains(text, "PRIVATE KEY"):
		why = "this is a private key, which never leaves its host: make new ones there with ssh-keygen -A, and write the public one here"
	case strings.HasPrefix(text, "SHA256:"), strings.HasPrefix(text, "MD5:"):
		why = "this is a fingerprint: the key itself is wanted here, like ssh-ed25519 AAAA…"
	case path.IsAbs(text) || strings.HasPrefix(text, "~"):
		why = "this is a path: " + keyForm
	case strings.Contains(text, "\n"):
		why = "one key is wanted here: several lines stand in known_hosts"
	case strings.HasPrefix(text, "@"):
		why = "lines with @cert-authority and @revoked stand in known_hosts"
	case err != nil && namesHost(text):
		why = "the host's name stands before the key: write the key alone, like ssh-ed25519 AAAA…"
	case err != nil:
		why = keyForm
	case strings.Contains(key.Type(), "-cert-"):
		why = "this is a certificate: write the key of who signed it into known_hosts, after @cert-authority"
	case key.Type() == "ssh-dss":
		why = "a DSA key is not accepted any more: write another of the host's keys"
	case key.Type() != kind:
		why = fmt.Sprintf("the key is of type %s, and another is written before it", key.Type())
	}
	if why != "" {
		b.bad(n, "%s", why)
		return ""
	}
	return kind + " " + blob
}

// namesHost says whether a text is a line of known_hosts.
func namesHost(text string) bool {
	_, hosts, _, _, _, err := ssh.ParseKnownHosts([]byte(text))
	return err == nil && len(hosts) > 0
}

func (b *builder) sshConfig(n *node) string {
	switch {
	case n == nil:
		return ""
	case strings.HasPrefix(n.text, "~"):
		b.bad(n, "~ stands for no home directory here: write the whole path")
	case !path.IsAbs(n.text):
		b.bad(n, "an absolute path is wanted here, like /etc/deployhook/ssh_config, not %q", short(n.text))
	}
	return n.text
}

// labels notes which hosts a label stands for.
func (b *builder) labels(host string) {
	n := b.hosts.nodes[host].get("labels")
	if n == nil {
		return
	}
	for i, item := range n.items {
		label := item.text
		switch {
		case !validName(label):
			b.bad(item, "a label has letters, digits, - and _, and begins with a letter or digit; at most 64 characters")
		case label == deploy.Local:
			b.bad(item, "local is this machine, and no label can have its name")
		case b.hosts.nodes[label] != nil:
			b.bad(item, "%s is the name of a host: a label needs another", label)
		case slices.ContainsFunc(n.items[:i], func(x *node) bool { return x.text == label }):
			b.bad(item, "label %s stands here twice", label)
		default:
			if len(b.hosts.labels[label]) == 0 {
				b.hosts.names = append(b.hosts.names, label)
			}
			b.hosts.labels[label] = append(b.hosts.labels[label], host)
		}
	}
}

// jumps finds the hosts that others are reached through.
func (b *builder) jumps() {
	for i := range b.cfg.Hosts {
		h := &b.cfg.Hosts[i]
		n := b.hosts.nodes[h.Name].get("jump")
		if n == nil {
			continue
		}
		switch name := n.text; {
		case name == h.Name:
			b.bad(n, "%s would be reached through itself", name)
		case name == deploy.Local:
			b.bad(n, "every host is reached from this machine: leave jump out")
		case strings.ContainsAny(name, "@:,"):
			b.bad(n, "the name of a host under hosts is wanted here: its address, user and port stand there")
		case b.hosts.labels[name] != nil:
			b.bad(n, "%s is a label: one host is wanted here", name)
		case b.hosts.nodes[name] == nil:
			if !b.within("hosts." + name) {
				b.bad(n, "no host %q%s", short(name), deploy.DidYouMean(name, b.hosts.names[:len(b.cfg.Hosts)]))
			}
		default:
			h.Jump = b.cfg.Host(name)
		}
	}
	said := map[*deploy.Host]bool{}
	for i := range b.cfg.Hosts {
		h := &b.cfg.Hosts[i]
		var way []*deploy.Host
		for at := h; at != nil && !said[at]; at = at.Jump {
			if k := slices.Index(way, at); k >= 0 {
				var names []string
				for _, x := range append(way[k:], at) {
					names = append(names, x.Name)
				}
				b.bad(b.hosts.nodes[at.Name].get("jump"), "these hosts are reached through each other: %s", strings.Join(names, " through "))
				break
			}
			way = append(way, at)
		}
		for _, x := range way {
			said[x] = true
		}
	}
}

// hostsOf reads host or hosts of a job: names of hosts, and labels, each of
// which stands for all hosts that have it. What several of them bring is there
// once.
func (b *builder) hostsOf(n *node) []string {
	one, many := n.get("host"), n.get("hosts")
	if one != nil && many != nil {
		b.bad(many, "host and hosts do not go together")
	}
	var items []*node
	if many != nil {
		items = many.items
	}
	if one != nil {
		items = []*node{one}
	}
	if many != nil && len(items) == 0 && !b.within(many.path) {
		b.bad(many, "the list is empty: leave it out for this machine")
	}
	var list []string
	for i, item := range items {
		if slices.ContainsFunc(items[:i], func(x *node) bool { return x.text == item.text }) {
			b.bad(item, "%s stands here twice", short(item.text))
			continue
		}
		for _, name := range b.named(item) {
			if !slices.Contains(list, name) {
				list = append(list, name)
				b.hosts.used[name] = true
			}
		}
		if len(list) > jobHostsMost {
			b.bad(item, "the job would run on more than %d hosts", jobHostsMost)
			break
		}
	}
	if len(list) == 0 {
		return []string{deploy.Local}
	}
	return list
}

// named are the hosts that a text stands for.
func (b *builder) named(n *node) []string {
	name := n.text
	switch {
	case name == deploy.Local || b.hosts.nodes[name] != nil:
		return []string{name}
	case b.hosts.labels[name] != nil:
		return b.hosts.labels[name]
	case b.inside["hosts"]: // it may be what is wrong there
	case strings.ContainsAny(name, ", "):
		b.bad(n, "no host %q: a list is written hosts: [web1, web2]", short(name))
	case strings.ContainsAny(name, "@:"):
		b.bad(n, "no host %q: a name under hosts is wanted here; address, user and port stand there", short(name))
	default:
		b.bad(n, "no host or label %q%s", short(name), orHosts(deploy.DidYouMean(name, append(slices.Clone(b.hosts.names), deploy.Local))))
	}
	return nil
}

// orHosts says where hosts stand when no name is near.
func orHosts(near string) string {
	if near == "" {
		return ": it is written under hosts, with its address"
	}
	return near
}

// idleHosts warns of hosts that no job reaches, or goes through.
func (b *builder) idleHosts() {
	used := map[string]bool{}
	for name := range b.hosts.used {
		for h := b.cfg.Host(name); h != nil && !used[h.Name]; h = h.Jump {
			used[h.Name] = true
		}
	}
	for _, h := range b.cfg.Hosts {
		if !used[h.Name] {
			b.warn(b.hosts.nodes[h.Name], "no job runs on this host")
		}
	}
}

// login is who steps run as on a host over SSH, as far as the file says.
type login struct {
	address, user string
	port          int
}

func loginOf(h *deploy.Host) login {
	l := login{h.Address, h.User, h.Port}
	if l.address == "" {
		l.address = h.Name
	}
	if l.port == 0 {
		l.port = 22
	}
	return l
}

// oneLogin warns where test jobs and deploy jobs share a user over SSH, and of
// limits, which nothing keeps there.
func (f *File) oneLogin() (list Problems) {
	type job struct{ pipeline, name, host string }
	kinds := map[login]map[deploy.AgentKind]job{} // an example of each kind
	var order []login
	for _, p := range f.Deploy.Pipelines {
		for _, j := range p.Jobs {
			at := "pipelines." + p.Name + ".jobs." + j.Name
			for _, name := range j.Hosts {
				h := f.Deploy.Host(name)
				if h == nil {
					continue
				}
				l := loginOf(h)
				if kinds[l] == nil {
					kinds[l] = map[deploy.AgentKind]job{}
					order = append(order, l)
				}
				if kind := j.Agent(); kinds[l][kind] == (job{}) && (kind == deploy.DeployAgent || p.Repository != "") {
					kinds[l][kind] = job{p.Name, j.Name, name}
				}
			}
			if far := firstFar(j.Hosts); far != "" && j.Limits != (deploy.Limits{}) {
				list = append(list, f.problem(at+".limits", "they need agents that systemd starts: on host %s, over SSH, the job fails", far))
			}
		}
	}
	for _, l := range order {
		test, release := kinds[l][deploy.TestAgent], kinds[l][deploy.DeployAgent]
		if test != (job{}) && release != (job{}) {
			list = append(list, f.problem("hosts."+test.host, "test jobs (%s/%s) and deploy jobs (%s/%s) run as the same user of this host: whoever can push can read and change what deploy jobs can",
				test.pipeline, test.name, release.pipeline, release.name))
		}
	}
	return list
}

// firstFar is the first host over SSH; empty when there is none.
func firstFar(hosts []string) string {
	for _, h := range hosts {
		if h != deploy.Local {
			return h
		}
	}
	return ""
}
