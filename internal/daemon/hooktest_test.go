package daemon_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// What stands in front may do anything to a delivery: the test says what a
// sender would see, and never has another daemon start something.
func TestHookIsTestedAsItsSenderSeesIt(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	passing := func(change func(w http.ResponseWriter, r *http.Request) bool) http.Handler {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.addr})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if change == nil || change(w, r) {
				proxy.ServeHTTP(w, r)
			}
		})
	}
	fronts := []struct {
		name   string
		h      http.Handler
		public []string // for each try the status, whether it is ok, and a part of its sentence
	}{
		{"passes on", passing(nil), []string{"401 true wrong signature", "200 true nothing is stored"}},
		{"redirects", http.RedirectHandler("https://elsewhere.example/", http.StatusMovedPermanently), []string{"301 false a sender does not follow"}},
		{"is another site", http.NotFoundHandler(), []string{"404 false not by this daemon"}},
		{"is another daemon", httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: other.addr}), []string{"401 false not by this daemon"}},
		{"drops the signature", passing(func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("X-Hub-Signature-256"); return true }),
			[]string{"401 true no signature", "401 false changes or drops headers"}},
		{"changes bodies", passing(func(_ http.ResponseWriter, r *http.Request) bool {
			b, _ := io.ReadAll(r.Body)
			b = append(b, '\n')
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(b))), int64(len(b))
			return true
		}), []string{"401 false changes bodies", "401 false changes bodies"}},
		{"limits the size", passing(func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return false
		}), []string{"413 false not by this daemon"}},
		{"asks for a login", passing(func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}), []string{"401 false not by this daemon"}},
	}
	other.start(other.config(""))
	for _, f := range fronts {
		front := httptest.NewServer(f.h)
		s.startAt(front.URL)
		got := s.hookTest("github")
		front.Close()
		if len(got) != 2+len(f.public) {
			t.Fatalf("%s: the tries are %+v", f.name, got)
		}
		for i, want := range append([]string{"401 true wrong signature", "200 true nothing is stored"}, f.public...) {
			parts := strings.SplitN(want, " ", 3)
			try := got[i]
			if fmt.Sprintf("%d %t", try.Status, try.OK) != parts[0]+" "+parts[1] || !strings.Contains(try.Text, parts[2]) || try.OK == (try.Fix != "") {
				t.Errorf("%s: try %d is %+v, want %q", f.name, i, try, want)
			}
		}
		s.stop()
	}
	// Over TLS: a certificate that nobody signed, and then one that is trusted.
	front := httptest.NewUnstartedServer(passing(nil))
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	defer front.Close()
	s.startAt(front.URL)
	if got := s.hookTest("github"); len(got) != 3 || got[2].OK || got[2].Status != 0 || !strings.Contains(got[2].Text, "no answer: its TLS certificate is signed by nobody") {
		t.Errorf("a certificate of nobody: %+v", got)
	}
	s.stop()
	trusted := s.path("ca.pem")
	s.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})))
	s.startAt(front.URL, "SSL_CERT_FILE="+trusted, "SSL_CERT_DIR="+os.DevNull)
	if got := s.hookTest("webhook"); len(got) != 4 || !got[3].OK || got[3].Status != 200 || !strings.HasPrefix(got[3].TLS, tls.VersionName(tls.VersionTLS13)+", certificate until ") {
		t.Errorf("a certificate that is trusted: %+v", got)
	}
	for _, at := range []*site{s, other} {
		if list, err := at.client.Deliveries(t.Context(), web.Query{}); err != nil || len(list) != 0 {
			t.Errorf("stored is %+v, %v", list, err)
		}
		if strings.Contains(at.log.String(), secret) {
			t.Error("the log has the secret")
		}
	}
}

// startAt starts the daemon with a public address.
func (s *site) startAt(public string, env ...string) {
	s.t.Helper()
	s.start(strings.Replace(s.config(""), "server: {", "server: { url: "+public+",", 1), env...)
}

func (s *site) hookTest(name string) []deploy.HookTry {
	s.t.Helper()
	got, err := s.client.TestHook(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return got.Tries
}
