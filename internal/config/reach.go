package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Unreached says in one sentence what kept an address from answering. It has
// no address in it, since one may hold a token.
func Unreached(err error) string {
	var (
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		t       net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("the name %q is not known: its DNS record is missing", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q cannot be resolved now", dns.Name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its TLS certificate has expired, or this machine's clock is wrong"
	case errors.As(err, &name):
		return fmt.Sprintf("its TLS certificate is for another name than %q", name.Host)
	case errors.As(err, &unknown):
		return "its TLS certificate is signed by nobody whom this machine trusts: the chain may be missing (fullchain.pem, not cert.pem)"
	case errors.As(err, &cert):
		return "its TLS certificate is not valid: " + cert.Err.Error()
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it does not speak TLS there"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused: nothing listens there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to its address"
	case errors.As(err, &t) && t.Timeout():
		return "no answer came in time: a firewall may drop it (or a router that does not lead from this machine back to itself)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection was cut"
	}
	// The innermost error says what happened; those around it name the address.
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err.Error()
}
