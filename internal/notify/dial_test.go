package notify

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
)

func TestOnlyPublicAddressesAreConnectedTo(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "64:ff9b::808:808": true, "::ffff:8.8.8.8": true,
		"10.0.0.1": false, "172.31.0.1": false, "192.168.1.1": false, "127.0.0.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.0.8": false, "198.18.0.1": false, "203.0.113.1": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd12::1": false, "ff02::1": false, "fec0::1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::1": false,
		"2002:7f00:1::": false, "2001::1": false, "::7f00:1": false, "2001:db8::1": false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Public(%s) = %v, want %v", addr, got, want)
		}
	}
}

// message is one to an address, signed with two keys.
func message(literal string) *Message {
	return &Message{
		Notification: deploy.Notification{Key: "msg_1", Type: "payment.approved", Body: []byte(`{"order":1}`), Created: time.Unix(1000, 0)},
		Spec:         &deploy.Notify{Kind: deploy.NotifyWebhook, Literal: literal, Secrets: []deploy.Secret{{Name: "new"}, {Name: "old"}}},
	}
}

func sender(roots *x509.CertPool) Sender {
	return newWebhook(Deps{
		Client: NewClients(roots).Client, Log: slog.New(slog.DiscardHandler),
		Secret: func(_ context.Context, s deploy.Secret) (string, error) { return keys[s.Name], nil },
	})
}

var keys = map[string]string{"new": "whsec_bmV3LWtleS1vZi1zaXh0ZWVu", "old": "a-key-that-is-no-base64"}

func answering(t *testing.T, fn http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(fn)
	t.Cleanup(s.Close)
	return s
}

func TestAnyLibraryVerifiesWithEachOfTwoKeys(t *testing.T) {
	t.Parallel()
	var errs []error
	s := answering(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if want := `{"type":"payment.approved","timestamp":"1970-01-01T00:16:40Z","data":{"order":1}}`; string(b) != want {
			errs = append(errs, fmt.Errorf("the body is %s", b))
		}
		wh, _ := standardwebhooks.NewWebhook(keys["new"])
		old, _ := standardwebhooks.NewWebhookRaw([]byte(keys["old"]))
		other, _ := standardwebhooks.NewWebhookRaw([]byte("another"))
		errs = append(errs, wh.Verify(b, r.Header), old.Verify(b, r.Header))
		if other.Verify(b, r.Header) == nil {
			errs = append(errs, fmt.Errorf("another key verifies"))
		}
	})
	a, err := sender(nil).Send(t.Context(), message(s.URL))
	if err != nil || a.Status != 200 {
		t.Fatalf("Send = %+v, %v", a, err)
	}
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// A name that stands for this machine is refused at connect, an address that
// somebody wrote is not; nothing of the address but scheme and host is told.
func TestNameOfAPrivateAddressIsRefused(t *testing.T) {
	t.Parallel()
	s := answering(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	m := message("http://localhost:" + port + "/hidden-path?token=hidden-token")
	_, err := sender(nil).Send(t.Context(), m)
	if err == nil || !strings.Contains(err.Error(), "which is private: allow_private: true allows that") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("Send = %v", err)
	}
	m.Spec.AllowPrivate = true
	if _, err := sender(nil).Send(t.Context(), m); err != nil {
		t.Errorf("with allow_private: %v", err)
	}
}

func TestReceiversThatMisbehaveCostLittle(t *testing.T) {
	t.Parallel()
	loops := 0
	stop := make(chan struct{})
	slow := func(w http.ResponseWriter) {
		for {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	}
	s := answering(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			for range 1 << 14 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case "/slow":
			slow(w)
		case "/never":
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "/loop":
			loops++
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/headers":
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1<<10))
			}
		case "/later":
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/echo-the-secret-path":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, r.URL.Path, "\x00\xff", r.URL.RawQuery)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		}
	})
	t.Cleanup(func() { close(stop) })
	for _, tt := range []struct {
		path, err string
		status    int
	}{
		{"/large", "", 200}, {"/slow", "", 200}, {"/never", "no answer in time", 0},
		{"/loop", "answered 302: redirects are not followed", 302}, {"/headers", "exceeded", 0}, {"/later", "answered 503 Service Unavailable", 503},
		{"/echo-the-secret-path?key=hidden-token", "answered 404 Not Found", 404}, {"/gone", "answered 410", 410},
	} {
		t.Run(tt.path, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			a, err := sender(nil).Send(ctx, message(s.URL+tt.path))
			if a.Status != tt.status || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Send = %d, %v, want %d, %q", a.Status, err, tt.status, tt.err)
			}
			if len(a.Body) > AnswerMost || bytes.Contains(a.Body, []byte("secret")) || bytes.Contains(a.Body, []byte("hidden")) {
				t.Errorf("kept is %.80q, of %d bytes", a.Body, len(a.Body))
			}
			if tt.path == "/later" && a.RetryAfter != 2*time.Minute || tt.path == "/gone" && !a.Gone {
				t.Errorf("the answer is %+v", a)
			}
		})
	}
	if loops != 1 {
		t.Errorf("the redirect was followed %d times", loops-1)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if _, err := sender(roots).Send(t.Context(), message(s.URL)); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	if _, err := sender(nil).Send(t.Context(), message(s.URL)); err == nil || !strings.Contains(err.Error(), "its certificate cannot be verified: ") {
		t.Errorf("of an unknown authority: %v", err)
	}
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	m := message("https://localhost:" + port)
	m.Spec.AllowPrivate = true
	if _, err := sender(roots).Send(t.Context(), m); err == nil || !strings.Contains(err.Error(), "its certificate is of another name") {
		t.Errorf("of another name: %v", err)
	}
}

func TestEnvironmentNamesNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	s := answering(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := sender(nil).Send(t.Context(), message(s.URL)); err != nil {
		t.Error(err)
	}
	for _, c := range []*http.Client{NewClients(nil).public, NewClients(nil).private} {
		if c.Transport.(*http.Transport).Proxy != nil {
			t.Error("a proxy is used")
		}
	}
}

func TestAddressThatIsNoneIsNotPrinted(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"hidden-secret", "ftp://hidden-secret/x", "http://[hidden-secret", "http:hidden-secret", "\x7fhidden-secret", ""} {
		a, err := sender(nil).Send(t.Context(), message(address))
		if err == nil || strings.Contains(err.Error(), "hidden") || !a.Permanent {
			t.Errorf("Send to %q = %+v, %v", address, a, err)
		}
	}
}

func FuzzHide(f *testing.F) {
	f.Add("not found: /services/T000/B000", "https://hooks.example/services/T000/B000?token=abcdefgh")
	f.Add("\xff\xfe", "https://user:password@hooks.example/")
	f.Fuzz(func(t *testing.T, text, address string) {
		u, err := url.Parse(address)
		if err != nil {
			return
		}
		got := hide([]byte(text), u)
		if len(got) > AnswerMost || !bytes.Equal(got, bytes.ToValidUTF8(got, nil)) {
			t.Errorf("hide(%q) = %q", text, got)
		}
		if len(u.RawQuery) >= hideLeast && !strings.Contains("***", u.RawQuery) && strings.Contains(clean(text, u), u.RawQuery) && !strings.ContainsAny(u.RawQuery, "*?… ") {
			t.Errorf("%q shows the query of %q", clean(text, u), address)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, h := range []string{"", "120", "-1", "99999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "x"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		if d := retryAfter(h, time.Unix(0, 0)); d < 0 || d > retryMost {
			t.Errorf("retryAfter(%q) = %v", h, d)
		}
	})
}
