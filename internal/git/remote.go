package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport/server"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// go-git looks up its transports by scheme, for the whole process.
func init() {
	// Its own transport for files would run git-upload-pack.
	client.InstallProtocol("file", local{})
	web := githttp.NewClient(&http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       time.Minute,
		ForceAttemptHTTP2:     true,
	}})
	client.InstallProtocol("https", web)
	client.InstallProtocol("http", web)
}

// auth is how the remote is told who asks.
func (m *Mirror) auth() (transport.AuthMethod, error) {
	ep, err := transport.NewEndpoint(m.remote.URL)
	if err != nil {
		return nil, fmt.Errorf("the address of %s cannot be read", m.remote.Repository)
	}
	switch ep.Protocol {
	case "http", "https":
		if m.remote.Token == "" {
			return nil, nil
		}
		user := m.remote.Username
		if user == "" {
			user = "x-access-token"
		}
		return &githttp.BasicAuth{Username: user, Password: m.remote.Token}, nil
	case "ssh":
		return m.sshAuth(ep)
	}
	return nil, nil
}

func (m *Mirror) sshAuth(ep *transport.Endpoint) (transport.AuthMethod, error) {
	if len(m.remote.SSHKey) == 0 {
		return nil, fmt.Errorf("%s is fetched over SSH, which needs auth.ssh_key", m.remote.Repository)
	}
	user := ep.User
	if user == "" {
		user = "git"
	}
	signer, err := ssh.ParsePrivateKey(m.remote.SSHKey)
	if err != nil {
		// What the parser says may hold parts of the key.
		return nil, fmt.Errorf("the SSH key for %s cannot be read: it must be a private key without a passphrase", m.remote.Repository)
	}
	// The library reads files only.
	f, err := os.CreateTemp("", "deployhook-known-hosts-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(forgeKeys + string(m.remote.KnownHosts) + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	db, err := knownhosts.NewDB(f.Name())
	if err != nil {
		return nil, fmt.Errorf("auth.known_hosts of %s cannot be read: %w", m.remote.Repository, errors.New(lastPart(err.Error())))
	}
	port := ep.Port
	if port == 0 {
		port = 22
	}
	addr := net.JoinHostPort(ep.Host, fmt.Sprint(port))
	return &sshKey{user: user, signer: signer, db: db, addr: addr}, nil
}

func lastPart(s string) string {
	parts := strings.Split(s, ": ")
	return parts[len(parts)-1]
}

var _ gitssh.AuthMethod = (*sshKey)(nil)

// sshKey logs in with one key, and only where the host is known.
type sshKey struct {
	user   string
	signer ssh.Signer
	db     *knownhosts.HostKeyDB
	addr   string
}

func (k *sshKey) Name() string   { return "ssh-public-keys" }
func (k *sshKey) String() string { return "user: " + k.user }

// hostKeyError is a host that is not the one that is known.
type hostKeyError struct{ text string }

func (e *hostKeyError) Error() string { return e.text }

func (k *sshKey) ClientConfig() (*ssh.ClientConfig, error) {
	return &ssh.ClientConfig{
		User: k.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(k.signer)}, Timeout: 20 * time.Second,
		HostKeyAlgorithms: k.db.HostKeyAlgorithms(k.addr),
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			err := k.db.HostKeyCallback()(host, addr, key)
			line := knownhosts.Line([]string{host}, key)
			switch {
			case knownhosts.IsHostKeyChanged(err):
				return &hostKeyError{fmt.Sprintf("the host key of %s has changed: when that is right, replace its line in known_hosts by: %s", host, line)}
			case knownhosts.IsHostUnknown(err):
				return &hostKeyError{fmt.Sprintf("the host key of %s is not known: compare it with what the host's owner publishes, then add to known_hosts: %s", host, line)}
			}
			return err
		},
	}, nil
}

// isNoRef is a ref that the remote does not have.
func isNoRef(err error) bool {
	var none gogit.NoMatchingRefSpecError
	return errors.As(err, &none)
}

// isLocal is an error of the mirror on disk rather than of the remote.
func isLocal(err error) bool {
	return errors.Is(err, plumbing.ErrObjectNotFound) || errors.Is(err, plumbing.ErrReferenceNotFound)
}

