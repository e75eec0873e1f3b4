package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Time limits of the phases of a try; [SendTime] bounds it as a whole.
const (
	SendTime   = 10 * time.Second
	dialTime   = 5 * time.Second
	tlsTime    = 5 * time.Second
	headerTime = 10 * time.Second
	answerTime = 2 * time.Second // to read the first of an answer's body
	idleTime   = 30 * time.Second
)

// Bounds of what a receiver may answer and of what is kept open to it.
const (
	headerMost = 64 << 10 // bytes
	errorMost  = 300      // bytes of an error's sentence
	retryMost  = 12 * time.Hour
	idleMost   = 64 // connections that wait to be used again
)

// UserAgent is what receivers see.
const UserAgent = "deployhook"

// errNoAddress is about an address that is none. It has no words of it: a
// secret may be in any part.
var errNoAddress = errors.New("the address is no http:// or https:// URL")

// Clients give clients that reach third parties.
type Clients struct {
	public, private *http.Client
}

// NewClients makes clients. roots are the authorities that certificates are
// verified with; nil = the system's.
func NewClients(roots *x509.CertPool) *Clients {
	return &Clients{public: newClient(roots, refusePrivate), private: newClient(roots, nil)}
}

func newClient(roots *x509.CertPool, control func(network, address string, c syscall.RawConn) error) *http.Client {
	dialer := &net.Dialer{Timeout: dialTime, Control: control}
	return &http.Client{
		// Its Proxy is not set: the environment's would see every message.
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: tlsTime, ResponseHeaderTimeout: headerTime,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: headerMost, DisableCompression: true, ForceAttemptHTTP2: true,
			MaxIdleConns: idleMost, MaxIdleConnsPerHost: perTarget, IdleConnTimeout: idleTime,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       SendTime,
	}
}

// Client gives the client for a target; see [Deps].
func (c *Clients) Client(allowPrivate bool, literal string) *http.Client {
	if u, err := url.Parse(literal); err == nil {
		// No name is looked up for such an address: nobody else can choose it.
		_, err := netip.ParseAddr(u.Hostname())
		allowPrivate = allowPrivate || err == nil
	}
	if allowPrivate {
		return c.private
	}
	return c.public
}

// Close ends the connections that wait to be used again.
func (c *Clients) Close() {
	c.public.CloseIdleConnections()
	c.private.CloseIdleConnections()
}

// privateError is about a name whose address is not public.
type privateError struct{ addr netip.Addr }

func (e privateError) Error() string {
	return fmt.Sprintf("its name has the address %s, which is private: allow_private: true allows that", e.addr)
}

// refusePrivate looks at the address that is about to be connected to, so that
// a name that changes its address between two looks gains nothing.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return errors.New("its address cannot be read")
	}
	if !Public(ap.Addr()) {
		return privateError{ap.Addr().Unmap()}
	}
	return nil
}

// special are networks in which no receiver has a public address.
//
// Source: IANA, "IPv4 Special-Purpose Address Registry" and "IPv6
// Special-Purpose Address Registry".
var special = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
	"2002::/16", "3fff::/20", "5f00::/16", "fec0::/10")

// nat64 is where IPv6 networks put IPv4 addresses, in the last four bytes.
//
// Source: RFC 6052, section 2.1.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(list ...string) (p []netip.Prefix) {
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// Public says whether an address is one of the public internet: not private,
// shared, loopback, link-local, multicast or reserved, also not within an IPv6
// address.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// Do sends a request and reads the first of what is answered. Every answer but
// a 2xx is an error. Neither the error nor what is kept of the answer has the
// address beyond scheme and host.
func Do(c *http.Client, req *http.Request) (Answer, error) {
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "" {
		return Answer{Permanent: true}, errNoAddress
	}
	place := req.URL.Scheme + "://" + req.URL.Host
	res, err := c.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", place, reason(err, req.URL))
	}
	defer res.Body.Close()
	a := Answer{Status: res.StatusCode, Body: hide(firstOf(res.Body), req.URL), RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	switch s := res.StatusCode; {
	case s >= 200 && s <= 299:
		return a, nil
	case s >= 300 && s <= 399:
		return a, fmt.Errorf("%s answered %d: redirects are not followed; write the new address into deploy.yaml", place, s)
	case s == http.StatusGone:
		a.Gone = true
		return a, fmt.Errorf("%s answered 410: it wants nothing more, and gets nothing until deploy.yaml changes", place)
	default:
		return a, fmt.Errorf("%s answered %s", place, strings.TrimSpace(fmt.Sprint(s, " ", http.StatusText(s))))
	}
}

// firstOf reads the first of an answer's body, for a moment at most. One that
// ends within it leaves its connection to the next message.
func firstOf(body io.ReadCloser) []byte {
	timer := time.AfterFunc(answerTime, func() { body.Close() })
	defer timer.Stop()
	b, _ := io.ReadAll(io.LimitReader(body, AnswerMost+1))
	return b[:min(len(b), AnswerMost)]
}

// retryAfter reads seconds or a date, and waits no longer than between the
// last tries.
//
// Source: RFC 9110, section 10.2.3.
func retryAfter(h string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseInt(h, 10, 64); err == nil {
		d = retryMost
		if n <= int64(retryMost/time.Second) {
			d = time.Duration(n) * time.Second
		}
	} else if at, err := http.ParseTime(h); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), retryMost)
}

// reason says why no answer came. The error around it has the whole address.
func reason(err error, u *url.URL) error {
	var wrapped *url.Error
	for errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var private privateError
	var name *net.DNSError
	var host x509.HostnameError
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &private):
		return private
	case errors.As(err, &name) && name.IsNotFound:
		return errors.New("there is no such name")
	case errors.As(err, &host):
		return errors.New("its certificate is of another name")
	case errors.As(err, &cert):
		return fmt.Errorf("its certificate cannot be verified: %s", clean(cert.Err.Error(), u))
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("the connection was closed without an answer")
	case errors.As(err, &op):
		return errors.New(clean(op.Err.Error(), u))
	}
	return errors.New(clean(err.Error(), u))
}

// clean makes a stranger's words fit for a message: one short line.
func clean(s string, u *url.URL) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, string(hide([]byte(s), u)))
	if len(s) > errorMost {
		s = strings.ToValidUTF8(s[:errorMost], "") + "…"
	}
	return s
}

// hideLeast is the shortest part of an address that is taken for a secret, in
// bytes.
const hideLeast = 6

// hide takes the parts of an address that may be secret out of a text: path,
// query and user. A receiver may send them back.
func hide(text []byte, u *url.URL) []byte {
	parts := []string{u.RequestURI(), u.Path, u.EscapedPath(), u.RawQuery}
	parts = append(parts, strings.Split(u.Path, "/")...)
	for _, list := range u.Query() {
		parts = append(parts, list...)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		parts = append(parts, u.User.String(), u.User.Username(), password)
	}
	return Hide(text, parts...)
}

// Hide takes secrets out of the first of an answer, those that have six bytes
// or more, and makes it valid UTF-8 of [AnswerMost] bytes at most.
func Hide(text []byte, secrets ...string) []byte {
	for _, s := range secrets {
		if len(s) >= hideLeast {
			text = bytes.ReplaceAll(text, []byte(s), []byte("***"))
		}
	}
	text = bytes.ToValidUTF8(text, []byte("?"))
	return bytes.ToValidUTF8(text[:min(len(text), AnswerMost)], nil)
}
