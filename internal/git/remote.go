package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

const (
	dialTime = 20 * time.Second // of a connection, TLS or SSH included each
	refsMost = 128 << 20        // bytes of a server's list of refs
)

// stallTime is how long a server may send nothing at all. Git's own sends a
// sign of life every 5 s while it prepares a pack.
var stallTime = atomicDuration(time.Minute)

// atomicDuration is a duration that a test may change while a connection of
// the one before it is still being read.
func atomicDuration(d time.Duration) *atomic.Int64 {
	var v atomic.Int64
	v.Store(int64(d))
	return &v
}

// connector is one remote, with the keys it is reached with.
type connector interface {
	// connect begins a conversation, which ends with ctx.
	connect(ctx context.Context) (conversation, error)
}

// conversation is one with a server.
type conversation interface {
	greet() (*greeting, error)
	// ask sends a request and gives the answer. Over HTTP each is one of its
	// own; otherwise they follow each other.
	ask(body []byte) (*packets, error)
	// failed says what an error of the other methods, or of reading, means.
	failed(err error) error
	close() error
}

// connector reads the remote's address and keys, without asking it.
func (m *Mirror) connector() (connector, error) {
	if filepath.IsAbs(m.remote.URL) { // the library takes /srv/a:b for a host and its path
		return local(m.remote.URL), nil
	}
	ep, err := transport.NewEndpoint(m.remote.URL)
	if err != nil || ep.Protocol == "file" && !strings.Contains(m.remote.URL, "://") {
		return nil, fmt.Errorf("the address of %s cannot be read", m.remote.Repository)
	}
	switch ep.Protocol {
	case "http", "https":
		w := web{ep: ep, user: ep.User, password: ep.Password}
		if m.remote.Token != "" {
			w.user, w.password = m.remote.Username, m.remote.Token
			if w.user == "" {
				w.user = "x-access-token"
			}
		}
		return w, nil
	case "ssh":
		return m.ssh(ep)
	case "file":
		return local(ep.Path), nil
	}
	return nil, fmt.Errorf("%s cannot be fetched over %s: https, ssh and paths can", m.remote.Repository, cut(ep.Protocol))
}

// web is a remote over HTTP.
type web struct {
	ep             *transport.Endpoint
	user, password string // both empty: none
}

func (w web) connect(ctx context.Context) (conversation, error) {
	home := &url.URL{Scheme: w.ep.Protocol, Host: w.ep.Host, Path: w.ep.Path}
	host := strings.Trim(w.ep.Host, "[]")
	switch {
	case w.ep.Port != 0:
		home.Host = net.JoinHostPort(host, strconv.Itoa(w.ep.Port))
	case strings.Contains(host, ":"):
		home.Host = "[" + host + "]"
	}
	if path, query, ok := strings.Cut(w.ep.Path, "?"); ok {
		home.Path, home.RawQuery = path, query
	}
	if path, err := url.PathUnescape(home.Path); err == nil {
		home.Path, home.RawPath = path, home.Path
	}
	home.Path, home.RawPath = strings.TrimSuffix(home.Path, "/"), strings.TrimSuffix(home.RawPath, "/")
	return &webTalk{ctx: ctx, web: w, home: home, at: home}, nil
}

// webTalk is a conversation over HTTP.
type webTalk struct {
	ctx      context.Context
	web      web
	home, at *url.URL // where it was sent to, and where it was redirected to
	v2       bool
	open     []io.ReadCloser
}

// redirectError is a failure at another host than the one that was asked:
// credentials are never sent there.
type redirectError struct {
	host string
	err  error
}

func (e *redirectError) Error() string { return "redirected to " + e.host + ": " + e.err.Error() }
func (e *redirectError) Unwrap() error { return e.err }

