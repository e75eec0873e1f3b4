package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"deployhook/internal/config"
)

// answerMost bounds what is read of an answer, in bytes.
const answerMost = 1 << 20

// probe is the way to this machine's own addresses: no proxy, no redirects.
func (e *exam) probe(t *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: nil, TLSClientConfig: t, DisableKeepAlives: true, TLSHandshakeTimeout: askTime, ExpectContinueTimeout: 2 * time.Second,
			DialContext: (&net.Dialer{Timeout: askTime}).DialContext, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks for an address and reads the beginning of the answer.
func get(ctx context.Context, c *http.Client, address string, header http.Header) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMost))
	return res, body, err
}

// healthy is what /healthz says.
func healthy(res *http.Response, body []byte) bool {
	return res.StatusCode == http.StatusOK && strings.TrimSpace(string(body)) == "ok"
}

// checkPort looks who answers on the port of the hooks.
func (e *exam) checkPort(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	s := e.file.Server
	address := s.Listen
	for _, l := range e.listens() {
		if l != address {
			found = append(found, fail(fmt.Sprintf("deployhook.socket listens on %s and server.listen is %s: the daemon does not start", l, address),
				fmt.Sprintf("printf '[Socket]\\nListenStream=\\nListenStream=%s\\n' | sudo install -D -m 0644 /dev/stdin /etc/systemd/system/deployhook.socket.d/listen.conf\nsudo systemctl daemon-reload\nsudo systemctl stop deployhook.service deployhook.socket\nsudo systemctl start deployhook.socket deployhook.service", address))...)
		}
	}
	if d, err := e.daemon(); err == nil {
		if _, port, err := net.SplitHostPort(address); err == nil && port != "0" && d.Listen != "" && portOf(d.Listen) != port {
			found = append(found, warn(fmt.Sprintf("the daemon listens on %s, and server.listen is %s now", d.Listen, address), restartIt)...)
		}
		address = d.Listen
	}
	scheme := "http"
	if s.TLS.On() {
		scheme = "https"
	}
	// Whether the certificate is good is said with server.url.
	client := e.probe(&tls.Config{InsecureSkipVerify: true})
	res, body, err := get(ctx, client, scheme+"://"+dialable(address)+"/healthz", nil)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return append(found, fail("nothing listens on "+address, e.startIt())...)
	case err != nil:
		return append(found, fail(address+" does not answer as deployhook does: "+config.Unreached(err)+e.holder(ctx, address), e.startIt())...)
	case !healthy(res, body):
		return append(found, fail(fmt.Sprintf("another program answers on %s (%s)%s", address, res.Status, e.holder(ctx, address)), "sudo ss -ltnp 'sport = :"+portOf(address)+"'")...)
	}
	return unlessAny(found, "%s answers /healthz", address)
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return port
}

// dialable is an address of this machine where a server listens on all.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// holder is which program has a port, as far as this user may see it.
func (e *exam) holder(ctx context.Context, address string) string {
	out, code, err := e.Command(ctx, "ss", "-Hltnp", "sport = :"+portOf(address))
	_, rest, ok := strings.Cut(out, `users:(("`)
	name, _, ended := strings.Cut(rest, `"`)
	if err != nil || code != 0 || !ok || !ended {
		return ""
	}
	return ": " + name + " has the port"
}

// proxyDoc is the page about what stands in front.
const proxyDoc = "docs/proxy.md has files for nginx and Caddy that work"

// checkURL takes the way that GitHub takes.
func (e *exam) checkURL(ctx context.Context) (found []Check) {
	if e.file == nil {
		return e.needsConfig()
	}
	base := e.file.Server.URL
	if base == "" {
		return warn("server.url is not set, so the way that GitHub takes was not tried", "put into deploy.yaml: server: { url: https://YOUR.NAME }")
	}
	client := e.probe(&tls.Config{RootCAs: e.roots})
	res, body, err := get(ctx, client, base+"/healthz", nil)
	if err != nil {
		return fail(base+": "+config.Unreached(err), "curl -v "+base+"/healthz\n"+proxyDoc)
	}
	found = append(found, e.wrongClock(res, base)...)
	if !healthy(res, body) {
		return append(found, fail(fmt.Sprintf("%s/healthz answers %s: %s", base, res.Status, meaning(res)), "curl -i "+base+"/healthz\n"+proxyDoc)...)
	}
	if strings.HasPrefix(base, "http://") && !loopback(base) {
		found = append(found, warn(base+" is not https: a token in an address can be read on its way", proxyDoc)...)
	}
	end := ""
	if res.TLS != nil && len(res.TLS.PeerCertificates) > 0 {
		until := res.TLS.PeerCertificates[0].NotAfter
		end = ", its certificate until " + until.UTC().Format("2006-01-02")
		if left := until.Sub(e.now()); left < config.ExpirySoon {
			found = append(found, warn(fmt.Sprintf("the certificate of %s ends in %d days, on %s: it should have been renewed", base, int(left.Hours()/24), until.UTC().Format("2006-01-02")),
				"sudo certbot renew\nsudo systemctl reload nginx")...)
		}
	}
	return unlessAny(found, "%s/healthz answers%s", base, end)
}

