package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// HostKeyError is a host that is not the one that is known: nothing was sent
// to it.
type HostKeyError struct {
	Line        string // what makes it known, when the key is right; empty: nothing could
	Fingerprint string // of its key, SHA256:…
	Changed     bool   // another key is known of it
	text        string
}

func (e *HostKeyError) Error() string { return e.text }

// known are the host keys that are known.
type known struct{ db *knownhosts.HostKeyDB }

// known reads the host keys that are known for a host.
func (p *hop) known() (*known, error) {
	switch {
	case p.hostKey != "":
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(p.hostKey))
		if err != nil {
			return nil, fmt.Errorf("host_key of %s is none: it looks like ssh-ed25519 AAAA…, as /etc/ssh/ssh_host_ed25519_key.pub has it there", p.place)
		}
		return knownLines(knownhosts.Line([]string{p.knownAs()}, key), p)
	case p.knownLines != "":
		return knownLines(p.knownLines, p)
	}
	files := p.knownFiles
	if len(files) == 0 {
		files = []string{"/etc/ssh/ssh_known_hosts"}
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
		}
	}
	files = slices.DeleteFunc(slices.Clone(files), func(name string) bool {
		_, err := os.Stat(name)
		return errors.Is(err, fs.ErrNotExist)
	})
	return knownFiles(p, files...)
}

func knownLines(lines string, p *hop) (*known, error) {
	// The library reads files only.
	f, err := os.CreateTemp("", "deployhook-known-hosts-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(lines + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return knownFiles(p, f.Name())
}

func knownFiles(p *hop, names ...string) (*known, error) {
	db, err := knownhosts.NewDB(names...)
	if err != nil {
		text := plainText(err)
		if p.knownLines != "" { // the file is none of the reader's
			text = "line " + strings.TrimPrefix(text, names[0]+":")
		}
		return nil, fmt.Errorf("the known_hosts of %s cannot be read: %s", p.place, text)
	}
	return &known{db}, nil
}

// algorithms are those of the keys that are known of a host, and then the
// others: a host that has a known key is asked for that one.
func (k *known) algorithms(p *hop) []string {
	first := slices.DeleteFunc(k.db.HostKeyAlgorithms(p.knownAs()), func(a string) bool { return !slices.Contains(hostKeyAlgs, a) })
	rest := slices.DeleteFunc(slices.Clone(hostKeyAlgs), func(a string) bool { return slices.Contains(first, a) })
	return append(first, rest...)
}

// check lets only the known host be, and says for others what could be done.
func (k *known) check(p *hop) ssh.HostKeyCallback {
	return func(host string, addr net.Addr, key ssh.PublicKey) error {
		err := k.db.HostKeyCallback()(host, addr, key)
		if err == nil {
			return nil
		}
		if c, ok := key.(*ssh.Certificate); ok {
			key = c.Key
		}
		e := &HostKeyError{Fingerprint: ssh.FingerprintSHA256(key), Changed: knownhosts.IsHostKeyChanged(err)}
		if !e.Changed && !knownhosts.IsHostUnknown(err) {
			e.text = fmt.Sprintf("the host key of %s (%s) is refused: %s", p.addr(), e.Fingerprint, plainText(err))
			return e
		}
		e.Line = "host_key: " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		where := p.place
		if p.inFile {
			e.Line, where = knownhosts.Line([]string{host}, key), "~/.ssh/known_hosts"
			if len(p.knownFiles) > 0 {
				where = p.knownFiles[0]
			}
		}
		what := "is not known"
		if e.Changed {
			what = "is not the one that is known: the machine was set up anew, or this is another one"
		}
		e.text = fmt.Sprintf("the host key of %s %s; if ssh-keygen -l there shows %s for a key in /etc/ssh, write in %s: %s", p.addr(), what, e.Fingerprint, where, e.Line)
		return e
	}
}

// plainText is what a library says, without its names.
func plainText(err error) string {
	return line(strings.NewReplacer("knownhosts: ", "", "ssh: ", "").Replace(err.Error()), textMost)
}
