package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

// Bounds of a request of the API.
const (
	apiBodyMost = 256 << 10        // bytes
	apiBodyTime = 30 * time.Second // for a whole body to come
	onceMost    = 256              // bytes of an Idempotency-Key
	refMost     = 250              // bytes of a branch
)

// TokenUse looks tokens up, and what they were used for.
type TokenUse interface {
	UseToken(ctx context.Context, hash string, now time.Time) (*deploy.Token, error)
	MadeBefore(ctx context.Context, o *deploy.Once) (run int64, err error)
}

// PublicOptions are what the API on the public address serves; all are needed.
type PublicOptions struct {
	Runs interface {
		Run(ctx context.Context, id int64) (*deploy.Run, error)
		Runs(ctx context.Context, f deploy.RunFilter) ([]deploy.Run, error)
	}
	Trigger  func(ctx context.Context, c deploy.TriggerCommand) (int64, error)
	Pipeline func(name string) bool // whether deploy.yaml has it
	Tokens   TokenUse
	// AddEvent stores an event of the application; known says that it came
	// before, by its key.
	AddEvent func(ctx context.Context, e *deploy.AppEvent) (id int64, known bool, err error)
	// WrongToken counts a refused request, logs it, and says whether its
	// address has sent too many.
	WrongToken func(r *http.Request, why string) (tooMany bool)
	RetryAfter time.Duration // for an address that has
	Log        *slog.Logger
}

// Public is the API on the public address: for programs, which have a token.
type Public struct {
	o   PublicOptions
	mux *http.ServeMux
}

// NewPublic makes the API.
func NewPublic(o PublicOptions) *Public {
	p := &Public{o: o, mux: http.NewServeMux()}
	publicRoutes(p)
	return p
}

// ServeHTTP answers one request below /api/.
func (p *Public) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Counted from here, so that also a body that nobody reads cannot keep its
	// connection for long.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(apiBodyTime))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	p.mux.ServeHTTP(w, r)
}

// Errors of the API that only it has.
var (
	errUnauthorized = errors.New("unauthorized")
	errForbidden    = errors.New("forbidden")
	errTooMany      = errors.New("too many wrong tokens from this address")
	errTooLarge     = errors.New("too large")
	errMediaType    = errors.New("unsupported media type")
	errTimeout      = errors.New("the body did not come in time")
)

// publicErrors have their statuses beside those that the control socket knows.
var publicErrors = []struct {
	err    error
	code   string
	status int
}{
	{errUnauthorized, "unauthorized", http.StatusUnauthorized},
	{errForbidden, "forbidden", http.StatusForbidden},
	{errTooMany, "too_many", http.StatusTooManyRequests},
	{errTooLarge, "too_large", http.StatusRequestEntityTooLarge},
	{errMediaType, "media_type", http.StatusUnsupportedMediaType},
	{errTimeout, "timeout", http.StatusRequestTimeout},
	{deploy.ErrOther, "conflict", http.StatusConflict},
	{deploy.ErrConflict, "conflict", http.StatusConflict},
}

