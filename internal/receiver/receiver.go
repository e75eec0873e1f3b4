// Package receiver takes webhooks in: bound, verify, read, decide, store,
// answer, in this order.
package receiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"deployhook/internal/deploy"
)

// Bounds of a request.
const (
	bodyMost  = 25 << 20         // bytes: GitHub's cap
	bodyFirst = 16 << 10         // bytes of the first piece, when there may be more
	bodyLarge = 1 << 20          // bytes from which only one body at a time is decoded
	bodyTime  = 30 * time.Second // for a whole body to come
	storeTime = 8 * time.Second  // GitHub gives up after 10 s
	depthMost = 1000             // levels of JSON
	keyMost   = 256              // bytes of a delivery's id
)

// Seconds of Retry-After.
const (
	retryMemory = 10 // too many bodies at once
	retryStore  = 60 // disk full, secret not readable
)

// Store keeps deliveries.
type Store interface {
	Accept(ctx context.Context, d *deploy.Delivery, runs []deploy.NewRun) (deploy.Receipt, error)
	Create(ctx context.Context, r deploy.NewRun, cancel []deploy.Move) (int64, error)
	Delivery(ctx context.Context, id int64) (*deploy.Delivery, error)
	Run(ctx context.Context, id int64) (*deploy.Run, error)
}

// Options are what a receiver is made of; all but Ranges, Proxies and Allowed are needed.
type Options struct {
	Config     func() *deploy.Config
	Secret     func(ctx context.Context, s deploy.Secret) (string, error)
	Store      Store
	Log        *slog.Logger
	BodyMemory int64 // bytes of bodies in memory at once
	// Ranges gives the networks that a service publishes, by its name; nil
	// where no hook names one.
	Ranges func(name string) ([]netip.Prefix, error)
	// Proxies are whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// Allowed says whether a run that a replay asks for may start, and
	// otherwise why not.
	Allowed func(ctx context.Context, r *deploy.NewRun) error
}

// Receiver serves POST /hooks/NAME.
type Receiver struct {
	o        Options
	memory   memory
	large    chan struct{} // holds one while a large body is verified and read
	refused  refusals
	commands commandSecrets
	trials   trials
}

// New makes a receiver.
func New(o Options) *Receiver {
	return &Receiver{o: o, memory: memory{most: o.BodyMemory}, large: make(chan struct{}, 1)}
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
	// The deadline counts from here, so that also the body of a request that
	// is refused unread cannot keep its connection for long. Not every writer
	// can set one; the server's own bounds stay then.
	_ = http.NewResponseController(w).SetReadDeadline(began.Add(bodyTime))
	status, a, err := rc.take(w, r)
	if err != nil {
		status, a = rc.refusal(w, r, err)
	} else {
		took := time.Since(began).Round(time.Microsecond)
		if a.Delivery == 0 {
			rc.o.Log.Info("test of a hook accepted", "hook", hookName(r), "status", status, "from", rc.address(r), "took", took)
		} else {
			rc.o.Log.Info("delivery accepted", "delivery", a.Delivery, "hook", hookName(r), "status", status, "runs", a.Runs, "from", rc.address(r), "took", took)
		}
	}
	if a.Runs == nil {
		a.Runs = []int64{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if b, err := json.Marshal(a); err == nil {
		_, _ = w.Write(append(b, '\n'))
	}
}

// refusal turns an error into an answer and a log line. Whatever a stranger
// can bring about is logged at a bounded rate.
func (rc *Receiver) refusal(w http.ResponseWriter, r *http.Request, err error) (int, answer) {
	var no *refusal
	switch {
	case errors.As(err, &no):
		k := kind{status: no.status}
		if no.status != http.StatusNotFound {
			k.hook = hookName(r)
		}
		if unlogged, ok := rc.refused.sayIt(k, time.Now()); ok {
			rc.o.Log.Warn("request refused", append([]any{"hook", hookName(r), "status", no.status, "err", no.message, "from", rc.address(r)}, unlogged...)...)
		}
	case errors.Is(err, errRanges):
		no = refuse(http.StatusServiceUnavailable, "who may send cannot be read on the server, whose log says why: redeliver it later")
		no.retry = retryStore
		if unlogged, ok := rc.refused.sayIt(kind{hook: hookName(r)}, time.Now()); ok {
			rc.o.Log.Error("looking who may send", append([]any{"hook", hookName(r), "err", err}, unlogged...)...)
		}
	case errors.Is(err, errSecret):
		no = refuse(http.StatusServiceUnavailable, "the hook's secret cannot be read on the server, whose log says why: redeliver it later")
		no.retry = retryStore
		if unlogged, ok := rc.refused.sayIt(kind{hook: hookName(r)}, time.Now()); ok {
			rc.o.Log.Error("verifying a delivery", append([]any{"hook", hookName(r), "err", err}, unlogged...)...)
		}
	default:
		// Nothing is stored, and GitHub does not come again by itself.
		no = refuse(http.StatusServiceUnavailable, "the delivery could not be stored: redeliver it later")
		if errors.Is(err, deploy.ErrFull) {
			no.message = "no space left on the server: redeliver it later"
		}
		no.retry = retryStore
		rc.o.Log.Error("storing a delivery", "hook", hookName(r), "err", err)
	}
	if no.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(no.retry))
	}
	return no.status, answer{Message: no.message}
}

