package receiver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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

// authentic gives a refusal with 401, or errSecret, for what is not. Of several
// secrets or tokens any one counts: they are being rotated.
func (rc *Receiver) authentic(r *http.Request, hook *deploy.Hook, body []byte) (values []string, err error) {
	if len(hook.Secrets) == 0 && len(hook.Tokens) == 0 {
		return nil, refuse(http.StatusUnauthorized, "this hook has neither secret nor token")
	}
	if len(hook.Tokens) > 0 {
		want, unread := rc.readable(r.Context(), hook.Tokens)
		if len(want) == 0 {
			return nil, unread
		}
		if err := checkToken(r, hook.Provider, want); err != nil {
			return nil, either(err, unread)
		}
		values = append(values, want...)
	}
	if len(hook.Secrets) > 0 {
		want, unread := rc.readable(r.Context(), hook.Secrets)
		if len(want) == 0 {
			return nil, unread
		}
		if err := checkSignature(r.Header, hook, want, body); err != nil {
			return nil, either(err, unread)
		}
		values = append(values, want...)
	}
	return values, nil
}

// errWrong is a refusal of a signature or token that another secret may fit.
type errWrong struct{ *refusal }

func (e errWrong) Unwrap() error { return e.refusal }

// either gives the refusal of a request, unless the secret that cannot be read
// may be the one that it fits.
func either(refused, unread error) error {
	if unread != nil && errors.As(refused, new(errWrong)) {
		return unread
	}
	return refused
}

// checkSignature holds the one signature of a request against secrets.
func checkSignature(h http.Header, hook *deploy.Hook, secrets []string, body []byte) error {
	p, err := providers[hook.Provider].prove(h, hook.Signature, body)
	if err != nil {
		return err
	}
	for _, secret := range secrets {
		if p.fits(secret) {
			return p.stale
		}
	}
	if hook.Provider == "azure" {
		return errWrong{refuse(http.StatusUnauthorized, "wrong user or password")}
	}
	return errWrong{refuse(http.StatusUnauthorized, wrongSignature)}
}

// readable reads secrets, and gives the error of those that cannot be read
// beside the values of the others.
func (rc *Receiver) readable(ctx context.Context, secrets []deploy.Secret) (values []string, unread error) {
	for _, s := range secrets {
		v, err := rc.secret(ctx, s)
		if err != nil {
			unread = err
			continue
		}
		values = append(values, v)
	}
	return values, unread
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
func checkToken(r *http.Request, provider string, wanted []string) error {
	where := "as ?token=, or in the header Authorization: Bearer"
	var got [][]string // for each token what it may mean
	if provider == "gitlab" {
		where = "in X-Gitlab-Token: fill in the webhook's secret token"
		for _, value := range r.Header.Values("X-Gitlab-Token") {
			got = append(got, []string{value})
		}
	} else {
		got = tokens(r)
	}
	switch {
	case len(got) == 0:
		return refuse(http.StatusUnauthorized, "no token: give it %s", where)
	case len(got) > 1:
		return refuse(http.StatusUnauthorized, "more than one token: give it in one place")
	}
	right := false
	for _, value := range got[0] {
		for _, want := range wanted {
			right = equal(value, want) || right
		}
	}
	if !right {
		return errWrong{refuse(http.StatusUnauthorized, "wrong token")}
	}
	return nil
}

// tokens finds the tokens of a request.
func tokens(r *http.Request) [][]string {
	got := queryTokens(r.URL.RawQuery)
	for _, h := range r.Header.Values("Authorization") {
		if kind, value, ok := strings.Cut(h, " "); ok && strings.EqualFold(kind, "Bearer") {
			got = append(got, []string{strings.TrimSpace(value)})
		}
	}
	for _, value := range r.Header.Values("X-Deployhook-Token") {
		got = append(got, []string{value})
	}
	return got
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
