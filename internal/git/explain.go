package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
)

// isFatal is an error that asking in other words does not mend.
func isFatal(err error) bool {
	var host *HostKeyError
	var op *net.OpError
	return errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) ||
		errors.Is(err, transport.ErrRepositoryNotFound) || errors.As(err, &host) || errors.As(err, &op) ||
		errors.Is(err, errStall) || errors.As(err, new(*halfway))
}

// explain says in one sentence what kept a repository from being asked. It
// never holds the address, which may have a token in it.
func (m *Mirror) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("fetching %s: it took longer than there was time for", m.remote.Repository)
		}
		return ctx.Err()
	}
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return fmt.Errorf("%s is empty", m.remote.Repository)
	}
	return fmt.Errorf("fetching %s: %s", m.remote.Repository, m.without(sentence(err)))
}

// sentence says what an error of a remote means.
func sentence(err error) string {
	if s := ofTLS(err); s != "" {
		return s
	}
	if s := ofGit(err); s != "" {
		return s
	}
	var (
		dns *net.DNSError
		op  *net.OpError
		u   *url.Error
	)
	switch {
	case errors.Is(err, errStall):
		return fmt.Sprintf("the server stopped sending: nothing came for %v", time.Duration(stallTime.Load()))
	case errors.As(err, &dns):
		return fmt.Sprintf("the host name %q cannot be resolved", cut(dns.Name))
	case errors.Is(err, syscall.ENOSPC):
		return "no space left for the mirror"
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		return fmt.Sprintf("cannot connect to %s: %v", op.Addr, rootCause(op))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.As(err, &op):
		return "the connection was cut"
	case errors.Is(err, errPack):
		return "what the server sent is damaged: " + strings.TrimPrefix(err.Error(), errPack.Error()+": ")
	case errors.As(err, &u):
		return cut(u.Err.Error())
	}
	return cut(err.Error())
}

// ofTLS is the sentence for a server whose certificate is not taken.
func ofTLS(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's TLS certificate has expired, or this machine's clock is wrong"
	case errors.As(err, &name):
		return fmt.Sprintf("the server's TLS certificate is for another name than %q", cut(name.Host))
	case errors.As(err, &unknown):
		return "the server's TLS certificate is signed by nobody whom this machine trusts: install the certificate of its authority on this machine (update-ca-certificates) and restart deployhook"
	case errors.As(err, &cert):
		return "the server's TLS certificate is not valid: " + cut(cert.Err.Error())
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server does not speak TLS there: is the address meant to begin with http://?"
	}
	return ""
}

// ofGit is the sentence for what a git server answers.
func ofGit(err error) string {
	var (
		host     *HostKeyError
		redirect *redirectError
		status   statusError
		said     *serverSaid
	)
	switch text := err.Error(); {
	case errors.As(err, &host):
		return host.Error()
	case errors.As(err, &redirect) && (errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed)):
		return fmt.Sprintf("the server redirects to %s, where the login is not sent: if that is right, write that address as clone_url", cut(redirect.host))
	case errors.As(err, &redirect):
		return fmt.Sprintf("the server redirects to %s, and there: %s", cut(redirect.host), sentence(redirect.err))
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return "the server asks for a login (401): give the pipeline auth.token or auth.ssh_key"
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return "the server refuses this login (403): the token may not read the repository"
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return "not found (404): the name is wrong, or the login may not see it"
	case errors.As(err, &status):
		return status.Error()
	case errors.Is(err, errSHA256):
		return errSHA256.Error()
	case strings.Contains(text, "unable to authenticate"):
		return "the server refuses this SSH key: add its public half as a deploy key"
	case strings.Contains(text, "no common algorithm for host key"):
		return "the host has none of the types of key that known_hosts has for it: compare what ssh-keyscan prints with what the host's owner publishes, and add it to known_hosts"
	case errors.As(err, &said):
		return "the server says: " + cut(said.line)
	case errors.Is(err, errNotGit):
		return "what answers at this address does not speak git: is the address right?"
	case errors.As(err, new(*ssh.ExitMissingError)):
		return "the connection was cut"
	}
	return ""
}

// errSHA256 is a repository of the other object format.
var errSHA256 = errors.New("it is a SHA-256 repository, which is not supported")

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// without removes from a text whatever could be a secret.
func (m *Mirror) without(text string) string {
	r := m.remote
	secrets := []string{r.URL}
	if r.Token != "" {
		user := r.Username
		if user == "" {
			user = "x-access-token"
		}
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(user+":"+r.Token)), r.Token, url.QueryEscape(r.Token), url.PathEscape(r.Token))
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}