const infoRefs = "/info/refs"

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func (t *webTalk) close() error {
	var errs []error
	for _, c := range t.open {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// do sends a request, with the login only to where it is meant for.
func (t *webTalk) do(method, path string, body []byte) (*http.Response, error) {
	// What was asked before is read: its connection serves again, when it is
	// read to its end.
	for _, c := range t.open {
		const most = 4 << 10
		_, _ = io.CopyN(io.Discard, c, most)
		_ = c.Close()
	}
	t.open = nil
	u := *t.at
	u.Path += path
	if u.RawPath != "" {
		u.RawPath += path
	}
	if method == http.MethodGet {
		q := u.Query()
		q.Set("service", "git-upload-pack")
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(t.ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "git/"+agent) // GitHub and others look for git/
	if method == http.MethodGet || t.v2 {
		req.Header.Set("Git-Protocol", "version=2")
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if (t.web.user != "" || t.web.password != "") && origin(t.at) == origin(t.home) {
		req.SetBasicAuth(t.web.user, t.web.password)
	}
	res, err := webClient.Do(req)
	if err != nil {
		return nil, err
	}
	t.open = append(t.open, res.Body)
	switch res.StatusCode {
	case http.StatusOK:
		return res, nil
	case http.StatusUnauthorized:
		err = transport.ErrAuthenticationRequired
	case http.StatusForbidden:
		err = transport.ErrAuthorizationFailed
	case http.StatusNotFound:
		err = transport.ErrRepositoryNotFound
	default:
		err = statusError(res.StatusCode)
	}
	if to := res.Request.URL; origin(to) != origin(t.home) {
		err = &redirectError{to.Hostname(), err}
	}
	return nil, err
}

// statusError is an answer of HTTP that means nothing else.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the server answered %d", int(e)) }

func (t *webTalk) greet() (*greeting, error) {
	res, err := t.do(http.MethodGet, infoRefs, nil)
	if err != nil {
		return nil, err
	}
	to := *res.Request.URL
	if !strings.HasSuffix(to.Path, infoRefs) {
		return nil, errNotGit
	}
	to.Path, to.RawPath, to.RawQuery = strings.TrimSuffix(to.Path, infoRefs), strings.TrimSuffix(to.RawPath, infoRefs), t.home.RawQuery
	t.at = &to
	g, err := greet(newPackets(io.LimitReader(res.Body, refsMost)))
	if err == io.EOF {
		err = errNotGit
	}
	if err != nil {
		return nil, err
	}
	t.v2 = g.v2
	return g, nil
}

func (t *webTalk) ask(body []byte) (*packets, error) {
	res, err := t.do(http.MethodPost, "/git-upload-pack", body)
	if err != nil {
		return nil, err
	}
	return newPackets(res.Body), nil
}

// failed says where it was redirected to when that is where it failed.
func (t *webTalk) failed(err error) error {
	if err != nil && origin(t.at) != origin(t.home) && !errors.As(err, new(*redirectError)) {
		return &redirectError{t.at.Hostname(), err}
	}
	return err
}

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("the server redirects to where no git server can be")

// followed says which redirects are followed: those of the first request of a
// conversation, and never out of TLS.
func followed(req *http.Request, via []*http.Request) error {
	const most = 10
	first, last := via[0], via[len(via)-1]
	switch {
	case len(via) > most:
		return errors.New("the server redirects again and again")
	case first.Method != http.MethodGet,
		req.URL.Scheme != "http" && req.URL.Scheme != "https",
		last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return errRedirect
	}
	if origin(req.URL) != origin(first.URL) {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

var webClient = &http.Client{CheckRedirect: followed, Transport: webTransport}

// webTransport is every connection over HTTP.
var webTransport = &http.Transport{
	Proxy: http.ProxyFromEnvironment,
	DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &patient{Conn: c}, nil
	},
	TLSHandshakeTimeout: dialTime,
	IdleConnTimeout:     time.Minute,
	ForceAttemptHTTP2:   true,
}

// patient is a connection that ends when nothing comes for stallTime.
type patient struct{ net.Conn }

// errStall is a server that says nothing any more.
var errStall = errors.New("the server stopped sending")

func (p *patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(time.Duration(stallTime.Load()))); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b)
	return n, stalled(err)
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(time.Duration(stallTime.Load()))); err != nil {
		return 0, err
	}
	n, err := p.Conn.Write(b)
	return n, stalled(err)
}

func stalled(err error) error {
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
		return fmt.Errorf("%w: %w", errStall, err)
	}
	return err
}
