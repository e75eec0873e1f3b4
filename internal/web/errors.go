package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"deployhook/internal/deploy"
)

// errorBody is the JSON of every answer that is no success.
type errorBody struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"` // what to do next
	Code  string `json:"code"`
}

// known are the errors that a client tells apart, by their code. The first
// that fits counts.
var known = []struct {
	err    error
	code   string
	status int
}{
	{deploy.ErrMisuse, "misuse", http.StatusBadRequest},
	{deploy.ErrNotFound, "not_found", http.StatusNotFound},
	{deploy.ErrRefused, "refused", http.StatusConflict},
	{deploy.ErrLocked, "locked", http.StatusConflict},
	{deploy.ErrStale, "stale", http.StatusConflict},
	{deploy.ErrFull, "full", http.StatusInsufficientStorage},
	{errBusy, "busy", http.StatusServiceUnavailable},
}

// codeFailed is every other error; codeStopping ends what a stopping daemon
// cannot go on with.
const (
	codeFailed   = "failed"
	codeStopping = "stopping"
)

// errBusy is a bound of the control socket that is reached.
var errBusy = errors.New("busy")

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// writeError is the one place that turns errors into status codes.
func writeError(w http.ResponseWriter, err error) {
	e, status := describe(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}

// describe puts an error as a caller is told it.
func describe(err error) (errorBody, int) {
	e, status := errorBody{Error: err.Error(), Code: codeFailed}, http.StatusInternalServerError
	for _, k := range known {
		if errors.Is(err, k.err) {
			e.Code, status = k.code, k.status
			e.Error = sentence(e.Error, k.err)
			break
		}
	}
	var h hinted
	switch {
	case errors.As(err, &h):
		e.Hint = h.hint
	case errors.Is(err, deploy.ErrStale):
		e.Hint = "somebody was first: look again, then try again"
	}
	return e, status
}

// incomplete is why an answer that is given beside it is not whole.
type incomplete struct{ error }

// missingHeader has, as the JSON of an error, why an answer is not whole. The
// answer itself keeps the form that it has when it is.
const missingHeader = "Deployhook-Missing"

// writeMissing says beside an answer why it is not whole.
func writeMissing(w http.ResponseWriter, err error) {
	e, _ := describe(err)
	if b, err := json.Marshal(e); err == nil {
		w.Header().Set(missingHeader, string(b))
	}
}

// missing is why an answer is not whole; nil: it is.
func missing(h http.Header) error {
	text := h.Get(missingHeader)
	if text == "" {
		return nil
	}
	var e errorBody
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return fmt.Errorf("reading why the daemon's answer is not whole: %w", err)
	}
	return &Error{Message: e.Error, Hint: e.Hint, Code: e.Code}
}

// sentence leaves out the word by which the parts tell errors apart, where
// what follows says it better.
func sentence(text string, kind error) string {
	rest, ok := strings.CutPrefix(text, kind.Error()+": ")
	whole := strings.HasPrefix(rest, "no ") || strings.HasPrefix(rest, "run ")
	if !ok || errors.Is(kind, deploy.ErrNotFound) && !whole {
		return text
	}
	return rest
}

// Error is what the daemon answered instead. [errors.Is] tells the kinds of
// package deploy apart: [deploy.ErrMisuse], [deploy.ErrNotFound],
// [deploy.ErrRefused], [deploy.ErrLocked], [deploy.ErrStale], [deploy.ErrFull].
type Error struct {
	Message string
	Hint    string // what to do next; empty = nothing is known
	Code    string
}

func (e *Error) Error() string { return e.Message }

// Away says whether an error is that no daemon is there: it may be back soon.
func Away(err error) bool {
	var e *Error
	return errors.As(err, new(*Unreachable)) || errors.As(err, &e) && e.Code == codeStopping
}

// Is says whether e is of the kind target.
func (e *Error) Is(target error) bool {
	for _, k := range known {
		if e.Code == k.code {
			return target == k.err
		}
	}
	return false
}