// hookName is the name in the path, for a log line: only what may stand in a
// name, because a mistyped address has the token in its path.
func hookName(r *http.Request) string {
	name := strings.TrimPrefix(r.URL.Path, "/hooks/")
	end := strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
	})
	if end >= 0 {
		name = name[:end]
	}
	return name[:min(len(name), 64)]
}

// take carries a request through its checks.
func (rc *Receiver) take(w http.ResponseWriter, r *http.Request) (int, answer, error) {
	cfg := rc.o.Config()
	name, ok := strings.CutPrefix(r.URL.Path, "/hooks/")
	hook := cfg.Hook(name)
	if hook == nil || !ok {
		return 0, answer{}, refuse(http.StatusNotFound, "there is no such hook: the path is /hooks/ and a name under hooks in deploy.yaml")
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return 0, answer{}, refuse(http.StatusMethodNotAllowed, "a webhook is a POST, not a %s", clip(r.Method))
	}
	trial := rc.arrived(r, hook.Name)
	if err := rc.allowed(r, hook); err != nil {
		return 0, answer{}, err
	}
	body, free, err := rc.body(w, r)
	defer free()
	if err != nil {
		return 0, answer{}, err
	}
	trial.compare(body)
	list, err := rc.decide(r, cfg, hook, body)
	if err != nil {
		return 0, answer{}, err
	}
	if trial != nil {
		trial.verified()
		return http.StatusOK, answer{Message: trialTaken}, nil
	}
	// A sender that hangs up now has sent a good delivery all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTime)
	defer cancel()
	all := &tally{}
	for i := range list {
		got, err := rc.accept(ctx, &list[i])
		if err != nil {
			// Those before are kept: a redelivery finds them and goes on.
			return 0, answer{}, err
		}
		all.add(got)
	}
	status, a := all.answer()
	return status, a, nil
}

// accept stores one delivery with the runs that it starts.
func (rc *Receiver) accept(ctx context.Context, p *planned) (deploy.Receipt, error) {
	got, err := rc.o.Store.Accept(ctx, p.delivery, p.runs)
	if errors.Is(err, deploy.ErrConflict) {
		return got, refuse(http.StatusConflict, "a delivery with this id came before with another body: nothing is done")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the database did not answer within %v", storeTime)
	}
	return got, err
}

// answerMost bounds the sentence for a delivery that tells of several moves, in bytes.
const answerMost = 2000

// tally gathers what became of the parts of a request into its answer.
type tally struct {
	first   int64
	runs    []int64
	said    []string
	started bool // one of them started something that was not known
}

