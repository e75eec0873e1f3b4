package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"deployhook/internal/deploy"
)

// repository reads where the pipeline's commits come from.
func (b *builder) repository(p *deploy.Pipeline, n *node) {
	auth := n.get("auth")
	p.Auth = deploy.Auth{
		SSHKey: b.secretOf(auth.get("ssh_key")), Token: b.secretOf(auth.get("token")),
		KnownHosts: b.knownHosts(auth.get("known_hosts")), Username: auth.str("username", ""),
	}
	r := n.get("repository")
	if b.absent(n, "repository") {
		for _, key := range []string{"clone_url", "auth", "branch", "depth"} {
			if k := n.get(key); k != nil {
				b.bad(k, "there is nothing to fetch: repository is missing")
			}
		}
	}
	if r == nil {
		return
	}
	id, address, err := repositoryOf(r.text, auth.get("ssh_key") != nil)
	if err != nil {
		b.bad(r, "%v", err)
		return
	}
	p.Repository, p.CloneURL = id, address
	from := r
	if k := n.get("clone_url"); k != nil {
		if err := checkAddress(k.text); err != nil {
			b.bad(k, "%v", err)
			return
		}
		from, p.CloneURL = k, k.text
	} else if b.within(n.path + ".clone_url") {
		return
	}
	if !b.within(n.path + ".auth") {
		b.reached(p.CloneURL, from, auth)
	}
}

// reached holds the way to the repository against what it is reached with.
func (b *builder) reached(address string, from, auth *node) {
	way := wayOf(address)
	key, token := auth.get("ssh_key"), auth.get("token")
	if way == "ssh" && key == nil {
		b.bad(from, "this is fetched over SSH, which needs auth.ssh_key")
	}
	if way != "ssh" {
		for _, k := range []*node{key, auth.get("known_hosts")} {
			if k != nil {
				b.bad(k, "this is for SSH, and the repository is not fetched over SSH: write it like github.com/acme/shop, or give an SSH address as clone_url")
				break
			}
		}
	}
	if way != "http" && way != "https" {
		for _, k := range []*node{token, auth.get("username")} {
			if k != nil {
				b.bad(k, "this is for HTTPS, and the repository is not fetched over HTTPS")
				break
			}
		}
	} else if k := auth.get("username"); k != nil && token == nil {
		b.bad(k, "a username without a token says nothing")
	}
	if way == "http" && token != nil && !loopback(address) {
		b.warn(token, "the token goes over the network unencrypted: use https")
	}
}

// wayOf is how an address is reached: https, http, ssh or file.
func wayOf(address string) string {
	scheme, _, ok := strings.Cut(address, "://")
	switch {
	case ok:
		return strings.ToLower(scheme)
	case path.IsAbs(address):
		return "file"
	}
	return "ssh" // user@host:path
}

