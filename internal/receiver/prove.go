package receiver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-playground/webhooks/v6/gitea"
	"github.com/go-playground/webhooks/v6/github"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
)

// prover reads how a request is signed, without believing it yet. Its error is
// a refusal: there is no signature, or none that could be right.
type prover func(h http.Header, s deploy.Signature, body []byte) (proof, error)

// proof is a signature that was read.
type proof struct {
	fits  func(secret string) bool // in constant time
	stale error                    // a refusal, when a right signature is too old or too new
}

// Sentences that several senders are answered.
const (
	missingSignature = "no signature: set the same secret on both sides, so that %s is sent"
	wrongSignature   = "wrong signature: the secret here is not the one that signed this body"
	manySignatures   = "more than one signature"
)

// one gives the only value of a header with a signature. Some send it empty
// who have no secret.
func one(h http.Header, name string, empty ...string) (string, error) {
	values := h.Values(name)
	if len(values) == 1 {
		for _, e := range append(empty, "") {
			if values[0] == e {
				values = nil
				break
			}
		}
	}
	switch len(values) {
	case 0:
		return "", refuse(http.StatusUnauthorized, missingSignature, name)
	case 1:
		return values[0], nil
	}
	return "", refuse(http.StatusUnauthorized, manySignatures)
}

// hexadecimal gives the 64 digits of an HMAC-SHA256 that stand after a prefix.
func hexadecimal(signature, prefix string) (string, error) {
	digits, ok := strings.CutPrefix(signature, prefix)
	if ok && len(digits) == 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == "" {
		return digits, nil
	}
	form := "64 hexadecimal digits in lower case"
	if prefix != "" {
		form = prefix + " and " + form
	}
	return "", refuse(http.StatusUnauthorized, "the signature is not %s", form)
}

// signed says whether hexadecimal digits are the HMAC-SHA256 of a body.
func signed(secret, digits string, body []byte) bool {
	return hmac.Equal([]byte(digits), []byte(macHex(sha256.New, secret, body)))
}

const signatureHeader = "X-Hub-Signature-256"

// proveGitHub reads HMAC-SHA256 over the raw body.
func proveGitHub(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	signature, err := one(h, signatureHeader, "sha256=")
	if err != nil {
		if old := h.Get(bitbucketHeader); len(h.Values(signatureHeader)) < 2 && old != "" && old != "sha1=" {
			err = refuse(http.StatusUnauthorized, "only the old SHA-1 signature is here: %s is wanted", signatureHeader)
		}
		return proof{}, err
	}
	digits, err := hexadecimal(signature, "sha256=")
	if err != nil {
		return proof{}, err
	}
	return proof{fits: func(secret string) bool { return fitsGitHub(signature, digits, secret, body) }}, nil
}

// verifyOnly is an event that the library does not know, and verified what it
// says of one once it has found the signature to be right.
const (
	verifyOnly = "deployhook-verify-only"
	verified   = "unknown event " + verifyOnly
)

// fitsGitHub verifies with the library, whose traps are closed first: the form
// of the header is checked before, the secret is not empty, and the event that
// it is told is always one of its list, since others go unverified.
func fitsGitHub(signature, digits, secret string, body []byte) bool {
	lib, err := github.New(github.Options.Secret(secret))
	if err != nil || secret == "" {
		return false
	}
	_, err = lib.Parse(request(body, "X-Github-Event", signatureHeader, signature), github.Event(verifyOnly))
	return libraryFits(err, github.ErrHMACVerificationFailed, secret, digits, body)
}

// request is what the library reads.
func request(body []byte, event, header, signature string) *http.Request {
	h := http.Header{}
	h.Set(event, verifyOnly)
	h.Set(header, signature)
	return &http.Request{Method: http.MethodPost, Body: io.NopCloser(bytes.NewReader(body)), Header: h}
}

// libraryFits reads the library's answer. It verifies what is in the list of
// events and then parses it; one that it has no struct for it only verifies.
// Its other errors say nothing of who sent the body: it verifies no empty one.
// What it did not refuse for the signature must have the right one all the same.
func libraryFits(err, wrong error, secret, digits string, body []byte) bool {
	if err != nil && err.Error() == verified {
		return true
	}
	return !errors.Is(err, wrong) && signed(secret, digits, body)
}

