package receiver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-playground/webhooks/v6/github"

	"deployhook/internal/deploy"
)

// verify checks who sent a body, over its raw bytes, before anything of it is
// read. It gives the values that it was checked against.
func (rc *Receiver) verify(r *http.Request, hook *deploy.Hook, body []byte) (values []string, err error) {
	values, err = rc.authentic(r, hook, body)
	var no *refusal
	if errors.As(err, &no) && rc.refused.tooMany(rc.address(r), time.Now()) {
		no = refuse(http.StatusTooManyRequests, "too many wrong signatures or tokens from this address")
		no.retry = int(refusalWindow.Seconds())
		return nil, no
	}
	return values, err
}

// authentic gives a refusal with 401, or errSecret, for what is not.
func (rc *Receiver) authentic(r *http.Request, hook *deploy.Hook, body []byte) (values []string, err error) {
	if hook.Secret == nil && hook.Token == nil {
		return nil, refuse(http.StatusUnauthorized, "this hook has neither secret nor token")
	}
	if hook.Token != nil {
		want, err := rc.secret(r.Context(), *hook.Token)
		if err != nil {
			return nil, err
		}
		if err := checkToken(r, want); err != nil {
			return nil, err
		}
		values = append(values, want)
	}
	if hook.Secret != nil {
		want, err := rc.secret(r.Context(), *hook.Secret)
		if err != nil {
			return nil, err
		}
		if err := checkGitHub(r.Header, want, body); err != nil {
			return nil, err
		}
		values = append(values, want)
	}
	return values, nil
}

// secretLeast is how many characters a secret or token has. It is checked when
// the config is read too, but a file may be another one since.
const secretLeast = 16

// errSecret is a hook's secret that cannot be read now.
var errSecret = errors.New("reading the hook's secret")

// secret reads a secret; one that cannot be read lets nobody in.
func (rc *Receiver) secret(ctx context.Context, s deploy.Secret) (string, error) {
	resolve := rc.o.Secret
	if s.Command != "" {
		resolve = func(ctx context.Context, s deploy.Secret) (string, error) {
			return rc.commands.resolve(ctx, s, rc.o.Secret)
		}
	}
	v, err := resolve(ctx, s)
	if n := utf8.RuneCountInString(v); err == nil && n < secretLeast {
		// The library takes an empty secret for "do not verify".
		err = fmt.Errorf("secret %s has %d characters, and %d are the least", s.Name, n, secretLeast)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errSecret, err)
	}
	return v, nil
}

// commandTime is how long the output of a secret's command is used.
const commandTime = 10 * time.Second

// commandSecrets keeps what commands said for a moment: requests of strangers
// must not start a process each.
type commandSecrets struct {
	mu    sync.Mutex
	known map[deploy.Secret]commandSecret
}

type commandSecret struct {
	value string
	err   error
	at    time.Time
}

func (c *commandSecrets) resolve(ctx context.Context, s deploy.Secret, run func(context.Context, deploy.Secret) (string, error)) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.known[s]
	if !ok || time.Since(k.at) > commandTime {
		// Others wait for the same command: it does not end with this sender.
		k.value, k.err = run(context.WithoutCancel(ctx), s)
		k.at = time.Now()
		if c.known == nil || !ok && len(c.known) >= 100 {
			c.known = map[deploy.Secret]commandSecret{}
		}
		c.known[s] = k
	}
	return k.value, k.err
}

// checkToken compares the one token of a request in constant time.
func checkToken(r *http.Request, want string) error {
	got := queryTokens(r.URL.RawQuery) // for each token what it may mean
	for _, h := range r.Header.Values("Authorization") {
		if kind, value, ok := strings.Cut(h, " "); ok && strings.EqualFold(kind, "Bearer") {
			got = append(got, []string{strings.TrimSpace(value)})
		}
	}
	for _, value := range r.Header.Values("X-Deployhook-Token") {
		got = append(got, []string{value})
	}
	switch {
	case len(got) == 0:
		return refuse(http.StatusUnauthorized, "no token: give it as ?token=, or in the header Authorization: Bearer")
	case len(got) > 1:
		return refuse(http.StatusUnauthorized, "more than one token: give it in one place")
	}
	right := 0
	b := sha256.Sum256([]byte(want))
	for _, value := range got[0] {
		a := sha256.Sum256([]byte(value))
		right |= subtle.ConstantTimeCompare(a[:], b[:])
	}
	if right != 1 {
		return refuse(http.StatusUnauthorized, "wrong token")
	}
	return nil
}