func (t *tally) add(got deploy.Receipt) {
	if t.first == 0 {
		t.first = got.Delivery
	}
	t.runs = append(t.runs, got.Runs...)
	if got.Duplicate && len(got.Runs) > 0 {
		got.Message = "this delivery is known: " + got.Message
	} else if len(got.Runs) > 0 {
		t.started = true
	}
	if !slices.Contains(t.said, got.Message) {
		t.said = append(t.said, got.Message)
	}
}

func (t *tally) answer() (int, answer) {
	a := answer{Delivery: t.first, Runs: t.runs, Message: deploy.Cut(strings.Join(t.said, "; "), answerMost)}
	if t.started {
		return http.StatusAccepted, a
	}
	return http.StatusOK, a
}

// planned is a delivery and what it starts.
type planned struct {
	delivery *deploy.Delivery
	runs     []deploy.NewRun
}

// decide verifies a body, and only then reads it and plans what it starts: a
// delivery for each ref that moved, where it tells of several.
func (rc *Receiver) decide(r *http.Request, cfg *deploy.Config, hook *deploy.Hook, body []byte) ([]planned, error) {
	if len(body) > bodyLarge {
		// Decoded JSON is many times its text: one such body at a time.
		rc.large <- struct{}{}
		defer func() { <-rc.large }()
	}
	values, err := rc.verify(r, hook, body)
	if err != nil {
		return nil, err
	}
	if c := r.Header.Get("Content-Encoding"); c != "" && !strings.EqualFold(c, "identity") {
		return nil, refuse(http.StatusUnsupportedMediaType, "the body is compressed (%s): send it as it is", clip(c))
	}
	payload, err := payloadOf(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	if len(hook.Tokens) > 0 {
		values = append([]string{r.URL.RawQuery}, values...) // all of it, not the token alone
	}
	payloads, err := parts(providers[hook.Provider], hide(payload, values))
	if err != nil {
		return nil, err
	}
	list := make([]planned, len(payloads))
	for i, payload := range payloads {
		d, ev, err := read(r, hook, body, payload)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			// A redelivery is taken apart in the same way: each is known by
			// its place, whatever became of the others.
			if d.Key != "" {
				d.Key = fmt.Sprintf("%s/%d", d.Key, i+1)
			}
			d.BodyHash = fmt.Sprintf("%s/%d", d.BodyHash, i+1)
		}
		decision := deploy.Plan(cfg, ev)
		d.Message, d.Why = decision.Message, decision.Why
		list[i] = planned{d, decision.Runs}
	}
	return list, nil
}

// memory counts what all bodies together hold.
type memory struct {
	held atomic.Int64 // bytes
	most int64
}

// take adds n bytes to the mine that a body holds until it is copied, or says
// that they are too many. A body alone has all the room that is allowed: its
// copy does not count, or it would never be taken.
func (m *memory) take(n, mine int64) bool {
	if held := m.held.Add(n); held > m.most && (n > m.most+1 || held > n+mine) {
		m.held.Add(-n)
		return false
	}
	return true
}

func (m *memory) give(n int64) { m.held.Add(-n) }

// body reads the body within its bounds. A request holds memory only for what
// came of its body, not for what it says is to come, so that strangers who
// promise large bodies and send nothing keep nobody out. free gives back what
// it holds.
func (rc *Receiver) body(w http.ResponseWriter, r *http.Request) (body []byte, free func(), err error) {
	var held int64
	free = func() { rc.memory.give(held) }
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "the body is over 25 MiB")
	tooMany := refuse(http.StatusServiceUnavailable, "too many bodies at once: redeliver it later")
	if r.ContentLength > rc.memory.most {
		tooMany.message = "the body is larger than the server allows for all bodies together (server.limits.body_memory)"
	}
	tooMany.retry = retryMemory
	whole := int64(bodyMost)
	if r.ContentLength >= 0 {
		whole = r.ContentLength
		if whole > bodyMost {
			return nil, free, tooLarge
		}
		if rc.memory.held.Load()+whole > rc.memory.most {
			return nil, free, tooMany
		}
	}
	reader := http.MaxBytesReader(w, r.Body, whole)
	for err == nil {
		if len(body) == cap(body) {
			// In few steps, since both pieces count while one is copied; one
			// byte more than the whole, so that its end is seen too.
			size := min(max(4*held, bodyFirst), whole+1)
			if held <= rc.memory.most {
				size = min(size, rc.memory.most+1)
			}
			if !rc.memory.take(size, held) {
				return nil, free, tooMany
			}
			body = append(make([]byte, 0, size), body...)
			rc.memory.give(held)
			held = size
		}
		var n int
		n, err = reader.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
	}
	var large *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF):
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		return body, free, nil
	case errors.As(err, &large):
		return nil, free, tooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, free, refuse(http.StatusRequestTimeout, "the body did not come within %v", bodyTime)
	}
	return nil, free, refuse(http.StatusBadRequest, "the body was cut off")
}