// isFatal is an error that asking in other words does not mend.
func isFatal(err error) bool {
	var host *hostKeyError
	return errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) ||
		errors.Is(err, transport.ErrRepositoryNotFound) || errors.As(err, &host) || errors.Is(err, syscall.ENOSPC)
}

// explain says in one sentence what kept a repository from being asked. It
// never holds the address, which may have a token in it.
func (m *Mirror) explain(ctx context.Context, err error) error {
	repo := m.remote.Repository
	var host *hostKeyError
	var status *githttp.Err
	var cert *tls.CertificateVerificationError
	var unknownCA x509.UnknownAuthorityError
	var dns *net.DNSError
	var op *net.OpError
	var unexpected *plumbing.UnexpectedError
	if errors.As(err, &unexpected) {
		err = unexpected.Err
	}
	switch {
	case ctx.Err() != nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("fetching %s: no answer within %v", repo, fetchTime)
		}
		return ctx.Err()
	case errors.As(err, &host):
		return fmt.Errorf("fetching %s: %w", repo, host)
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return fmt.Errorf("fetching %s: the server asks for a login (401): give the pipeline auth.token or auth.ssh_key", repo)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("fetching %s: the server refuses this login (403): the token may not read the repository", repo)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("fetching %s: not found (404): the name is wrong, or the login may not see it", repo)
	case errors.As(err, &status) && status.Response != nil:
		return fmt.Errorf("fetching %s: the server answered %d", repo, status.Response.StatusCode)
	case errors.As(err, &cert), errors.As(err, &unknownCA):
		return fmt.Errorf("fetching %s: the server's TLS certificate is not valid for it", repo)
	case errors.As(err, &dns):
		return fmt.Errorf("fetching %s: the host's name cannot be resolved", repo)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("fetching %s: no space left for the mirror", repo)
	case errors.As(err, &op):
		return fmt.Errorf("fetching %s: %s: %w", repo, op.Op, rootCause(op))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("fetching %s: the server refuses this SSH key: add its public half as a deploy key", repo)
	case strings.Contains(err.Error(), "sha256") || strings.Contains(err.Error(), "object-format"):
		return fmt.Errorf("fetching %s: it is a SHA-256 repository, which is not supported", repo)
	}
	return fmt.Errorf("fetching %s: %s", repo, withoutAddress(err, m.remote))
}

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// withoutAddress removes from an error's text whatever could be a secret.
func withoutAddress(err error, r Remote) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	text := err.Error()
	for _, s := range []string{r.URL, r.Token, url.QueryEscape(r.Token)} {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	text, _, _ = strings.Cut(text, "\n")
	return cut(text)
}

// local is the transport for paths on this machine, within this process.
type local struct{}

func (local) NewUploadPackSession(ep *transport.Endpoint, auth transport.AuthMethod) (transport.UploadPackSession, error) {
	s, err := server.NewClient(loader{}).NewUploadPackSession(ep, auth)
	if err != nil {
		return nil, err
	}
	return localSession{s}, nil
}

func (local) NewReceivePackSession(*transport.Endpoint, transport.AuthMethod) (transport.ReceivePackSession, error) {
	return nil, errors.New("deployhook never pushes")
}

// localSession gives commits that no ref names any more: there is nobody to
// hide them from on the same disk.
type localSession struct{ transport.UploadPackSession }

func (s localSession) AdvertisedReferences() (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(context.Background())
}

func (s localSession) AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error) {
	ar, err := s.UploadPackSession.AdvertisedReferencesContext(ctx)
	if err != nil {
		return nil, err
	}
	return ar, ar.Capabilities.Set(capability.AllowReachableSHA1InWant)
}

type loader struct{}

// Load opens a repository by its path, bare or with a work tree.
func (loader) Load(ep *transport.Endpoint) (storer.Storer, error) {
	for _, dir := range []string{ep.Path, filepath.Join(ep.Path, ".git"), ep.Path + ".git"} {
		b, err := os.ReadFile(filepath.Join(dir, "config"))
		if errors.Is(err, fs.ErrPermission) {
			return nil, transport.ErrAuthorizationFailed
		}
		if err != nil {
			continue
		}
		if strings.Contains(strings.ToLower(string(b)), "objectformat = sha256") {
			return nil, errors.New("object-format sha256")
		}
		return filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRU(cacheBytes)), nil
	}
	return nil, transport.ErrRepositoryNotFound
}