// proveGitea reads HMAC-SHA256 of the JSON, also where that came in a form.
func proveGitea(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	const name = "X-Gitea-Signature"
	signature, payload, err := signedJSON(h, name, body)
	if err != nil {
		return proof{}, err
	}
	return proof{fits: func(secret string) bool {
		lib, err := gitea.New(gitea.Options.Secret(secret))
		if err != nil || secret == "" {
			return false
		}
		_, err = lib.Parse(request(payload, "X-Gitea-Event", name, signature), gitea.Event(verifyOnly))
		return libraryFits(err, gitea.ErrHMACVerificationFailed, secret, signature, payload)
	}}, nil
}

// signedJSON gives the signature of Gitea, Forgejo and Gogs, in hexadecimal
// digits, and what they sign: the body, or what stands in payload= of a form.
func signedJSON(h http.Header, name string, body []byte) (digits string, payload []byte, err error) {
	signature, err := one(h, name)
	if err == nil {
		digits, err = hexadecimal(signature, "")
	}
	if err != nil || mediaType(h.Get("Content-Type")) != formType {
		return digits, body, err
	}
	if payload, err = formPayload(body); err != nil {
		err = refuse(http.StatusUnauthorized, "there is nothing that the signature could be of: %v", err)
	}
	return digits, payload, err
}

// proveGogs is as Gitea's. The library would bring a client of Gogs with it.
func proveGogs(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	digits, payload, err := signedJSON(h, "X-Gogs-Signature", body)
	if err != nil {
		return proof{}, err
	}
	return proof{fits: func(secret string) bool { return signed(secret, digits, payload) }}, nil
}

const bitbucketHeader = "X-Hub-Signature"

// proveBitbucket reads HMAC-SHA256 over the raw body. What the library compares
// for Bitbucket, X-Hook-UUID, is no secret.
func proveBitbucket(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	signature, err := one(h, bitbucketHeader, "sha256=")
	if err != nil {
		return proof{}, err
	}
	digits, err := hexadecimal(signature, "sha256=")
	if err != nil {
		return proof{}, err
	}
	return proof{fits: func(secret string) bool { return signed(secret, digits, body) }}, nil
}

// proveNothing is for those who sign nothing.
func proveNothing(http.Header, deploy.Signature, []byte) (proof, error) {
	return proof{}, refuse(http.StatusUnauthorized, "this kind of sender signs nothing: give the hook a token")
}

// proveAzure reads the user and password of basic authentication.
func proveAzure(h http.Header, _ deploy.Signature, _ []byte) (proof, error) {
	var logins []string
	for _, v := range h.Values("Authorization") {
		if kind, value, ok := strings.Cut(v, " "); ok && strings.EqualFold(kind, "Basic") {
			logins = append(logins, value)
		}
	}
	switch len(logins) {
	case 0:
		return proof{}, refuse(http.StatusUnauthorized, "no user and password: fill in both under basic authentication, as the hook's secret has them")
	case 1:
	default:
		return proof{}, refuse(http.StatusUnauthorized, "more than one user and password")
	}
	login, err := base64.StdEncoding.DecodeString(strings.TrimSpace(logins[0]))
	if err != nil {
		return proof{}, refuse(http.StatusUnauthorized, "user and password are not encoded as basic authentication has them")
	}
	return proof{fits: func(secret string) bool { return equal(string(login), secret) }}, nil
}

// equal compares two texts in constant time, also when they differ in length.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// hashes are those that a generic sender may sign with.
var hashes = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "sha1": sha1.New}

// proveGeneric reads an HMAC over the raw body as the config says it comes.
func proveGeneric(h http.Header, s deploy.Signature, body []byte) (proof, error) {
	signature, err := one(h, s.Header, s.Prefix)
	if err != nil {
		return proof{}, err
	}
	form := hashes[s.Algorithm]
	if form == nil {
		return proof{}, fmt.Errorf("no algorithm %q", s.Algorithm)
	}
	text, ok := strings.CutPrefix(signature, s.Prefix)
	var got []byte
	if s.Encoding == "base64" {
		got, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	} else {
		got, err = hex.DecodeString(text)
	}
	if n := form().Size(); !ok || err != nil || len(got) != n {
		return proof{}, refuse(http.StatusUnauthorized, "the signature in %s is not %q and %d bytes in %s", s.Header, s.Prefix, n, s.Encoding)
	}
	return proof{fits: func(secret string) bool {
		return hmac.Equal(got, mac(form, secret, body))
	}}, nil
}

