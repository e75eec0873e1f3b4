package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
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
	connect(ctx context.Context) (transport.UploadPackSession, error)
	refs(ctx context.Context) (*packp.AdvRefs, error)
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
		w := web{ep: ep}
		if m.remote.Token != "" {
			w.auth = &githttp.BasicAuth{Username: m.remote.Username, Password: m.remote.Token}
			if w.auth.Username == "" {
				w.auth.Username = "x-access-token"
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
	ep   *transport.Endpoint
	auth *githttp.BasicAuth // nil: none
}

func (w web) refs(ctx context.Context) (*packp.AdvRefs, error) { return refs(ctx, w) }

func (w web) connect(context.Context) (transport.UploadPackSession, error) {
	ep := *w.ep // the session changes it when it is redirected
	var auth transport.AuthMethod
	if w.auth != nil {
		auth = w.auth
	}
	s, err := webClient.NewUploadPackSession(&ep, auth)
	if err != nil {
		return nil, err
	}
	return &webSession{UploadPackSession: s, home: *w.ep, now: &ep}, nil
}

// webSession says where it was redirected to when that is where it failed.
type webSession struct {
	transport.UploadPackSession
	home transport.Endpoint
	now  *transport.Endpoint
}

// redirectError is a failure at another host than the one that was asked:
// credentials are never sent there.
type redirectError struct {
	host string
	err  error
}

func (e *redirectError) Error() string { return "redirected to " + e.host + ": " + e.err.Error() }
func (e *redirectError) Unwrap() error { return e.err }

func (s *webSession) AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error) {
	adv, err := s.UploadPackSession.AdvertisedReferencesContext(ctx)
	return adv, s.moved(err)
}

func (s *webSession) UploadPack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	res, err := s.UploadPackSession.UploadPack(ctx, req)
	return res, s.moved(err)
}

func (s *webSession) moved(err error) error {
	if err != nil && (s.now.Host != s.home.Host || s.now.Port != s.home.Port) {
		return &redirectError{host: s.now.Host, err: err}
	}
	return err
}

var webClient = githttp.NewClient(&http.Client{Transport: bounded{webTransport}})

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

// bounded bounds what a server may say before it sends packs.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/info/refs") {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, refsMost), res.Body}
	}
	return res, err
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

func init() {
	// Azure DevOps answers only who speaks them. One round of haves with a
	// done is all that is sent, so that they change no more than the number
	// of lines that acknowledge them. Thin packs would need objects of other
	// packs to be read.
	transport.UnsupportedCapabilities = []capability.Capability{capability.ThinPack}
}
