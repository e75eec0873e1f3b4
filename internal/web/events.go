package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

const eventTypeMost = 128

// validEventType says whether an application may call its events so: it stands
// in a body that others read, and patterns of deploy.yaml are compared with it.
func validEventType(s string) bool {
	if s == "" || len(s) > eventTypeMost || strings.IndexByte("._:/-", s[0]) >= 0 {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-") == ""
}

// accepted is the answer to an event.
type accepted struct {
	Event int64 `json:"event"`
}

// event takes an event of the application: 202 once it is on disk, and 200 for
// one that came before.
func (p *Public) event(w http.ResponseWriter, r *http.Request) {
	t, ok := p.authorize(w, r, deploy.ActionEvents, "")
	if !ok {
		return
	}
	e, err := readEvent(w, r)
	if err != nil {
		p.refuse(w, err)
		return
	}
	// A caller that hangs up now has sent a good event all the same.
	id, known, err := p.o.AddEvent(context.WithoutCancel(r.Context()), e)
	switch {
	case errors.Is(err, deploy.ErrConflict):
		p.refuse(w, fmt.Errorf("%w: this Idempotency-Key came before with another event: each event has its own", deploy.ErrConflict))
	case err != nil:
		p.refuse(w, err)
	case known:
		answerJSON(w, http.StatusOK, accepted{id})
	default:
		p.o.Log.Debug("event accepted", "event", id, "by", "token "+t.Name)
		answerJSON(w, http.StatusAccepted, accepted{id})
	}
}

func readEvent(w http.ResponseWriter, r *http.Request) (*deploy.AppEvent, error) {
	key, err := idempotencyKey(r)
	if err != nil {
		return nil, err
	}
	b, err := readBody(w, r, apiBodyMost)
	if err != nil {
		return nil, err
	}
	e, err := parseEvent(b)
	if err != nil {
		return nil, err
	}
	e.Key, e.Received = key, time.Now()
	return e, nil
}

// parseEvent reads the body of an event. The error is one sentence,
// [deploy.ErrMisuse].
func parseEvent(b []byte) (*deploy.AppEvent, error) {
	var q struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: the body is not UTF-8", deploy.ErrMisuse)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows its JSON")
		}
	}
	switch {
	case err != nil:
		err = fmt.Errorf("reading the body, which is {type, data}: %s", notJSON(err))
	case !validEventType(q.Type):
		err = errors.New("type is 1 to 128 letters, digits and . _ : / -, as payment.approved")
	case q.Data == nil:
		err = errors.New("data is missing: it may be any JSON, also null")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", deploy.ErrMisuse, err)
	}
	var data bytes.Buffer
	if err := json.Compact(&data, q.Data); err != nil {
		return nil, fmt.Errorf("%w: reading data: %s", deploy.ErrMisuse, notJSON(err))
	}
	return &deploy.AppEvent{Type: q.Type, Data: data.Bytes()}, nil
}

// notJSON is what the decoder says, without its own name.
func notJSON(err error) string {
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