// Bounds of signatures with a timestamp.
const (
	tolerance     = 5 * time.Minute // either way
	signatureMost = 4 << 10         // bytes of a list of signatures
	secondsMost   = 12              // digits of a timestamp
)

// proveStandard reads a signature of Standard Webhooks. A whsec_ secret is
// base64, others are the key as they are.
//
// Source: github.com/standard-webhooks/standard-webhooks, "Specification".
func proveStandard(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	seen := http.Header{}
	for _, name := range []string{standardwebhooks.HeaderWebhookID, standardwebhooks.HeaderWebhookTimestamp, standardwebhooks.HeaderWebhookSignature} {
		v, err := one(h, name)
		if err != nil {
			return proof{}, err
		}
		seen.Set(name, v)
	}
	signatures := seen.Get(standardwebhooks.HeaderWebhookSignature)
	if len(signatures) > signatureMost {
		return proof{}, refuse(http.StatusUnauthorized, "the list of signatures is over %d bytes", signatureMost)
	}
	if !strings.HasPrefix(signatures, "v1,") && !strings.Contains(signatures, " v1,") {
		return proof{}, refuse(http.StatusUnauthorized, "the signature is not v1, and base64")
	}
	at, err := seconds(seen.Get(standardwebhooks.HeaderWebhookTimestamp))
	if err != nil {
		return proof{}, err
	}
	return proof{stale: stale(at, time.Now()), fits: func(secret string) bool {
		key, ok := standardKey(secret)
		if !ok {
			return false
		}
		lib, err := standardwebhooks.NewWebhookRaw(key)
		// The library's own check of the time does not say by how much it is off.
		return err == nil && lib.VerifyIgnoringTimestamp(body, seen) == nil
	}}, nil
}

// standardKey is the key in a secret.
func standardKey(secret string) ([]byte, bool) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret), secret != ""
	}
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	return key, err == nil && len(key) > 0
}

// seconds reads a timestamp.
func seconds(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || len(s) > secondsMost || n < 0 || s[0] == '+' {
		return time.Time{}, refuse(http.StatusUnauthorized, "the timestamp is not seconds since 1970")
	}
	return time.Unix(n, 0), nil
}

// stale gives the refusal of what was signed too long ago, or not yet.
func stale(at, now time.Time) error {
	off, way := now.Sub(at).Truncate(time.Second), "old"
	if off < 0 {
		off, way = -off, "in the future"
	}
	if off <= tolerance {
		return nil
	}
	return refuse(http.StatusUnauthorized, "the timestamp is %v %s, %v more than is allowed: is one of the two clocks wrong, or is this a replay", off, way, off-tolerance)
}

const stripeHeader = "Stripe-Signature"

// proveStripe reads Stripe's t= and v1=, of which there are several while a
// secret is rotated. Its secret, whsec_ and all, is the key as it is.
//
// Source: Stripe docs, "Resolve webhook signature verification errors",
// section "Verify manually".
func proveStripe(h http.Header, _ deploy.Signature, body []byte) (proof, error) {
	signature, err := one(h, stripeHeader)
	if err != nil {
		return proof{}, err
	}
	if len(signature) > signatureMost {
		return proof{}, refuse(http.StatusUnauthorized, "the list of signatures is over %d bytes", signatureMost)
	}
	var times, list []string
	for part := range strings.SplitSeq(signature, ",") {
		switch key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key {
		case "t":
			times = append(times, value)
		case "v1":
			list = append(list, value)
		}
	}
	if len(times) != 1 || len(list) == 0 {
		return proof{}, refuse(http.StatusUnauthorized, "the signature is not one t= and at least one v1=")
	}
	at, err := seconds(times[0])
	if err != nil {
		return proof{}, err
	}
	return proof{stale: stale(at, time.Now()), fits: func(secret string) bool {
		want := []byte(macHex(sha256.New, secret, []byte(times[0]+"."), body))
		right := false
		for _, got := range list {
			right = hmac.Equal([]byte(got), want) || right
		}
		return right
	}}, nil
}