// queryTokens finds token= and secret= in a query. A + means a space in a form
// and itself elsewhere, and tokens in base64 have some: both are tried.
func queryTokens(query string) (list [][]string) {
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		if k, err := url.QueryUnescape(key); err != nil || k != "token" && k != "secret" {
			continue
		}
		var means []string
		for _, unescape := range []func(string) (string, error){url.QueryUnescape, url.PathUnescape} {
			if v, err := unescape(value); err == nil {
				means = append(means, v)
			}
		}
		list = append(list, means)
	}
	return list
}

const signatureHeader = "X-Hub-Signature-256"

// checkGitHub verifies HMAC-SHA256 over the raw body with the library, whose
// traps are closed first: the form of the header is checked here, and the
// event that it is told is always one of its list, since others go unverified.
func checkGitHub(h http.Header, secret string, body []byte) error {
	signatures := h.Values(signatureHeader)
	if len(signatures) == 1 && (signatures[0] == "" || signatures[0] == "sha256=") {
		signatures = nil // what some send who have no secret
	}
	switch old := h.Get("X-Hub-Signature"); {
	case len(signatures) == 0 && old != "" && old != "sha1=":
		return refuse(http.StatusUnauthorized, "only the old SHA-1 signature is here: %s is wanted", signatureHeader)
	case len(signatures) == 0:
		return refuse(http.StatusUnauthorized, "no signature: set the same secret on both sides, so that %s is sent", signatureHeader)
	case len(signatures) > 1:
		return refuse(http.StatusUnauthorized, "more than one signature")
	}
	digits, ok := strings.CutPrefix(signatures[0], "sha256=")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return refuse(http.StatusUnauthorized, "the signature is not sha256= and 64 hexadecimal digits in lower case")
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
	_, err = lib.Parse(req, github.Event(verifyOnly))
	if err != nil && err.Error() == verified {
		return nil
	}
	// Its other errors say nothing of who sent the body: it verifies no empty
	// one. What it did not refuse for the signature must have the right one
	// all the same.
	if errors.Is(err, github.ErrHMACVerificationFailed) || !signed(secret, digits, body) {
		return refuse(http.StatusUnauthorized, "wrong signature: the secret here is not the one that signed this body")
	}
	return nil
}

// signed says whether hexadecimal digits are the HMAC-SHA256 of a body.
func signed(secret, digits string, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hmac.Equal([]byte(digits), []byte(hex.EncodeToString(mac.Sum(nil))))
}

// verifyOnly is an event that the library does not know, and verified what it
// says of one once it has found the signature to be right.
const (
	verifyOnly = "deployhook-verify-only"
	verified   = "unknown event " + verifyOnly
)

// Bounds of remembering who was refused.
const (
	refusalWindow = time.Minute
	refusalMost   = 60                     // wrong signatures and tokens of an address within the window
	refusalHosts  = 10_000                 // addresses
	sayEvery      = 200 * time.Millisecond // a log line of a hook and status
)

// refusals counts wrong signatures and tokens by address. A right one is
// never limited.
type refusals struct {
	mu    sync.Mutex
	since time.Time
	count map[string]int
	said  map[kind]said
}

// kind is what one log line in a while is enough of. One kind never keeps
// another out of the log: who tries addresses would hide GitHub's wrong secret.
type kind struct {
	hook   string // of deploy.yaml: a stranger can name no new one
	status int    // of the answer; 0: the hook's secret cannot be read
}

// said is the last line of a kind.
type said struct {
	at     time.Time
	unsaid int // refused since
}

// tooMany counts a refused request.
func (f *refusals) tooMany(from string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil || now.Sub(f.since) > refusalWindow {
		f.since, f.count = now, map[string]int{}
	}
	if len(f.count) >= refusalHosts && f.count[from] == 0 {
		return false // the table is full: the answer is 401 as before
	}
	f.count[from]++
	return f.count[from] > refusalMost
}

// sayIt bounds the log lines that strangers can cause: it says whether this
// refusal is to be logged, and gives what the line is to end with when others
// of its kind were not since the last.
func (f *refusals) sayIt(k kind, now time.Time) (unlogged []any, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, known := f.said[k]
	if known && now.Sub(last.at) < sayEvery {
		last.unsaid++
		f.said[k] = last
		return nil, false
	}
	if f.said == nil {
		f.said = map[kind]said{}
	}
	f.said[k] = said{at: now}
	if last.unsaid > 0 {
		unlogged = []any{"unlogged", last.unsaid}
	}
	return unlogged, true
}