// formType is the media type of a form.
const formType = "application/x-www-form-urlencoded"

// mediaType is a content type without its parameters.
func mediaType(contentType string) string {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// payloadOf gives the JSON of a body: as it is, or out of a form's payload.
// Without a content type the body is taken for JSON.
func payloadOf(contentType string, body []byte) ([]byte, error) {
	kind := mediaType(contentType)
	switch {
	case kind == "", kind == "application/json", strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"):
		return body, nil
	case kind == formType:
		return formPayload(body)
	}
	return nil, refuse(http.StatusUnsupportedMediaType, "the content type must be application/json (or GitHub's form), not %s", clip(kind))
}

// formPayload takes payload= out of a form.
func formPayload(body []byte) ([]byte, error) {
	var payload []byte
	found := false
	for part := range bytes.SplitSeq(body, []byte("&")) {
		value, ok := bytes.CutPrefix(part, []byte("payload="))
		if !ok {
			continue
		}
		if found {
			return nil, refuse(http.StatusBadRequest, "the form has more than one payload")
		}
		text, err := url.QueryUnescape(string(value))
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the form's payload is not encoded as forms are")
		}
		payload, found = []byte(text), true
	}
	switch {
	case len(body) == 0:
		return nil, refuse(http.StatusBadRequest, "the body is empty")
	case !found:
		return nil, refuse(http.StatusBadRequest, "the form has no payload: is the body JSON, and the header Content-Type: application/json missing")
	}
	return payload, nil
}

// decode reads JSON of bounded depth into v, which is made of the types in
// lenient.go.
func decode(payload []byte, v any) error {
	switch {
	case len(bytes.TrimSpace(payload)) == 0:
		return refuse(http.StatusBadRequest, "the body is empty")
	case !utf8.Valid(payload):
		return refuse(http.StatusBadRequest, "the body is not UTF-8")
	case deeper(payload, depthMost):
		return refuse(http.StatusBadRequest, "the body is more than %d levels deep", depthMost)
	case json.Unmarshal(payload, v, jsonOptions) != nil:
		return refuse(http.StatusBadRequest, "the body is not JSON")
	}
	return nil
}

// readObject reads of a payload what T has of it; the payload must be an object.
func readObject[T any](payload []byte) (*T, error) {
	var body object[T]
	if err := decode(payload, &body); err != nil {
		return nil, err
	}
	if !body.is {
		return nil, refuse(http.StatusBadRequest, "the body is JSON, but not an object")
	}
	return &body.v, nil
}

