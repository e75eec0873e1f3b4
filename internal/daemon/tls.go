package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"deployhook/internal/config"
)

const (
	pairEvery   = 5 * time.Second // between two looks at certificate and key
	expiryEvery = 24 * time.Hour  // between two warnings that the certificate ends
)

// certificate is the pair that the public address serves: the newest good one
// that was found where the config says.
type certificate struct {
	from config.TLS
	log  *slog.Logger
	pair atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	pem    string // of the pair
	bad    string // error of the last look; empty after a good one
	said   bool   // that error is in the log
	warned time.Time
}

// openCertificate reads the pair that the daemon begins with.
func openCertificate(ctx context.Context, from config.TLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{from: from, log: log}
	pair, pem, err := config.ReadPair(ctx, from)
	if err != nil {
		return nil, err
	}
	c.pair.Store(pair)
	c.pem = pem
	c.warn(time.Now())
	return c, nil
}

// serve serves HTTPS on a listener: HTTP/1.1 alone, which all forges can send
// deliveries with, so that there is one way in to bound and to drain.
func (c *certificate) serve(srv *http.Server, l net.Listener) error {
	srv.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
	srv.Protocols = &http.Protocols{}
	srv.Protocols.SetHTTP1(true)
	return srv.ServeTLS(l, "", "")
}

// look reads the pair anew and serves it from the next handshake on, when it
// is another one and good. A bad one changes nothing and is the error.
func (c *certificate) look(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pair, pem, err := config.ReadPair(ctx, c.from)
	if err != nil {
		c.said = c.said && c.bad == err.Error()
		c.bad = err.Error()
		return err
	}
	c.bad, c.said = "", false
	if pem != c.pem {
		c.pair.Store(pair)
		c.pem, c.warned = pem, time.Time{}
		c.log.Info("certificate changed", "until", pair.Leaf.NotAfter.UTC())
	}
	return nil
}

// Run looks at the pair until ctx ends. What is wrong with it is logged once,
// and only at the second look: between the two files that certbot writes they
// do not match.
func (c *certificate) Run(ctx context.Context) {
	tick := time.NewTicker(pairEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		before, said := c.bad, c.said
		c.mu.Unlock()
		if err := c.look(ctx); err != nil && err.Error() == before && !said && !errors.Is(err, context.Canceled) {
			c.log.Error("the new certificate cannot be served, the one before stays", "err", err)
			c.mu.Lock()
			c.said = true
			c.mu.Unlock()
		}
		c.warn(time.Now())
	}
}

// warn says once a day that the certificate ends soon.
func (c *certificate) warn(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := config.Expiry(c.pair.Load().Leaf, now)
	if text == "" || now.Sub(c.warned) < expiryEvery {
		return
	}
	c.warned = now
	c.log.Warn("certificate", "err", text)
}
