package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"deployhook/internal/deploy"
)

const (
	keyMost      = 1 << 20          // bytes of a file of keys
	agentTime    = 20 * time.Second // for an SSH agent to list its keys and to sign
	noAgent      = "none"           // as ssh_config names it
	loginKeyMost = 20               // keys that are tried
)

// defaultKeys are the private keys that ssh takes when none is named.
var defaultKeys = []string{"id_ed25519", "id_ecdsa", "id_rsa"}

// login is what deployhook logs in to a host with.
type login struct {
	keys  []ssh.Signer
	from  []string // where each stands
	agent net.Conn // nil: none
}

func (l *login) signers() ([]ssh.Signer, error) { return l.keys, nil }

func (l *login) close() {
	if l.agent != nil {
		l.agent.Close()
	}
}

func (l *login) add(s ssh.Signer, from string) {
	if len(l.keys) < loginKeyMost {
		l.keys, l.from = append(l.keys, s), append(l.from, from)
	}
}

// keys finds the keys for a host: the one that is written, else those of its
// ssh_config, else those of the SSH agent and those that ssh has by default.
func (h *Hosts) keys(ctx context.Context, p *hop) (*login, error) {
	l := &login{}
	if p.identity != nil {
		if err := l.identity(ctx, h.o.Secret, p); err != nil {
			return nil, err
		}
		return l, nil
	}
	certs, err := readCerts(p.certs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.place, err)
	}
	for _, name := range p.files {
		if err := l.file(name, certs); err != nil {
			return nil, fmt.Errorf("%s: %w", p.place, err)
		}
	}
	if !p.only {
		l.ofAgent(p, certs)
	}
	if home, err := os.UserHomeDir(); err == nil && len(p.files) == 0 {
		for _, name := range defaultKeys {
			_ = l.file(filepath.Join(home, ".ssh", name), certs) // one that cannot be used is not ours to complain of
		}
	}
	if len(l.keys) == 0 {
		l.close()
		return nil, fmt.Errorf("there is no private key to log in with: write identity_file in %s, with a key that stands in %s's authorized_keys there", p.place, p.user)
	}
	return l, nil
}

// identity takes the private key that is written, and the certificate beside it.
func (l *login) identity(ctx context.Context, secret func(context.Context, deploy.Secret) (string, error), p *hop) error {
	if secret == nil {
		return errors.New("no secrets can be read here")
	}
	text, err := secret(ctx, *p.identity)
	if err != nil {
		return fmt.Errorf("reading its identity_file: %w", err)
	}
	where := "the identity_file of " + p.name
	signer, err := parseKey([]byte(text), where)
	if err != nil {
		return err
	}
	var certs []*ssh.Certificate
	if p.identity.File != "" {
		if certs, err = certBeside(p.identity.File); err != nil {
			return err
		}
	}
	l.signer(signer, where, certs)
	return nil
}

// file takes a private key, if it is there, and the certificate beside it.
func (l *login) file(name string, certs []*ssh.Certificate) error {
	b, err := readMost(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := parseKey(b, name)
	if err != nil {
		return err
	}
	beside, err := certBeside(name)
	l.signer(signer, name, append(certs, beside...))
	return err
}

// ofAgent takes the keys of the SSH agent, as long as the login takes.
func (l *login) ofAgent(p *hop, certs []*ssh.Certificate) {
	socket := p.agent
	if socket == "" {
		socket = os.Getenv("SSH_AUTH_SOCK")
	}
	if socket == "" || socket == noAgent {
		return
	}
	conn, err := net.DialTimeout("unix", socket, agentTime)
	if err != nil {
		return // as ssh does: other keys may be right
	}
	l.agent = conn
	_ = conn.SetDeadline(time.Now().Add(agentTime))
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		return
	}
	for _, s := range signers {
		l.signer(s, "the SSH agent", certs)
	}
	_ = conn.SetDeadline(time.Now().Add(loginTime))
}

// signer takes a key, its certificates first.
func (l *login) signer(s ssh.Signer, from string, certs []*ssh.Certificate) {
	s = modern(s)
	for _, c := range certs {
		if string(c.Key.Marshal()) == string(s.PublicKey().Marshal()) {
			if with, err := ssh.NewCertSigner(c, s); err == nil {
				l.add(with, from)
			}
		}
	}
	l.add(s, from)
}

// modern has an RSA key sign without SHA-1.
func modern(s ssh.Signer) ssh.Signer {
	a, ok := s.(ssh.AlgorithmSigner)
	if !ok || s.PublicKey().Type() != ssh.KeyAlgoRSA {
		return s
	}
	if m, err := ssh.NewSignerWithAlgorithms(a, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}); err == nil {
		return m
	}
	return s
}

// parseKey reads a private key. Its errors do not repeat what the parser says,
// which may hold parts of the key.
func parseKey(b []byte, where string) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(b)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		return nil, fmt.Errorf("%s has a passphrase, which nobody is there to type: make a key of its own with ssh-keygen -t ed25519 -N '', or give it to an SSH agent", where)
	}
	if _, _, _, _, perr := ssh.ParseAuthorizedKey(b); err != nil && perr == nil {
		return nil, fmt.Errorf("%s is the public half: the private one is wanted", where)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: it must be a private key without a passphrase", where)
	}
	return signer, nil
}

// certBeside reads the certificate that ssh takes with a private key.
func certBeside(key string) ([]*ssh.Certificate, error) {
	name := key + "-cert.pub"
	if _, err := os.Stat(name); err != nil {
		return nil, nil
	}
	return readCerts([]string{name})
}

func readCerts(names []string) ([]*ssh.Certificate, error) {
	var certs []*ssh.Certificate
	for _, name := range names {
		b, err := readMost(name)
		if err != nil {
			return nil, err
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(b)
		cert, ok := key.(*ssh.Certificate)
		if err != nil || !ok || cert.CertType != ssh.UserCert {
			return nil, fmt.Errorf("%s is not a certificate of a user", name)
		}
		if now := uint64(time.Now().Unix()); cert.ValidBefore != ssh.CertTimeInfinity && now >= cert.ValidBefore {
			return nil, fmt.Errorf("the certificate %s was valid until %s: sign the key anew", name, time.Unix(int64(cert.ValidBefore), 0).UTC().Format(time.RFC3339))
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// readMost reads a file of keys.
func readMost(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, keyMost+1))
	if err == nil && len(b) > keyMost {
		err = fmt.Errorf("%s is over 1 MiB", name)
	}
	return b, err
}

// refused says that a host takes none of the keys.
func (l *login) refused(p *hop, tooMany bool) error {
	if tooMany {
		return fmt.Errorf("%s ended the login of %s after too many keys: name the right one with identity_file in %s", p.addr(), p.user, p.place)
	}
	const show = 3
	var keys []string
	signed := ""
	for i, k := range l.keys {
		if _, ok := k.PublicKey().(*ssh.Certificate); ok {
			signed = "; of a certificate, sshd there must trust the CA (TrustedUserCAKeys), it must name " + p.user + ", and be valid by that machine's clock"
		}
		if i == show {
			keys = append(keys, fmt.Sprintf("and %d more", len(l.keys)-show))
			break
		}
		keys = append(keys, fmt.Sprintf("%s (%s)", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))), l.from[i]))
	}
	return fmt.Errorf("%s does not let %s in: permission denied; add this key to %s's ~/.ssh/authorized_keys there: %s%s", p.addr(), p.user, p.user, strings.Join(keys, ", "), signed)
}
