package receiver_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

// trial sends a trial as it is, or changed.
func (x *fixture) trial(hook string, right bool, change func(*http.Request)) (reply, receiver.TrialOutcome) {
	x.t.Helper()
	trial, err := x.rc.Trial(x.t.Context(), hook, right)
	if err != nil {
		x.t.Fatal(err)
	}
	defer trial.Close()
	req, err := trial.Request(x.t.Context(), x.URL)
	if err != nil {
		x.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	return x.do(req), trial.Outcome()
}

// stored counts deliveries and runs.
func (x *fixture) stored() int {
	x.t.Helper()
	d, err := x.store.Deliveries(x.t.Context(), deploy.DeliveryFilter{Limit: 100})
	if err != nil {
		x.t.Fatal(err)
	}
	r, err := x.store.Runs(x.t.Context(), deploy.RunFilter{Limit: 100})
	if err != nil {
		x.t.Fatal(err)
	}
	return len(d) + len(r)
}

func TestTrialIsVerifiedAndStartsNothing(t *testing.T) {
	x := start(t)
	t.Setenv("TEST_WHSEC", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
	text := strings.Replace(file, "hooks:\n", `hooks:
  rotated: { provider: generic, secret: [ { environment: NOT_THERE }, { environment: TEST_SECRET } ] }
  base64: { provider: generic, secret: { environment: TEST_SECRET }, signature: { header: X-Signature, algorithm: sha512, encoding: base64, prefix: "v0=" } }
  whsec: { provider: standard, secret: { environment: TEST_WHSEC } }
  whstripe: { provider: stripe, secret: { environment: TEST_WHSEC } }
`, 1)
	for _, provider := range deploy.Providers {
		key := "secret"
		if provider == "gitlab" {
			key = "token"
		}
		text = strings.Replace(text, "hooks:\n", fmt.Sprintf("hooks:\n  a-%s: { provider: %[1]s, %s: { environment: TEST_SECRET } }\n", provider, key), 1)
	}
	x.use(text)
	for _, h := range x.cfg.Load().Hooks {
		if r, o := x.trial(h.Name, true, nil); r.status != 200 || len(r.Runs) != 0 || !strings.Contains(r.Message, "nothing is stored") || !o.Verified || o.Changed || o.From != "127.0.0.1" {
			t.Errorf("%s: the right one was answered %+v and is %+v", h.Name, r, o)
		}
		want := 401
		if h.Name == "rotated" {
			want = 503 // a secret that cannot be read may be the one that fits
		}
		if r, o := x.trial(h.Name, false, nil); r.status != want || o.Verified || o.From != "127.0.0.1" {
			t.Errorf("%s: the wrong one was answered %+v and is %+v", h.Name, r, o)
		}
	}
	if n := x.stored(); n != 0 {
		t.Errorf("%d deliveries and runs are stored", n)
	}
}

// The header of a trial opens nothing: without the signature it is refused, and
// it makes no test of what is none.
func TestTrialIsNoWayAroundASignature(t *testing.T) {
	x := start(t)
	if r, o := x.trial("github", true, func(req *http.Request) { req.Header.Del("X-Hub-Signature-256") }); r.status != 401 || o.Verified {
		t.Errorf("without its signature: %+v, %+v", r, o)
	}
	if r, o := x.trial("github", true, func(req *http.Request) {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(`{"zen":"another"}`)), 17
	}); r.status != 401 || !o.Changed {
		t.Errorf("with another body: %+v, %+v", r, o)
	}
	if r, o := x.trial("github", true, func(req *http.Request) { req.URL.Path = "/hooks/webhook" }); r.status != 401 || o.From != "" {
		t.Errorf("at another hook: %+v, %+v", r, o)
	}
	// A delivery with an id that nobody made is a delivery.
	if r := x.send("/hooks/webhook?token="+token, []byte(`{"type":"payment.approved"}`), receiver.TrialHeader, strings.Repeat("0", 32)); r.status != 202 {
		t.Errorf("a delivery that says it is a test: %+v", r)
	}
	// And so is one with an id that was used, or is no test any more.
	trial, err := x.rc.Trial(t.Context(), "webhook", true)
	if err != nil {
		t.Fatal(err)
	}
	req, err := trial.Request(t.Context(), x.URL)
	if err != nil {
		t.Fatal(err)
	}
	id := req.Header.Get(receiver.TrialHeader)
	if r := x.do(req); r.status != 200 || len(r.Runs) != 0 {
		t.Errorf("the trial: %+v", r)
	}
	for _, what := range []string{"used", "closed"} {
		if r := x.send("/hooks/webhook?token="+token, []byte(`{"type":"payment.approved"}`), receiver.TrialHeader, id); r.status != 202 {
			t.Errorf("with an id that is %s: %+v", what, r)
		}
		trial.Close()
	}
}

func TestTrialsAreBounded(t *testing.T) {
	x := start(t)
	if _, err := x.rc.Trial(t.Context(), "githbu", true); !errors.Is(err, deploy.ErrNotFound) || !strings.Contains(err.Error(), `did you mean "github"?`) {
		t.Errorf("no such hook: %v", err)
	}
	var open []*receiver.Trial
	for {
		trial, err := x.rc.Trial(t.Context(), "github", false)
		if errors.Is(err, deploy.ErrRefused) {
			break
		}
		if open = append(open, trial); err != nil || len(open) > 1000 {
			t.Fatalf("%d are open: %v", len(open), err)
		}
	}
	for _, trial := range open {
		trial.Close()
	}
	if _, o := x.trial("github", true, nil); !o.Verified {
		t.Error("after all were closed there is no place for another")
	}
}
