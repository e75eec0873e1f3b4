package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// TLS is where the server's certificate and its key are read from, each a file
// or a credential. Behind a proxy there is neither.
type TLS struct {
	Certificate, Key deploy.Secret
}

// On says whether the server speaks HTTPS itself.
func (t TLS) On() bool { return t.Certificate.Name != "" }

// Names of the two, also as sources.
const (
	certificateName = "server.tls.certificate"
	keyName         = "server.tls.key"
)

// ExpirySoon is how long before its end a certificate is worth a word. certbot
// renews 30 days before.
const ExpirySoon = 14 * 24 * time.Hour

// tls reads both sources; one without the other is an error. n is the section
// as it is written, or nil.
func (r *serverReader) tls(n *node) TLS {
	certificate, fromCertificate := r.source("tls.certificate")
	key, fromKey := r.source("tls.key")
	switch {
	case fromCertificate == "" && fromKey == "":
		if n != nil {
			r.badAt(n, "tls", "certificate and key are wanted here")
		}
		return TLS{}
	case fromKey == "":
		r.bad(fromCertificate, "a certificate without its key: server.tls.key is wanted too")
		return TLS{}
	case fromCertificate == "":
		r.bad(fromKey, "a key without its certificate: server.tls.certificate is wanted too")
		return TLS{}
	}
	return TLS{Certificate: certificate, Key: key}
}

// source reads a path, or below it the name of a credential: that of the two
// which a flag, a variable or the file gives, in this order. from is its name.
func (r *serverReader) source(name string) (s deploy.Secret, from string) {
	credential := name + ".credential"
	path, other := r.text(name, ""), r.text(credential, "")
	switch {
	case path == "" && other == "":
		return s, ""
	case path != "" && other != "" && r.rank(name) == r.rank(credential):
		r.bad(credential, "a path and a credential: one of them is wanted")
		return s, credential
	case other == "" || path != "" && r.rank(name) > r.rank(credential):
		r.path(name, &path)
		return deploy.Secret{Name: "server." + name, File: path}, name
	}
	if !validCredential(other) {
		r.bad(credential, "this is not the name of a credential, as in LoadCredential=NAME:PATH")
	}
	return deploy.Secret{Name: "server." + name, Credential: other}, credential
}

// rank orders where values come from.
func (r *serverReader) rank(name string) int {
	switch from := r.given[name]; {
	case strings.HasPrefix(from, "--"):
		return 2
	case from != "":
		return 1
	}
	return 0
}

// ReadPair reads certificate and key now. pem changes when one of them does.
//
// Its errors name the key of deploy.yaml and the file, and say what to do.
func ReadPair(ctx context.Context, t TLS) (pair *tls.Certificate, pem string, err error) {
	certificate, err := readPart(ctx, t.Certificate)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", certificateName, err)
	}
	key, err := readPart(ctx, t.Key)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", keyName, err)
	}
	pem = certificate + "\x00" + key
	if _, bad := parseCertificate(certificate); bad != nil {
		return nil, pem, fmt.Errorf("%s: %s: %w", certificateName, placeOf(t.Certificate), bad)
	}
	if pair, err = parsePair(certificate, key); err != nil {
		return nil, pem, fmt.Errorf("%s: %s: %w", keyName, placeOf(t.Key), err)
	}
	return pair, pem, nil
}

// placeOf is where a part stands, for messages.
func placeOf(s deploy.Secret) string {
	if s.File != "" {
		return s.File
	}
	return "credential " + s.Credential
}

// readPart reads the text of one source.
func readPart(ctx context.Context, s deploy.Secret) (string, error) {
	text, err := Resolve(ctx, s)
	if err == nil {
		return text + "\n", nil
	}
	if errors.Is(err, fs.ErrPermission) && s.File != "" {
		name := "tls-certificate"
		if s.Name == keyName {
			name = "tls-key"
		}
		return "", fmt.Errorf("%s cannot be read by user %s: give the unit LoadCredential=%s:%s and write {credential: %s} here, or copy it where that user can read it (docs/proxy.md): %w",
			s.File, userName(), name, s.File, name, fs.ErrPermission)
	}
	text = reason(s, err)
	if s.File != "" && !strings.Contains(text, s.File) {
		text = s.File + ": " + text
	}
	return "", reasonError{text: text, cause: err}
}

// reasonError says less than its cause, whose place is known.
type reasonError struct {
	text  string
	cause error
}

func (e reasonError) Error() string { return e.text }
func (e reasonError) Unwrap() error { return e.cause }

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

// blocks are the types of a text's PEM blocks.
func blocks(text string) (list []*pem.Block) {
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return list
		}
		list = append(list, b)
	}
}

