package host

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"

	"deployhook/internal/deploy"
)

const defaultPort = 22

// route is the way to a host: those that it goes through, the nearest first,
// and the host.
func (h *Hosts) route(far *deploy.Host) ([]*hop, error) {
	var hops []*hop
	var seen []string
	for far != nil {
		if slices.Contains(seen, far.Name) {
			return nil, fmt.Errorf("its jump hosts go round in a circle: %s", strings.Join(append(seen, far.Name), " -> "))
		}
		seen = append(seen, far.Name)
		p, jumps, err := hopOf(far)
		if err != nil {
			return nil, err
		}
		if far.Jump != nil {
			jumps = nil // what is written counts
		}
		hops = append(append(jumps, p), hops...)
		if len(hops) > jumpsMost+1 {
			return nil, fmt.Errorf("it goes through over %d hosts", jumpsMost)
		}
		far = far.Jump
	}
	return hops, nil
}

// hopOf reads what is written of a host, and what its ssh_config says besides.
func hopOf(far *deploy.Host) (p *hop, jumps []*hop, err error) {
	p = &hop{
		name: far.Name, place: "hosts." + far.Name, host: far.Address, port: far.Port, user: far.User, identity: far.Identity,
		hostKey: far.HostKey, knownLines: far.KnownHosts, keepalive: far.Keepalive,
	}
	if p.host == "" {
		p.host = far.Name
	}
	if far.SSHConfig != "" {
		c, err := readSSHConfig(far.SSHConfig)
		if err != nil {
			return nil, nil, fmt.Errorf("ssh_config of %s: %w", p.place, err)
		}
		alias := p.host
		if err = c.apply(p); err == nil {
			jumps, err = c.jumps(alias, nil)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("ssh_config of %s: %s: %w", p.place, far.SSHConfig, err)
		}
	}
	return p, jumps, p.defaults()
}

func (p *hop) defaults() error {
	if p.port == 0 {
		p.port = defaultPort
	}
	if p.user == "" {
		me, err := user.Current()
		if err != nil {
			return fmt.Errorf("looking for the user to log in as: %w", err)
		}
		p.user = me.Username
	}
	return nil
}

// sshConfig is a file as ssh_config(5) has it.
type sshConfig struct {
	name string
	file *ssh_config.Config
}

func readSSHConfig(name string) (*sshConfig, error) {
	b, err := readMost(expandHome(name))
	if err != nil {
		return nil, err
	}
	file, err := parseSSHConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &sshConfig{name, file}, nil
}

func parseSSHConfig(b []byte) (*ssh_config.Config, error) {
	file, err := ssh_config.DecodeBytes(b)
	if err != nil {
		text := line(err.Error(), textMost)
		if strings.Contains(strings.ToLower(string(b)), "match") {
			text += "; of Match, deployhook knows host, originalhost, user, localuser and all"
		}
		return nil, fmt.Errorf("%s", text)
	}
	return file, nil
}

// notKept are the keywords that change how a host is reached and that are not
// kept to here: a file that has one for the host is refused. The value is the
// one that means nothing.
//
// Source: ssh_config(5) of OpenSSH 9.9.
var notKept = map[string]string{
	"ProxyCommand": "none", "KnownHostsCommand": "none", "PKCS11Provider": "none", "SecurityKeyProvider": "", "RemoteCommand": "none",
	"BindAddress": "", "BindInterface": "", "AddressFamily": "any", "CanonicalizeHostname": "no", "RevokedHostKeys": "none", "HostbasedAuthentication": "no",
}

// apply adds what a file says of a host to what is written of it.
func (c *sshConfig) apply(p *hop) error {
	alias, err := p.host, error(nil)
	for _, word := range slices.Sorted(maps.Keys(notKept)) {
		if v := c.get(alias, word); v != "" && !strings.EqualFold(v, notKept[word]) {
			return fmt.Errorf("%s is not supported: take it out for %s, or leave ssh_config out", word, alias)
		}
	}
	if v := c.get(alias, "Port"); v != "" && p.port == 0 {
		if p.port, err = strconv.Atoi(v); err != nil || p.port < 1 || p.port > 65535 {
			return fmt.Errorf("%.100q is not a port", v)
		}
	}
	if p.user == "" {
		p.user = c.get(alias, "User")
	}
	if v := c.get(alias, "HostName"); v != "" {
		if p.host, err = p.expand(alias, v); err != nil {
			return err
		}
	}
	if err := p.defaults(); err != nil {
		return err
	}
	if p.alias = c.get(alias, "HostKeyAlias"); p.keepalive == 0 {
		if n, err := strconv.Atoi(c.get(alias, "ServerAliveInterval")); err == nil && n > 0 && n < 86400 {
			p.keepalive = time.Duration(n) * time.Second
		}
	}
	p.only = strings.EqualFold(c.get(alias, "IdentitiesOnly"), "yes")
	for word, list := range map[string]*[]string{"IdentityFile": &p.files, "CertificateFile": &p.certs, "UserKnownHostsFile": &p.knownFiles} {
		for _, v := range c.all(alias, word) {
			for _, name := range words(v) {
				if strings.EqualFold(name, "none") {
					continue
				}
				if name, err = p.expand(alias, name); err != nil {
					return err
				}
				*list = append(*list, name)
			}
			if word == "UserKnownHostsFile" {
				break // the first line counts
			}
		}
	}
	if v := c.get(alias, "IdentityAgent"); v != "" && v != "SSH_AUTH_SOCK" {
		if p.agent, err = p.expand(alias, os.ExpandEnv(v)); err != nil {
			return err
		}
	}
	return nil
}

