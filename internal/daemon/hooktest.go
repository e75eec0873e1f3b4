package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

// Bounds of a test of a hook.
const (
	senderTime     = 10 * time.Second // GitHub gives up after that
	hookAnswerMost = 64 << 10         // bytes
)

// hookTester gives what tests a hook of a daemon that listens on an address.
func (d *daemon) hookTester(listen string) func(ctx context.Context, name string) (deploy.HookTest, error) {
	return func(ctx context.Context, name string) (deploy.HookTest, error) {
		return d.testHook(ctx, listen, name)
	}
}

// testHook sends a wrong and a right delivery to a hook, at the address that
// the daemon listens on and at the one that senders have. A right one goes to
// the public address only when the wrong one came back to this daemon: another
// one behind that address would carry it out.
func (d *daemon) testHook(ctx context.Context, listen, name string) (deploy.HookTest, error) {
	hook := d.config().Hook(name)
	t := deploy.HookTest{Hook: name, Tries: []deploy.HookTry{}}
	if hook != nil { // else the receiver says so
		t.Provider = hook.Provider
	}
	local := "http://"
	if d.pair != nil {
		local = "https://"
	}
	ways := []struct {
		name, base string
		tls        *tls.Config
	}{
		// Whether the certificate is good for senders shows at the public address.
		{"local", local + reachable(listen), &tls.Config{InsecureSkipVerify: true}},
		{"public", d.file.Load().Server.URL, nil},
	}
	for _, w := range ways {
		if w.base == "" {
			continue
		}
		for _, right := range []bool{false, true} {
			try, arrived, err := d.tryHook(ctx, name, w.base, w.tls, right)
			if err != nil {
				return t, err
			}
			try.Way, try.Address = w.name, w.base+"/hooks/"+name
			t.Tries = append(t.Tries, try)
			if !arrived {
				break
			}
		}
	}
	return t, ctx.Err()
}

// reachable is an address of this machine where a server listens on all.
func reachable(listen string) string {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || !at.Addr().IsUnspecified() {
		return listen
	}
	return net.JoinHostPort("localhost", fmt.Sprint(at.Port()))
}

// tryHook sends one delivery below base as a sender does: no redirect is
// followed, the certificate is verified, and 10 s are all the time there is.
func (d *daemon) tryHook(ctx context.Context, name, base string, t *tls.Config, right bool) (try deploy.HookTry, arrived bool, err error) {
	trial, err := d.rc.Trial(ctx, name, right)
	if err != nil {
		return try, false, err
	}
	defer trial.Close()
	limited, cancel := context.WithTimeout(ctx, senderTime)
	defer cancel()
	var remote netip.Addr
	req, err := trial.Request(httptrace.WithClientTrace(limited, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if at, err := netip.ParseAddrPort(c.Conn.RemoteAddr().String()); err == nil {
			remote = at.Addr().Unmap()
		}
	}}), base)
	if err != nil {
		return try, false, fmt.Errorf("%w: server.url is no address", deploy.ErrRefused)
	}
	try.Delivery = "wrong"
	if right {
		try.Delivery = "right"
	}
	transport := &http.Transport{
		TLSClientConfig: t, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: (&net.Dialer{Timeout: senderTime}).DialContext,
	}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	began := time.Now()
	res, err := client.Do(req)
	var body []byte
	if err == nil {
		defer res.Body.Close()
		body, err = io.ReadAll(io.LimitReader(res.Body, hookAnswerMost))
	}
	try.TookMS = time.Since(began).Milliseconds()
	if ctx.Err() != nil {
		return try, false, ctx.Err()
	}
	if err != nil {
		try.Message = config.Unreached(err)
		// The certificate was not looked at where no answer came at all.
		try.Text, try.Fix = "no answer: "+try.Message, wayFix
		return try, trial.Outcome().From != "", nil
	}
	try.Status = res.StatusCode
	try.Message = answered(body)
	if c := res.TLS; c != nil {
		try.TLS = tls.VersionName(c.Version)
		if len(c.PeerCertificates) > 0 {
			try.TLS += ", certificate until " + c.PeerCertificates[0].NotAfter.UTC().Format(time.DateOnly)
		}
	}
	outcome := trial.Outcome()
	try.From = outcome.From
	judge(&try, outcome, res, right)
	if try.OK && right && t == nil && (remote.IsPrivate() || remote.IsLoopback() || remote.IsLinkLocalUnicast()) {
		try.Text += fmt.Sprintf("; from here that is %s, which no sender in the internet can reach", remote)
	}
	return try, outcome.From != "", nil
}

// wayFix is what to do when something between sender and daemon is wrong.
const wayFix = "sudo deployhook doctor\ndocs/proxy.md has files for nginx and Caddy that work"

// answered is our own sentence in an answer, or the beginning of a page.
func answered(body []byte) string {
	var a struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &a) == nil && a.Message != "" {
		return deploy.Cut(a.Message, 300)
	}
	return deploy.Cut(string(body), 300)
}

// judge says whether a delivery was answered as it must be, and what a sender
// would see.
func judge(try *deploy.HookTry, o receiver.TrialOutcome, res *http.Response, right bool) {
	refused := res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusTooManyRequests
	try.Text = fmt.Sprintf("answered %d in %d ms", res.StatusCode, try.TookMS)
	if try.TLS != "" {
		try.Text += " (" + try.TLS + ")"
	}
	switch code := res.StatusCode; {
	case code >= 300 && code < 400:
		try.Text += ": it is sent elsewhere, and a sender does not follow: server.url and the address in the sender's form must be the last one"
		try.Fix = wayFix
	case o.From == "":
		try.Text += ", but not by this daemon: another program or another deployhook is there, or what stands in front answers itself or drops the header " + receiver.TrialHeader
		try.Fix = wayFix
	case code == http.StatusForbidden:
		try.Text += ": it came from " + o.From
		try.Fix = "put " + o.From + " into the hook's allow for as long as it is tested from here"
	case o.Changed:
		try.Text += ": something between changes bodies, and a signature does not fit any more then"
		try.Fix = wayFix
	case right && code == http.StatusOK && o.Verified, !right && refused && !o.Verified:
		try.OK = true
	case right && refused:
		try.Text += ", though the signature is right: something between changes or drops headers"
		try.Fix = wayFix
	case right && o.Verified:
		try.Text += ", though this daemon took it: what stands in front changes answers"
		try.Fix = wayFix
	case o.Verified:
		try.Text += ": a wrong signature was taken"
		try.Fix = "deployhook check"
	}
	if try.Message != "" {
		try.Text += ": " + try.Message
	}
}