// parseCertificate gives the certificates of a text, the server's own first.
func parseCertificate(text string) (chain []*x509.Certificate, err error) {
	isKey := false
	for _, b := range blocks(text) {
		isKey = isKey || strings.HasSuffix(b.Type, "PRIVATE KEY")
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate is damaged (%s)", strings.TrimPrefix(err.Error(), "x509: "))
		}
		chain = append(chain, c)
	}
	switch {
	case len(chain) > 0:
		return chain, nil
	case isKey:
		return nil, errors.New("this is a key, not a certificate: are the two exchanged")
	}
	return nil, errors.New("there is no certificate in it: PEM is wanted, which has a line -----BEGIN CERTIFICATE-----")
}

// parsePair holds a key against its certificate.
func parsePair(certificate, key string) (*tls.Certificate, error) {
	var found *pem.Block
	for _, b := range blocks(key) {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			found = b
			break
		}
	}
	switch {
	case found == nil && len(blocks(key)) > 0 && blocks(key)[0].Type == "CERTIFICATE":
		return nil, errors.New("this is a certificate, not a key: are the two exchanged")
	case found == nil:
		return nil, errors.New("there is no private key in it: PEM is wanted, which has a line -----BEGIN PRIVATE KEY-----")
	case strings.HasPrefix(found.Type, "ENCRYPTED") || strings.Contains(found.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errors.New("the key has a password, which nobody could type: openssl pkey -in KEY -out NEWKEY writes it without")
	case found.Type == "OPENSSH PRIVATE KEY":
		return nil, errors.New("this is a key of ssh, not that of a certificate")
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err == nil {
		return &pair, nil
	}
	if strings.Contains(err.Error(), "does not match") {
		return nil, errors.New("the key is not that of the certificate, or the server's own certificate does not come first in its file")
	}
	return nil, fmt.Errorf("the key is damaged or of an unknown kind (%s)", strings.TrimPrefix(err.Error(), "tls: "))
}

// CheckTLS reads the server's certificate and key: what cannot be served is an
// error, a certificate that ends soon or does not fit server.url a warning.
func CheckTLS(ctx context.Context, f *File, now time.Time) (errs, warnings Problems) {
	t := f.Server.TLS
	if !t.On() {
		return nil, nil
	}
	certificate, unread := readPart(ctx, t.Certificate)
	key, keyUnread := readPart(ctx, t.Key)
	for _, part := range []struct {
		name string
		err  error
	}{{certificateName, unread}, {keyName, keyUnread}} {
		if part.err == nil {
			continue
		}
		p := f.problem(f.nearest(part.name), "%v", part.err)
		p.Unread = errors.As(part.err, new(notHereError)) || errors.Is(part.err, fs.ErrPermission)
		errs = append(errs, p)
	}
	if unread != nil {
		return errs, nil
	}
	chain, err := parseCertificate(certificate)
	if err != nil {
		return append(errs, f.problem(f.nearest(certificateName), "%s: %v", placeOf(t.Certificate), err)), nil
	}
	if keyUnread == nil {
		if _, err := parsePair(certificate, key); err != nil {
			errs = append(errs, f.problem(f.nearest(keyName), "%s: %v", placeOf(t.Key), err))
		}
	}
	for _, text := range oddities(chain, f.Server.URL, now) {
		warnings = append(warnings, f.problem(f.nearest(certificateName), "%s", text))
	}
	if info, err := os.Stat(t.Key.File); err == nil && info.Mode().Perm()&0o004 != 0 {
		warnings = append(warnings, f.problem(f.nearest(keyName), "every user of this machine can read the key: chmod o= %s", t.Key.File))
	}
	return errs, warnings
}

// nearest is the written key that a source comes from: itself, or the name of
// its credential.
func (f *File) nearest(name string) string {
	if below := name + ".credential"; f.given[name] == "" && (f.given[below] != "" || f.written[below] != nil) {
		return below
	}
	return name
}

// oddities are what senders will mind about a certificate.
func oddities(chain []*x509.Certificate, address string, now time.Time) (list []string) {
	own := chain[0]
	if text := Expiry(own, now); text != "" {
		list = append(list, text)
	}
	if len(chain) == 1 && !own.IsCA && own.Issuer.String() != own.Subject.String() {
		list = append(list, "the file has the server's certificate alone: senders miss the one between it and its root (certbot: fullchain.pem, not cert.pem)")
	}
	if u, err := url.Parse(address); err == nil && u.Hostname() != "" {
		if own.VerifyHostname(u.Hostname()) != nil {
			list = append(list, fmt.Sprintf("the certificate is not for %s, the name in server.url, and senders will refuse it", u.Hostname()))
		}
	}
	return list
}

// Expiry says of a certificate that it ends soon, has ended or does not count
// yet; empty = none of these.
func Expiry(c *x509.Certificate, now time.Time) string {
	day := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		return fmt.Sprintf("the certificate has ended on %s, and senders refuse it: renew it", day(c.NotAfter))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("the certificate does not count before %s: is the clock right", day(c.NotBefore))
	case left < ExpirySoon:
		return fmt.Sprintf("the certificate ends in %s, on %s: renew it", counted(int(left/(24*time.Hour)), "day"), day(c.NotAfter))
	}
	return ""
}
