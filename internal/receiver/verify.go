package receiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-playground/webhooks/v6/github"

	"deployhook/internal/deploy"
)

// verify checks who sent a body, over its raw bytes, before anything of it is
// read; then it gives the JSON.
func (rc *Receiver) verify(r *http.Request, hook *deploy.Hook, body []byte) ([]byte, error) {
	from := address(r)
	if err := rc.authentic(r, hook, body); err != nil {
		var no *refusal
		if errors.As(err, &no) && no.status == http.StatusUnauthorized && rc.refused.tooMany(from, time.Now()) {
			e := refuse(http.StatusTooManyRequests, "too many wrong signatures or tokens from this address")
			e.retry = int(refusalWindow.Seconds())
			return nil, e
		}
		return nil, err
	}
	return payloadOf(r.Header.Get("Content-Type"), body)
}

func (rc *Receiver) authentic(r *http.Request, hook *deploy.Hook, body []byte) error {
	if hook.Secret == nil && hook.Token == nil {
		return refuse(http.StatusUnauthorized, "this hook has neither secret nor token")
	}
	if hook.Token != nil {
		want, err := rc.secret(r.Context(), *hook.Token)
		if err != nil {
			return err
		}
		if err := checkToken(r, want); err != nil {
			return err
		}
	}
	if hook.Secret != nil {
		want, err := rc.secret(r.Context(), *hook.Secret)
		if err != nil {
			return err
		}
		return checkGitHub(r.Header, want, body)
	}
	return nil
}

// secret reads a secret; one that cannot be read lets nobody in.
func (rc *Receiver) secret(ctx context.Context, s deploy.Secret) (string, error) {
	v, err := rc.o.Secret(ctx, s)
	if err != nil {
		return "", err
	}
	if v == "" {
		// The library takes an empty secret for "do not verify".
		return "", errors.New("the hook's secret is empty")
	}
	return v, nil
}

// checkToken compares the one token of a request in constant time.
func checkToken(r *http.Request, want string) error {
	var got []string
	query := r.URL.Query()
	got = append(append(got, query["token"]...), query["secret"]...)
	for _, h := range r.Header.Values("Authorization") {
		if kind, value, ok := strings.Cut(h, " "); ok && strings.EqualFold(kind, "Bearer") {
			got = append(got, strings.TrimSpace(value))
		}
	}
	got = append(got, r.Header.Values("X-Deployhook-Token")...)
	switch {
	case len(got) == 0:
		return refuse(http.StatusUnauthorized, "no token: give it as ?token=, or in the header Authorization: Bearer")
	case len(got) > 1:
		return refuse(http.StatusUnauthorized, "more than one token: give it in one place")
	}
	a, b := sha256.Sum256([]byte(got[0])), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return refuse(http.StatusUnauthorized, "wrong token")
	}
	return nil
}

const signatureHeader = "X-Hub-Signature-256"

// checkGitHub verifies HMAC-SHA256 over the raw body with the library, whose
// traps are closed first: its form of the header is checked here, and it is
// told the request's own event, since one outside its list goes unverified.
func checkGitHub(h http.Header, secret string, body []byte) error {
	signatures := h.Values(signatureHeader)
	switch {
	case len(signatures) == 0 && h.Get("X-Hub-Signature") != "":
		return refuse(http.StatusUnauthorized, "only the old SHA-1 signature is here: %s is wanted", signatureHeader)
	case len(signatures) == 0:
		return refuse(http.StatusUnauthorized, "no signature: set the same secret on both sides, so that %s is sent", signatureHeader)
	case len(signatures) > 1:
		return refuse(http.StatusUnauthorized, "more than one signature")
	}
	digits, ok := strings.CutPrefix(signatures[0], "sha256=")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return refuse(http.StatusUnauthorized, "the signature is not sha256= and 64 hexadecimal digits")
	}
	lib, err := github.New(github.Options.Secret(secret))
	if err != nil {
		return err
	}
	// The library reads a request. It verifies what is in the list of events
	// and then parses it; one that it has no struct for it only verifies.
	req := &http.Request{Method: http.MethodPost, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{
		"X-Github-Event": {verifyOnly}, signatureHeader: {signatures[0]},
	}}
	if len(body) == 0 {
		return refuse(http.StatusUnauthorized, "the body is empty, so nothing of it can be verified")
	}
	_, err = lib.Parse(req, github.Event(verifyOnly))
	for _, before := range []error{
		github.ErrHMACVerificationFailed, github.ErrMissingHubSignatureHeader, github.ErrParsingPayload, github.ErrEventNotFound,
		github.ErrEventNotSpecifiedToParse, github.ErrInvalidHTTPMethod, github.ErrMissingGithubEventHeader,
	} {
		if errors.Is(err, before) {
			return refuse(http.StatusUnauthorized, "wrong signature: the secret here is not the one that signed this body")
		}
	}
	return nil // what is left is that it has no struct for this event
}

// verifyOnly is an event that the library does not know.
const verifyOnly = "deployhook-verify-only"

// Bounds of remembering who was refused.
const (
	refusalWindow = time.Minute
	refusalMost   = 60     // refused requests of an address within the window
	refusalHosts  = 10_000 // addresses
	sayEvery      = 200 * time.Millisecond
)

// refusals counts wrong signatures and tokens by address. A right one is
// never limited.
type refusals struct {
	mu    sync.Mutex
	since time.Time
	count map[string]int
	said  time.Time
}

func newRefusals() *refusals { return &refusals{count: map[string]int{}} }

func (f *refusals) tooMany(from string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) > refusalWindow {
		f.since = now
		clear(f.count)
	}
	if len(f.count) >= refusalHosts && f.count[from] == 0 {
		return false // the table is full: the answer is 401 as before
	}
	f.count[from]++
	return f.count[from] > refusalMost
}

// sayIt bounds the log lines that strangers can cause.
func (f *refusals) sayIt() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.said) >= sayEvery {
		f.said = now
		return true
	}
	return false
}
