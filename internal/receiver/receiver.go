// Package receiver takes webhooks in: bound, verify, read, decide, store,
// answer, in this order.
package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

// Bounds of a request.
const (
	bodyMost  = 25 << 20         // bytes: GitHub's cap
	bodyTime  = 30 * time.Second // for a whole body to come
	storeTime = 8 * time.Second  // GitHub gives up after 10 s
	depthMost = 1000             // levels of JSON
	keyMost   = 256              // bytes of a delivery's id
)

// Store keeps deliveries.
type Store interface {
	Accept(ctx context.Context, d *deploy.Delivery, runs []deploy.NewRun) (deploy.Receipt, error)
	Create(ctx context.Context, r deploy.NewRun, cancel []deploy.Move) (int64, error)
	Delivery(ctx context.Context, id int64) (*deploy.Delivery, error)
	Run(ctx context.Context, id int64) (*deploy.Run, error)
}

// Options are what a receiver is made of; all are needed.
type Options struct {
	Config     func() *deploy.Config
	Secret     func(ctx context.Context, s deploy.Secret) (string, error)
	Store      Store
	Log        *slog.Logger
	BodyMemory int64 // bytes of bodies in memory at once
}

// Receiver serves POST /hooks/NAME.
type Receiver struct {
	o       Options
	held    atomic.Int64 // bytes of bodies in memory
	refused *refusals
}

// New makes a receiver.
func New(o Options) *Receiver {
	return &Receiver{o: o, refused: newRefusals()}
}

// refusal is an answer that is no success: its sentence is for the sender and
// holds nothing secret.
type refusal struct {
	status  int
	message string
	retry   int // seconds, for Retry-After
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, message: fmt.Sprintf(format, args...)}
}

// answer is the JSON of every answer.
type answer struct {
	Delivery int64   `json:"delivery,omitempty"`
	Runs     []int64 `json:"runs"`
	Message  string  `json:"message"`
}