// jumps reads a host's ProxyJump: [USER@]HOST[:PORT], several with commas
// between. As ssh does, only the first one's own jumps count. seen are the
// names that led here.
func (c *sshConfig) jumps(alias string, seen []string) ([]*hop, error) {
	text := c.get(alias, "ProxyJump")
	if text == "" || strings.EqualFold(text, "none") {
		return nil, nil
	}
	seen = append(seen, alias)
	parts := strings.Split(text, ",")
	if len(seen) > jumpsMost || len(parts) > jumpsMost {
		return nil, fmt.Errorf("ProxyJump goes through over %d hosts", jumpsMost)
	}
	var hops []*hop
	for i, part := range parts {
		p, err := parseJump(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if slices.Contains(seen, p.host) {
			return nil, fmt.Errorf("ProxyJump goes round in a circle: %s", strings.Join(append(seen, p.host), " -> "))
		}
		p.place, p.inFile = c.name, true
		if i == 0 {
			if hops, err = c.jumps(p.host, seen); err != nil {
				return nil, err
			}
		}
		if err := c.apply(p); err != nil {
			return nil, err
		}
		hops = append(hops, p)
	}
	return hops, nil
}

// parseJump reads one host of a ProxyJump.
func parseJump(text string) (*hop, error) {
	text = strings.TrimPrefix(text, "ssh://")
	p := &hop{host: text}
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		p.user, p.host = text[:i], text[i+1:]
	}
	host, port := p.host, ""
	switch end := strings.IndexByte(host, ']'); {
	case strings.HasPrefix(host, "[") && end > 0: // an IPv6 address
		host, port = host[1:end], strings.TrimPrefix(host[end+1:], ":")
	case strings.Count(host, ":") == 1:
		host, port, _ = strings.Cut(host, ":")
	}
	if port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("ProxyJump %.100q has no port that is one", text)
		}
		p.port = n
	}
	if host == "" || strings.HasPrefix(host, "-") || strings.ContainsAny(host, " \t/") {
		return nil, fmt.Errorf("ProxyJump %.100q names no host", text)
	}
	p.host, p.name = host, host
	return p, nil
}

// get is the first value of a keyword for a host.
func (c *sshConfig) get(alias, word string) string {
	v, _ := c.file.Get(alias, word) // its only error is a node of no known kind
	return strings.Trim(strings.TrimSpace(v), `"`)
}

func (c *sshConfig) all(alias, word string) []string {
	v, _ := c.file.GetAll(alias, word)
	return v
}

// words splits a value at spaces outside of double quotes.
func words(v string) []string {
	var list []string
	quoted := false
	for _, f := range strings.FieldsFunc(v, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return (r == ' ' || r == '\t') && !quoted
	}) {
		list = append(list, strings.Trim(f, `"`))
	}
	return list
}

// expand puts in what ssh puts in for ~ and %.
func (p *hop) expand(alias, v string) (string, error) {
	home, _ := os.UserHomeDir()
	local := ""
	if me, err := user.Current(); err == nil {
		local = me.Username
	}
	values := map[byte]string{'%': "%", 'd': home, 'h': p.host, 'n': alias, 'p': strconv.Itoa(p.port), 'r': p.user, 'u': local}
	var b bytes.Buffer
	for i := 0; i < len(v); i++ {
		if v[i] != '%' {
			b.WriteByte(v[i])
			continue
		}
		if i++; i == len(v) {
			return "", fmt.Errorf("%.100q ends with %%", v)
		}
		text, ok := values[v[i]]
		if !ok {
			return "", fmt.Errorf("%.100q: %%%c is not supported", v, v[i])
		}
		b.WriteString(text)
	}
	return expandHome(b.String()), nil
}

// expandHome puts in the home for a leading ~.
func expandHome(name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return name
}