// jsonOptions take what is JSON for JSON: that a name comes twice is the
// sender's affair, the last counts, and half of a surrogate pair is the mark
// of something that cannot be read. UTF-8 is checked before.
var jsonOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// deeper says whether JSON has more levels than a bound, without following them.
func deeper(b []byte, most int) bool {
	if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) <= most {
		return false // the usual case, at a hundredth of the price
	}
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
	p := providers[hook.Provider]
	sum := sha256.Sum256(body)
	d := &deploy.Delivery{
		Hook: hook.Name, Key: p.key(r.Header, payload), BodyHash: hex.EncodeToString(sum[:]), SameBody: p.signed && len(hook.Secrets) > 0,
		Event: clip(p.event(r.Header, payload)), Received: time.Now(), Body: payload,
	}
	if len(d.Key) > keyMost || !printable(d.Key) {
		return nil, nil, refuse(http.StatusBadRequest, "the delivery's id is over %d bytes or not printable", keyMost)
	}
	if d.Event == "" {
		// What is no JSON says so when it is read.
		if err := decode(payload, &object[struct{}]{}); err != nil {
			return nil, nil, err
		}
		if hook.Provider == "azure" {
			return nil, nil, refuse(http.StatusBadRequest, "the payload has no eventType: is this a service hook of Azure DevOps")
		}
		return nil, nil, refuse(http.StatusBadRequest, "the header that names the event is missing: does a proxy drop it")
	}
	ev, err := p.read(d.Event, payload)
	if err != nil {
		return nil, nil, err
	}
	ev.Hook = hook.Name
	d.Push = moved(ev)
	return d, ev, nil
}

// moved is where a push moved its ref; nil when the event is none.
func moved(ev *deploy.Event) *deploy.RefMove {
	if ev.Kind != deploy.Push || ev.Repository == "" || ev.Ref == "" {
		return nil
	}
	return &deploy.RefMove{Repository: ev.Repository, Ref: ev.Ref, Before: ev.Before, After: ev.After}
}

// Read gives the event of a stored delivery: of the hook's provider, the
// event's name and the JSON.
func Read(provider, name string, payload []byte) (*deploy.Event, error) {
	p, ok := providers[provider]
	if !ok {
		return nil, fmt.Errorf("no provider %s", provider)
	}
	return p.read(name, payload)
}

// Replay decides on a stored delivery anew, with today's config. A pipeline
// that the delivery started before is started again as a retry, which keeps
// its place in the lane unless force. A delivery without an id that started
// nothing is stored once more, under a number of its own.
//
// Errors: [deploy.ErrNotFound]; [deploy.ErrRefused] when the body is not kept
// any more, nothing starts, or one of the runs must not: then none does.
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
		return deploy.Receipt{}, fmt.Errorf("%w: reading delivery %d: %w", deploy.ErrRefused, id, err)
	}
	ev.Hook = hook.Name
	decision := deploy.Plan(cfg, ev)
	if len(decision.Runs) == 0 {
		return deploy.Receipt{}, fmt.Errorf("%w: %s", deploy.ErrRefused, decision.Message)
	}
	for i := range decision.Runs {
		decision.Runs[i].Actor, decision.Runs[i].Force = actor, force
		if rc.o.Allowed == nil {
			continue
		}
		if err := rc.o.Allowed(ctx, &decision.Runs[i]); err != nil {
			return deploy.Receipt{}, err
		}
	}
	if len(d.Runs) == 0 {
		d.Message, d.Why, d.Push, d.Received = decision.Message, decision.Why, moved(ev), time.Now()
		return rc.o.Store.Accept(ctx, d, decision.Runs)
	}
	return rc.again(ctx, d, decision, force)
}

// again starts what a delivery starts once more.
func (rc *Receiver) again(ctx context.Context, d *deploy.Delivery, decision deploy.Decision, force bool) (deploy.Receipt, error) {
	before := map[string]int64{} // the newest run of each pipeline
	for _, run := range d.Runs {
		old, err := rc.o.Store.Run(ctx, run)
		if err != nil {
			return deploy.Receipt{}, fmt.Errorf("run %d: %w", run, err)
		}
		before[old.Pipeline] = max(before[old.Pipeline], run)
	}
	got := deploy.Receipt{Delivery: d.ID, Message: decision.Message}
	for _, r := range decision.Runs {
		r.RetryOf, r.KeepOrder = before[r.Pipeline], !force
		if r.RetryOf == 0 {
			// A pipeline that is new since: by naming a run of the delivery,
			// it gets that one's delivery and place.
			r.RetryOf = slices.Min(d.Runs)
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
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.ToValidUTF8(s[:min(len(s), 64)], "")
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