// ServeHTTP takes one request of /hooks/NAME.
func (rc *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	status, a, err := rc.take(w, r)
	var no *refusal
	switch {
	case errors.As(err, &no):
		status, a.Message = no.status, no.message
		if no.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(no.retry))
		}
		if rc.refused.sayIt() {
			rc.o.Log.Warn("request refused", "hook", hookName(r), "status", status, "err", no.message, "from", address(r))
		}
	case err != nil:
		// Nothing is stored, and GitHub does not come again by itself.
		status, a.Message = http.StatusServiceUnavailable, "the delivery could not be stored: redeliver it later"
		if errors.Is(err, deploy.ErrFull) {
			a.Message = "no space left on the server: redeliver it later"
		}
		w.Header().Set("Retry-After", "60")
		rc.o.Log.Error("storing a delivery", "hook", hookName(r), "err", err)
	default:
		rc.o.Log.Info("delivery answered", "delivery", a.Delivery, "hook", hookName(r), "status", status, "runs", len(a.Runs), "took", time.Since(began).Round(time.Microsecond))
	}
	if a.Runs == nil {
		a.Runs = []int64{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

// hookName is the name in the path, for a log line.
func hookName(r *http.Request) string {
	name := strings.TrimPrefix(r.URL.Path, "/hooks/")
	return name[:min(len(name), 64)]
}

// address is who sent the request.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// take carries a request through its checks, in the order of their cost.
func (rc *Receiver) take(w http.ResponseWriter, r *http.Request) (int, answer, error) {
	cfg := rc.o.Config()
	hook := cfg.Hook(strings.TrimPrefix(r.URL.Path, "/hooks/"))
	if hook == nil {
		return 0, answer{}, refuse(http.StatusNotFound, "there is no such hook: the path is /hooks/ and a name under hooks in deploy.yaml")
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return 0, answer{}, refuse(http.StatusMethodNotAllowed, "a webhook is a POST, not a %s", clip(r.Method))
	}
	body, free, err := rc.body(w, r)
	defer free()
	if err != nil {
		return 0, answer{}, err
	}
	payload, err := rc.verify(r, hook, body)
	if err != nil {
		return 0, answer{}, err
	}
	d, ev, err := read(r, hook, body, payload)
	if err != nil {
		return 0, answer{}, err
	}
	decision := deploy.Plan(cfg, ev)
	d.Message, d.Why = decision.Message, decision.Why
	// A sender that hangs up now has sent a good delivery all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTime)
	defer cancel()
	got, err := rc.o.Store.Accept(ctx, d, decision.Runs)
	if errors.Is(err, deploy.ErrConflict) {
		return 0, answer{}, refuse(http.StatusConflict, "a delivery with this id came before with another body: nothing is done")
	}
	if err != nil {
		return 0, answer{}, err
	}
	a := answer{Delivery: got.Delivery, Runs: got.Runs, Message: got.Message}
	switch {
	case got.Duplicate && len(got.Runs) > 0:
		a.Message = "this delivery is known: " + got.Message
		return http.StatusOK, a, nil
	case len(got.Runs) == 0:
		return http.StatusOK, a, nil
	}
	return http.StatusAccepted, a, nil
}

// body reads the body within its bounds. free gives back its share of the
// memory that all bodies together may take.
func (rc *Receiver) body(w http.ResponseWriter, r *http.Request) (body []byte, free func(), err error) {
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "the body is over 25 MiB")
	if r.ContentLength > bodyMost {
		return nil, func() {}, tooLarge
	}
	want := r.ContentLength
	if want < 0 {
		want = bodyMost // unknown: what it may come to
	}
	if rc.held.Add(want) > rc.o.BodyMemory {
		rc.held.Add(-want)
		e := refuse(http.StatusServiceUnavailable, "too many bodies at once: redeliver it later")
		e.retry = 10
		return nil, func() {}, e
	}
	free = func() { rc.held.Add(-want) }
	// Not every writer can set a deadline; the server's own bounds stay.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	reader := http.MaxBytesReader(w, r.Body, bodyMost)
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	var large *http.MaxBytesError
	var timeout net.Error
	switch {
	case err == nil:
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		return body, free, nil
	case errors.As(err, &large):
		return nil, free, tooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, free, refuse(http.StatusRequestTimeout, "the body did not come within %v", bodyTime)
	}
	return nil, free, refuse(http.StatusBadRequest, "the body was cut off")
}

// payloadOf gives the JSON of a body: as it is, or out of a form's payload.
func payloadOf(contentType string, body []byte) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = contentType
	}
	switch {
	case kind == "application/json", strings.HasSuffix(kind, "+json") && strings.HasPrefix(kind, "application/"):
		return body, nil
	case kind == "application/x-www-form-urlencoded":
		return formPayload(body)
	}
	return nil, refuse(http.StatusUnsupportedMediaType, "the content type must be application/json (or GitHub's form), not %s", clip(kind))
}

// formPayload takes payload= out of a form.
func formPayload(body []byte) ([]byte, error) {
	for part := range strings.SplitSeq(string(body), "&") {
		if value, ok := strings.CutPrefix(part, "payload="); ok {
			text, err := url.QueryUnescape(value)
			if err != nil {
				return nil, refuse(http.StatusBadRequest, "the form's payload is not encoded as forms are")
			}
			return []byte(text), nil
		}
	}
	return nil, refuse(http.StatusBadRequest, "the form has no payload")
}

// decode reads JSON of bounded depth.
func decode(payload []byte) (any, error) {
	if len(strings.TrimSpace(string(payload))) == 0 {
		return nil, refuse(http.StatusBadRequest, "the body is empty")
	}
	if !utf8.Valid(payload) {
		return nil, refuse(http.StatusBadRequest, "the body is not UTF-8")
	}
	if deeper(payload, depthMost) {
		return nil, refuse(http.StatusBadRequest, "the body is more than %d levels deep", depthMost)
	}
	var v any
	if err := json.Unmarshal(payload, &v); err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is not JSON")
	}
	return v, nil
}

