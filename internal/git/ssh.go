package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// secure is a remote over SSH.
type secure struct {
	addr, path string
	config     *ssh.ClientConfig
}

// ssh reads what a remote over SSH is reached with.
func (m *Mirror) ssh(ep *transport.Endpoint) (*secure, error) {
	signer, err := m.signer()
	if err != nil {
		return nil, err
	}
	known, err := knownHosts(m.remote.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("auth.known_hosts of %s cannot be read: %w", m.remote.Repository, err)
	}
	user, port := ep.User, ep.Port
	if user == "" {
		user = "git"
	}
	if port == 0 {
		port = 22
	}
	addr := net.JoinHostPort(strings.Trim(ep.Host, "[]"), strconv.Itoa(port))
	return &secure{addr: addr, path: ep.Path, config: &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyAlgorithms: known.HostKeyAlgorithms(addr),
		HostKeyCallback:   checked(known),
	}}, nil
}

// signer reads the private key. Its errors do not repeat what the parser says,
// which may hold parts of the key.
func (m *Mirror) signer() (ssh.Signer, error) {
	key, repo := m.remote.SSHKey, m.remote.Repository
	if len(key) == 0 {
		return nil, fmt.Errorf("%s is fetched over SSH, which needs auth.ssh_key", repo)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		return nil, fmt.Errorf("the SSH key for %s has a passphrase, which nobody is there to type: make one of its own with ssh-keygen -t ed25519 -N '' and add its public half as a deploy key", repo)
	}
	if _, _, _, _, perr := ssh.ParseAuthorizedKey(key); err != nil && perr == nil {
		return nil, fmt.Errorf("the SSH key for %s is the public half: the private one is wanted", repo)
	}
	if err != nil {
		return nil, fmt.Errorf("the SSH key for %s cannot be read: it must be a private key without a passphrase", repo)
	}
	return signer, nil
}

// knownHosts reads known_hosts lines, after those of the large forges.
func knownHosts(lines []byte) (*knownhosts.HostKeyDB, error) {
	// The library reads files only.
	f, err := os.CreateTemp("", "deployhook-known-hosts-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(forgeKeys + string(lines) + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	db, err := knownhosts.NewDB(f.Name())
	if err != nil {
		// What is before the last colon is the file and a line that counts ours.
		text := err.Error()
		return nil, errors.New(cut(text[strings.LastIndex(text, ": ")+1:]))
	}
	return db, nil
}

// HostKeyError is a host that is not the one that is known.
type HostKeyError struct {
	Line        string // for known_hosts, when the key is right; empty: it is none that could be added
	Fingerprint string // of the key, SHA256:…
	Changed     bool   // known_hosts has another key for the host
	text        string
}

func (e *HostKeyError) Error() string { return e.text }

// checked lets only known hosts be, and says for others what could be done.
func checked(known *knownhosts.HostKeyDB) ssh.HostKeyCallback {
	return func(host string, addr net.Addr, key ssh.PublicKey) error {
		err := known.HostKeyCallback()(host, addr, key)
		line, print := knownhosts.Line([]string{host}, key), ssh.FingerprintSHA256(key)
		switch {
		case err == nil:
			return nil
		case knownhosts.IsHostKeyChanged(err):
			return &HostKeyError{line, print, true, fmt.Sprintf("the host key of %s has changed: when that is right, replace its line in known_hosts by: %s", host, line)}
		case knownhosts.IsHostUnknown(err):
			return &HostKeyError{line, print, false, fmt.Sprintf("the host key of %s is not known: compare it with what the host's owner publishes, then add to known_hosts: %s", host, line)}
		}
		return &HostKeyError{"", print, false, fmt.Sprintf("the host key of %s is refused: %s", host, cut(err.Error()))}
	}
}

// connect logs in and starts git-upload-pack over there. Everything ends with
// ctx, the handshake too.
func (s *secure) connect(ctx context.Context) (conversation, error) {
	raw, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	conn := &patient{Conn: raw}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	session, err := s.start(conn)
	if err != nil {
		stop()
		raw.Close()
		return nil, err
	}
	session.stop = stop
	return session, nil
}

func (s *secure) start(conn net.Conn) (*sshSession, error) {
	c, chans, reqs, err := ssh.NewClientConn(conn, s.addr, s.config)
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, chans, reqs)
	run, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, err := run.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := run.StdoutPipe()
	if err != nil {
		return nil, err
	}
	session := &sshSession{client: client, run: run, in: in, out: newPackets(out)}
	run.Stderr = &session.said
	_ = run.Setenv("GIT_PROTOCOL", "version=2") // who does not take it speaks protocol 0
	return session, run.Start("git-upload-pack " + quoted(s.path))
}

// quoted is a word for the shell over there.
func quoted(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// sshSession is one git-upload-pack over SSH.
type sshSession struct {
	client *ssh.Client
	run    *ssh.Session
	in     io.WriteCloser
	out    *packets
	said   firstLine
	stop   func() bool
}

// firstLine keeps the first line that says something of what is written to it.
type firstLine struct {
	mu   sync.Mutex
	text []byte
}

func (l *firstLine) Write(p []byte) (int, error) {
	const most = 4 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p[:min(len(p), most-len(l.text))]...)
	return len(p), nil
}

func (l *firstLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(l.text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "remote:"); ok {
			line = strings.Trim(rest, " =")
		}
		if line != "" {
			return line
		}
	}
	return ""
}

// serverSaid is a line that a server wrote before it hung up.
type serverSaid struct{ line string }

func (e *serverSaid) Error() string { return e.line }

// failed makes an error of what the server said, if it hung up.
func (s *sshSession) failed(err error) error {
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	// What it said has come by the time its exit status has.
	_ = s.in.Close()
	_ = s.run.Wait()
	line := s.said.String()
	for _, none := range []string{"not found", "does not exist", "does not appear to be a git repository", "could not be found", "no such"} {
		if strings.Contains(strings.ToLower(line), none) && !strings.Contains(line, "git-upload-pack") {
			return fmt.Errorf("%w: %w", transport.ErrRepositoryNotFound, err)
		}
	}
	if line == "" {
		return io.ErrUnexpectedEOF
	}
	return &serverSaid{line}
}

func (s *sshSession) greet() (*greeting, error) {
	return greet(s.out)
}

func (s *sshSession) ask(body []byte) (*packets, error) {
	if _, err := s.in.Write(body); err != nil {
		return nil, err
	}
	return s.out, nil
}

// close ends the connection. An upload that was not asked for anything is told
// so, that it does not log a client that vanished.
func (s *sshSession) close() error {
	_, _ = io.WriteString(s.in, flushPkt)
	_ = s.in.Close()
	s.stop()
	return s.client.Close()
}