func loopback(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

var errLogin = errors.New("a login does not stand in the address: use auth.token and auth.username")

// checkAddress checks an address that a repository is fetched from. Its errors
// do not repeat it: a password may stand in it.
func checkAddress(text string) error {
	if path.IsAbs(text) {
		return nil
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("an address without spaces is wanted here")
	}
	if !strings.Contains(text, "://") {
		user, rest, ok := strings.Cut(text, "@")
		host, repo, colon := strings.Cut(rest, ":")
		if !ok || strings.HasPrefix(user, "-") || strings.ContainsAny(user, "/:") || !colon || host == "" || strings.HasPrefix(host, "-") || strings.ContainsAny(host, "/@") || repo == "" {
			return errors.New("an address like https://git.example.com/acme/shop.git or git@git.example.com:acme/shop.git, or an absolute path, is wanted here")
		}
		return nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("this address cannot be read")
	}
	switch strings.ToLower(u.Scheme) {
	case "https", "http":
		if u.User != nil {
			return errLogin
		}
	case "ssh":
		if _, secret := u.User.Password(); secret {
			return errors.New("a password does not stand in the address: use auth.ssh_key")
		}
	case "file":
		if u.Host != "" {
			return errors.New("a file address has three slashes: file:///srv/git/shop.git")
		}
		return nil
	default:
		return errors.New("an address that begins with https://, http://, ssh:// or file:// is wanted here")
	}
	switch {
	case u.Host == "" || strings.Trim(u.Path, "/") == "":
		return errors.New("this address has no host or no path")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("an address has no ? and no # here")
	}
	return nil
}

// twoParts are forges whose repositories have an owner and a name, no more.
var twoParts = map[string]bool{"github.com": true, "bitbucket.org": true, "codeberg.org": true}

// repositoryOf gives the identity and the address of a repository as written.
// The identity is host and path, as the forge's web address has them.
func repositoryOf(text string, overSSH bool) (id, address string, err error) {
	bare := !strings.Contains(text, "://") && !strings.Contains(text, "@")
	if path.IsAbs(text) || strings.HasPrefix(text, "file:") {
		return "", "", errors.New("this is how deliveries name the repository, like github.com/acme/shop; a path stands in clone_url")
	}
	host, name, repo, address := "", "", "", text
	switch {
	case bare:
		host, repo, _ = strings.Cut(text, "/")
		name = host
		if before, port, ok := strings.Cut(host, ":"); ok {
			if name = before; strings.Trim(port, "0123456789") != "" || port == "" {
				name = "" // git@ is missing before it
			}
		}
	case strings.Contains(text, "://"):
		if err := checkAddress(text); err != nil {
			return "", "", err
		}
		u, err := url.Parse(text)
		if err != nil {
			return "", "", errors.New("this address cannot be read")
		}
		host, repo = u.Host, u.Path
		name = u.Hostname()
	default:
		if err := checkAddress(text); err != nil {
			return "", "", err
		}
		_, rest, _ := strings.Cut(text, "@")
		host, repo, _ = strings.Cut(rest, ":")
		name = host
	}
	repo = strings.TrimSuffix(strings.Trim(repo, "/"), ".git")
	bad := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#\*"'<>|`, r) })
	bad = bad || path.Clean("/"+repo) != "/"+repo || strings.Trim(name, ".") == "" || strings.HasPrefix(name, "-")
	if bad || repo == "" || bare && !strings.ContainsAny(host, ".:") && host != "localhost" {
		hint := ""
		if at, rest, ok := strings.Cut(text, ":"); bare && ok && strings.Contains(at, ".") && !strings.Contains(at, "/") {
			hint = fmt.Sprintf("; did you mean %q?", short(at+"/"+strings.TrimSuffix(rest, ".git")))
		} else if bare && !bad && strings.Count(text, "/") == 1 && repo != "" && !strings.Contains(name, ".") {
			hint = fmt.Sprintf("; did you mean %q?", short("github.com/"+text))
		}
		return "", "", fmt.Errorf("%q is not a repository: write it like github.com/acme/shop%s", short(text), hint)
	}
	if two := twoParts[strings.ToLower(name)]; two && strings.Count(repo, "/") != 1 {
		return "", "", fmt.Errorf("%q is not a repository: on %s it has an owner and a name, like %s/acme/shop", short(text), name, name)
	}
	switch {
	case bare && overSSH:
		address = "git@" + name + ":" + repo + ".git"
	case bare && strings.Contains(repo, "/_git/"): // Azure has no .git
		address = "https://" + host + "/" + repo
	case bare:
		address = "https://" + host + "/" + repo + ".git"
	}
	if bare { // made here of what was written
		if err := checkAddress(address); err != nil {
			return "", "", fmt.Errorf("%q is not a repository: write it like github.com/acme/shop", short(text))
		}
	}
	return strings.ToLower(name + "/" + repo), address, nil
}

// knownHosts checks known_hosts lines.
func (b *builder) knownHosts(n *node) string {
	if n == nil {
		return ""
	}
	if path.IsAbs(n.text) || strings.HasPrefix(n.text, "~") {
		b.bad(n, "the lines themselves are wanted here, not a path: ssh-keyscan HOST prints them")
		return ""
	}
	for i, line := range strings.Split(n.text, "\n") {
		if err := knownHost(strings.TrimSpace(line)); err != nil {
			b.bad(n, "line %d is not one of known_hosts: host, type of key, key", i+1)
			break
		}
	}
	return n.text
}

// knownHost checks one line of known_hosts, comments too, by reading it as it
// will be read: the parser of single lines takes marks and names of hosts that
// the one of files refuses.
func knownHost(line string) error {
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	if _, _, _, _, _, err := ssh.ParseKnownHosts([]byte(line)); err != nil {
		return err
	}
	f, err := os.CreateTemp("", "deployhook-known-hosts-")
	if err != nil {
		return nil // nothing is known against it
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(line + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return nil
	}
	_, err = knownhosts.New(f.Name())
	return err
}

// RepositoryID is the identity of a repository that is written like this, by
// which deliveries and journals name it.
func RepositoryID(text string) (string, error) {
	id, _, err := repositoryOf(text, false)
	return id, err
}