// deeper says whether JSON has more levels than a bound, without following them.
func deeper(b []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// read makes a delivery and its event of a verified request.
func read(r *http.Request, hook *deploy.Hook, body, payload []byte) (*deploy.Delivery, *deploy.Event, error) {
	v, err := decode(payload)
	if err != nil {
		return nil, nil, err
	}
	p := providers[hook.Provider]
	sum := sha256.Sum256(body)
	d := &deploy.Delivery{
		Hook: hook.Name, Key: p.key(r), BodyHash: hex.EncodeToString(sum[:]), SameBody: p.signed && hook.Secret != nil,
		Event: clip(p.event(r)), Received: time.Now(), Body: payload,
	}
	if len(d.Key) > keyMost || !printable(d.Key) {
		return nil, nil, refuse(http.StatusBadRequest, "the delivery's id is over %d bytes or not printable", keyMost)
	}
	ev, err := p.read(d.Event, v)
	if err != nil {
		return nil, nil, err
	}
	ev.Hook = hook.Name
	if ev.Kind == deploy.Push && ev.Repository != "" && ev.Ref != "" {
		d.Push = &deploy.RefMove{Repository: ev.Repository, Ref: ev.Ref, Before: ev.Before, After: ev.After}
	}
	return d, ev, nil
}

// Read gives the event of a stored delivery: of the hook's provider, the
// event's name and the JSON.
func Read(provider, name string, payload []byte) (*deploy.Event, error) {
	p, ok := providers[provider]
	if !ok {
		return nil, fmt.Errorf("no provider %s", provider)
	}
	v, err := decode(payload)
	if err != nil {
		return nil, err
	}
	return p.read(name, v)
}

// Replay decides on a stored delivery anew, with today's config. A pipeline
// that the delivery started before is started again as a retry, which keeps
// its place in the lane unless force.
//
// Errors: [deploy.ErrNotFound]; [deploy.ErrRefused] when the body is not kept
// any more, or nothing starts.
func (rc *Receiver) Replay(ctx context.Context, id int64, force bool, actor string) (deploy.Receipt, error) {
	d, err := rc.o.Store.Delivery(ctx, id)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("delivery %d: %w", id, err)
	}
	if d.Body == nil {
		return deploy.Receipt{}, fmt.Errorf("%w: the body of delivery %d is not kept any more", deploy.ErrRefused, id)
	}
	cfg := rc.o.Config()
	hook := cfg.Hook(d.Hook)
	if hook == nil {
		return deploy.Receipt{}, fmt.Errorf("%w: there is no hook %s any more", deploy.ErrRefused, d.Hook)
	}
	ev, err := Read(hook.Provider, d.Event, d.Body)
	if err != nil {
		return deploy.Receipt{}, err
	}
	ev.Hook = hook.Name
	decision := deploy.Plan(cfg, ev)
	if len(decision.Runs) == 0 {
		return deploy.Receipt{}, fmt.Errorf("%w: %s", deploy.ErrRefused, decision.Message)
	}
	before := map[string]int64{} // the newest run of each pipeline
	for _, run := range d.Runs {
		old, err := rc.o.Store.Run(ctx, run)
		if err != nil {
			return deploy.Receipt{}, err
		}
		before[old.Pipeline] = max(before[old.Pipeline], run)
	}
	if len(before) == 0 {
		d.Message, d.Why = decision.Message, decision.Why
		if ev.Kind == deploy.Push && ev.Repository != "" {
			d.Push = &deploy.RefMove{Repository: ev.Repository, Ref: ev.Ref, Before: ev.Before, After: ev.After}
		}
		return rc.o.Store.Accept(ctx, d, decision.Runs)
	}
	got := deploy.Receipt{Delivery: id, Message: decision.Message}
	for _, r := range decision.Runs {
		r.Actor, r.Force = actor, force
		if old := before[r.Pipeline]; old != 0 {
			r.RetryOf, r.KeepOrder = old, !force
		} else {
			r.RetryOf, r.KeepOrder = slices.Min(d.Runs), !force
		}
		run, err := rc.o.Store.Create(ctx, r, nil)
		if err != nil {
			return got, err
		}
		got.Runs = append(got.Runs, run)
	}
	return got, nil
}

// clip makes an outsider's word fit into a sentence.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