func loopback(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// meaning says what an answer to /healthz that is not ours is likely to be.
func meaning(res *http.Response) string {
	switch code := res.StatusCode; {
	case code >= 300 && code < 400:
		where := "elsewhere"
		if u, err := res.Location(); err == nil {
			where = "to " + u.Scheme + "://" + u.Host
		}
		return "it redirects " + where + ", and GitHub does not follow: server.url and the address in GitHub's form must be the last one"
	case code == http.StatusUnauthorized:
		return "the proxy asks for a login, which GitHub does not have"
	case code == http.StatusForbidden:
		return "the proxy, or a firewall in front of it, forbids it"
	case code == http.StatusNotFound:
		return "the proxy does not pass /healthz on, or another site answers at this name"
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return "the proxy does not reach deployhook: does it pass on to server.listen?"
	case code == http.StatusOK:
		return "something else than deployhook answers there"
	}
	return "this is not deployhook's answer"
}

// bodyMost is GitHub's cap, in bytes.
const bodyMost = 25 << 20

// sizePath takes a body and says how long it was; no hook can have its name,
// and no attempt at a secret is counted or logged.
const sizePath = "/hooks/-size"

// proxyTime bounds sending the largest body.
const proxyTime = 25 * time.Second

// zeros are the content of a body that is measured.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// checkProxy sends a body as large as GitHub may.
func (e *exam) checkProxy(ctx context.Context) []Check {
	if e.file == nil {
		return e.needsConfig()
	}
	base := e.file.Server.URL
	if base == "" {
		return warn("server.url is not set, so the size of bodies that come through was not tried", "")
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+sizePath, io.NopCloser(io.LimitReader(zeros{}, bodyMost)))
	if err != nil {
		return fail(base+" is no address", "")
	}
	req.ContentLength = bodyMost
	req.Header.Set("Content-Type", "application/json")
	// A proxy that refuses the size says so before anything is sent.
	req.Header.Set("Expect", "100-continue")
	res, err := e.probe(&tls.Config{RootCAs: e.roots}).Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return warn(fmt.Sprintf("a body of 25 MiB did not come through within %v", proxyTime), "curl -v "+base+"/healthz")
		}
		return warn("the size of bodies that come through was not found out: "+config.Unreached(err), proxyDoc)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, answerMost))
	var got struct {
		Bytes   int64  `json:"bytes"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &got)
	switch {
	case res.StatusCode == http.StatusOK && got.Bytes == bodyMost:
		return ok("bodies of 25 MiB, GitHub's cap, come through")
	case res.StatusCode == http.StatusRequestEntityTooLarge:
		return fail("the proxy refuses bodies of 25 MiB (413), so that large pushes are lost", "nginx: client_max_body_size 25m;\n"+proxyDoc)
	case res.StatusCode == http.StatusServiceUnavailable && got.Message != "":
		return warn("the size of bodies was not found out: "+got.Message, asRoot)
	case res.StatusCode == http.StatusNotFound && strings.Contains(got.Message, "no such hook"):
		return warn("the size of bodies was not found out: the daemon is of an earlier version", restartIt)
	case res.StatusCode == http.StatusOK:
		return fail(fmt.Sprintf("of a body of %d bytes %d came through: something between changes bodies, and signatures with them", bodyMost, got.Bytes), proxyDoc)
	}
	return fail(fmt.Sprintf("%s/hooks/ answers %s: pushes do not come through", base, res.Status), "curl -i -X POST "+base+sizePath+"\n"+proxyDoc)
}