// refuse turns an error into an answer. What no caller can do anything about is
// logged, and not told.
func (p *Public) refuse(w http.ResponseWriter, err error) {
	e, status := describe(err)
	for _, k := range publicErrors {
		if errors.Is(err, k.err) {
			e.Code, status = k.code, k.status
			e.Error = strings.TrimPrefix(err.Error(), k.err.Error()+": ")
			break
		}
	}
	e.Hint = "" // it is for the command line
	switch status {
	case http.StatusInternalServerError:
		p.o.Log.Error("answering the API", "err", err)
		e.Error = "that could not be done: the server's log says why"
	case http.StatusInsufficientStorage:
		p.o.Log.Error("answering the API", "err", err)
		status, e.Error = http.StatusServiceUnavailable, "no space left on the server: send it again later"
		w.Header().Set("Retry-After", "60")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="deployhook"`)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(int(p.o.RetryAfter.Seconds())))
	}
	answerJSON(w, status, e)
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// authorize gives the token of a request that may do an action, on a pipeline
// unless that is empty. Without one it has answered, and the handler returns:
//
//	t, ok := p.authorize(w, r, deploy.ActionEvents, "")
//	if !ok {
//		return
//	}
//
// It is the first thing that a handler does: nothing of a stranger's body is
// read, and nobody learns which pipelines there are.
func (p *Public) authorize(w http.ResponseWriter, r *http.Request, a deploy.Action, pipeline string) (*deploy.Token, bool) {
	t, err := p.token(r)
	if err == nil && !t.May(a, pipeline) {
		err = fmt.Errorf("%w: this token is not for that; deployhook token list shows on the server what it is for", errForbidden)
	}
	if errors.Is(err, errUnauthorized) && p.o.WrongToken(r, strings.TrimPrefix(err.Error(), errUnauthorized.Error()+": ")) {
		err = errTooMany
	}
	if err != nil {
		p.refuse(w, err)
		return nil, false
	}
	return t, true
}

// token finds the token of a request. It stands in a header alone: addresses
// are written down by everybody on the way.
func (p *Public) token(r *http.Request) (*deploy.Token, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return nil, fmt.Errorf("%w: no token: send the header Authorization: Bearer and a value that deployhook token create made", errUnauthorized)
	}
	kind, value, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(kind, "Bearer") {
		return nil, fmt.Errorf("%w: one header Authorization is wanted, with the word Bearer and a token", errUnauthorized)
	}
	t, err := p.o.Tokens.UseToken(r.Context(), hashOf(strings.TrimSpace(value)), time.Now())
	if errors.Is(err, deploy.ErrNotFound) {
		return nil, fmt.Errorf("%w: wrong token: it is not known, has expired or was revoked", errUnauthorized)
	}
	return t, err
}

// hashOf is what is stored of a token. Values are random and of 256 bits, so
// that a plain hash of them tells nothing.
func hashOf(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// idempotencyKey gives the Idempotency-Key of a request, empty where there is none.
func idempotencyKey(r *http.Request) (string, error) {
	list := r.Header.Values("Idempotency-Key")
	if len(list) == 0 {
		return "", nil
	}
	key := list[0]
	if len(list) > 1 || key == "" || len(key) > onceMost || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", fmt.Errorf("%w: Idempotency-Key is sent once, with 1 to %d printable characters of ASCII", deploy.ErrMisuse, onceMost)
	}
	return key, nil
}

// readBody reads the JSON of a request within its bounds; authorize comes first.
func readBody(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, fmt.Errorf("%w: the body is JSON, and the header Content-Type: application/json says so", errMediaType)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var large *http.MaxBytesError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &large):
		return nil, fmt.Errorf("%w: the body is over %d KiB", errTooLarge, most>>10)
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, errTimeout
	case err != nil:
		return nil, fmt.Errorf("%w: the body was cut off", deploy.ErrMisuse)
	}
	return b, nil
}

// runRequest is the body of POST /api/pipelines/NAME/runs.
type runRequest struct {
	Branch string               `json:"branch"`
	SHA    string               `json:"sha"`
	Inputs map[string]inputText `json:"inputs"`
}

// inputText is the text of an input, which may be written as a number or a
// boolean too.
type inputText string

func (t *inputText) UnmarshalJSON(b []byte) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		*t = inputText(v)
	case json.Number:
		*t = inputText(v.String())
	case bool:
		*t = inputText(strconv.FormatBool(v))
	default:
		return errors.New("an input is a string, a number or true or false")
	}
	return nil
}

// parseRunRequest reads the body of a request for a run. The error is one
// sentence, [deploy.ErrMisuse].
func parseRunRequest(b []byte) (deploy.TriggerCommand, error) {
	var q runRequest
	if len(bytes.TrimSpace(b)) == 0 {
		return deploy.TriggerCommand{}, fmt.Errorf("%w: the body is empty: {} starts the pipeline's branch", deploy.ErrMisuse)
	}
	if !utf8.Valid(b) {
		return deploy.TriggerCommand{}, fmt.Errorf("%w: the body is not UTF-8", deploy.ErrMisuse)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows its JSON")
		}
	}
	if err != nil {
		return deploy.TriggerCommand{}, fmt.Errorf("%w: reading the body, which is {branch or sha, inputs}: %s", deploy.ErrMisuse, strings.TrimPrefix(err.Error(), "json: "))
	}
	switch {
	case q.Branch != "" && q.SHA != "":
		err = errors.New("branch and sha do not go together")
	case len(q.Branch) > refMost || strings.ContainsFunc(q.Branch, func(c rune) bool { return unicode.IsControl(c) || c == ' ' }):
		err = fmt.Errorf("branch is no name of one: it has at most %d bytes, and neither spaces nor control characters", refMost)
	case q.SHA != "" && !deploy.ValidCommit(q.SHA):
		err = errors.New("sha is a whole commit of 40 hexadecimal digits")
	}
	if err != nil {
		return deploy.TriggerCommand{}, fmt.Errorf("%w: %w", deploy.ErrMisuse, err)
	}
	c := deploy.TriggerCommand{Branch: q.Branch, SHA: q.SHA}
	for name, value := range q.Inputs {
		if c.Inputs == nil {
			c.Inputs = map[string]string{}
		}
		c.Inputs[name] = string(value)
	}
	return c, nil
}

// started is the answer to a request for a run.
type started struct {
	Run     int64  `json:"run"`
	Message string `json:"message"`
}

// start makes a run: 202, and 200 for a request that made one before.
func (p *Public) start(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	t, ok := p.authorize(w, r, deploy.ActionRun, name)
	if !ok {
		return
	}
	run, before, err := p.trigger(w, r, t, name)
	if err != nil {
		p.refuse(w, err)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("/api/runs/%d", run))
	if before {
		answerJSON(w, http.StatusOK, started{run, fmt.Sprintf("this request is known: it started run %d of %s", run, name)})
		return
	}
	answerJSON(w, http.StatusAccepted, started{run, fmt.Sprintf("run %d of %s is accepted", run, name)})
}

// trigger makes the run of an authorized request, or finds that it has made one.
func (p *Public) trigger(w http.ResponseWriter, r *http.Request, t *deploy.Token, name string) (run int64, before bool, err error) {
	if err := p.known(name); err != nil {
		return 0, false, err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return 0, false, err
	}
	b, err := readBody(w, r, apiBodyMost)
	if err != nil {
		return 0, false, err
	}
	c, err := parseRunRequest(b)
	if err != nil {
		return 0, false, err
	}
	c.Pipeline, c.Actor = name, "token "+t.Name
	if key != "" {
		c.Once = &deploy.Once{Token: t.ID, Key: key, Hash: hashOf(name + "\n" + string(b))}
		// What it made stands, whatever the config or the order say now.
		if run, err := p.o.Tokens.MadeBefore(r.Context(), c.Once); err != nil || run != 0 {
			return run, true, err
		}
	}
	// A caller that hangs up now has sent a good request all the same.
	run, err = p.o.Trigger(context.WithoutCancel(r.Context()), c)
	if err == nil {
		p.o.Log.Info("run accepted", "run", run, "pipeline", name, "by", c.Actor)
	}
	return run, false, err
}

// known is an error for a pipeline that there is not, for whom may know that.
func (p *Public) known(name string) error {
	if !p.o.Pipeline(name) {
		return fmt.Errorf("%w: no such pipeline", deploy.ErrNotFound)
	}
	return nil
}

// one answers with a run. Whether there is one that the token is not for,
// nobody learns.
func (p *Public) one(w http.ResponseWriter, r *http.Request) {
	t, ok := p.authorize(w, r, deploy.ActionRead, "")
	if !ok {
		return
	}
	n, err := id(r)
	var run *deploy.Run
	if err == nil {
		run, err = p.o.Runs.Run(r.Context(), n)
	}
	if errors.Is(err, deploy.ErrNotFound) || err == nil && !t.Of(run.Pipeline) {
		err = fmt.Errorf("%w: there is no run %d that this token may read", deploy.ErrNotFound, n)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	answerJSON(w, http.StatusOK, runView(run))
}

// list answers with the runs of a pipeline, the newest first.
func (p *Public) list(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, ok := p.authorize(w, r, deploy.ActionRead, name); !ok {
		return
	}
	views, err := p.runs(r, name)
	if err != nil {
		p.refuse(w, err)
		return
	}
	answerJSON(w, http.StatusOK, views)
}

func (p *Public) runs(r *http.Request, name string) ([]Run, error) {
	if err := p.known(name); err != nil {
		return nil, err
	}
	return listRuns(r, p.o.Runs.Runs, name)
}

// nothing answers what is below /api/ and no route.
func (p *Public) nothing(w http.ResponseWriter, _ *http.Request) {
	p.refuse(w, fmt.Errorf("%w: no such address, or another method: docs/api.md has those that there are", deploy.ErrNotFound))
}
