package deploy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Action is what a token may do.
type Action string

// The actions of tokens.
const (
	ActionRun    Action = "run"    // start runs
	ActionRead   Action = "read"   // read runs
	ActionEvents Action = "events" // hand in events of the application
)

// Actions are all actions of tokens.
var Actions = []string{string(ActionRun), string(ActionRead), string(ActionEvents)}

// TokensMost is how many tokens there may be that are not revoked.
const TokensMost = 1000

// Token lets a program use the API. Its value is known to whom it was given
// alone: what is stored is a hash.
type Token struct {
	ID        int64     `json:"id"` // given by the store
	Name      string    `json:"name"`
	Actions   []Action  `json:"actions"`
	Pipelines []string  `json:"pipelines"` // empty = all; events belong to none
	Actor     string    `json:"by"`        // who made it
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"` // zero = never
	Used      time.Time `json:"used,omitzero"`    // about a minute exact; zero = never
	Revoked   time.Time `json:"revoked,omitzero"` // zero = it is not
}

// May says whether the token is for an action, and for a pipeline where one is
// named.
func (t *Token) May(a Action, pipeline string) bool {
	return slices.Contains(t.Actions, a) && (pipeline == "" || t.Of(pipeline))
}

// Of says whether the token is for a pipeline.
func (t *Token) Of(pipeline string) bool {
	return len(t.Pipelines) == 0 || slices.Contains(t.Pipelines, pipeline)
}

// Valid says whether the token counts at a moment.
func (t *Token) Valid(now time.Time) bool {
	return t.Revoked.IsZero() && (t.Expires.IsZero() || now.Before(t.Expires))
}

const (
	letters       = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenNameMost = 64
)

// validTokenName keeps names apart from numbers, which a token is called by too.
func validTokenName(s string) bool {
	return s != "" && len(s) <= tokenNameMost && strings.IndexByte(letters, s[0]) >= 0 && strings.Trim(s, letters+"0123456789._-") == ""
}

// Check says what is wrong with a token that is to be made: its name, an action
// that is none, or one that is named without use. Pipelines are the caller's
// to look up.
func (t *Token) Check(now time.Time) error {
	if !validTokenName(t.Name) {
		return fmt.Errorf("%w: the name of a token begins with a letter and has at most 64 letters, digits, dots, _ and -", ErrMisuse)
	}
	if len(t.Actions) == 0 {
		return fmt.Errorf("%w: the token has no action: there are %s", ErrMisuse, strings.Join(Actions, ", "))
	}
	for i, a := range t.Actions {
		if !slices.Contains(Actions, string(a)) {
			return fmt.Errorf("%w: %q is no action: there are %s%s", ErrMisuse, clip(string(a)), strings.Join(Actions, ", "), DidYouMean(string(a), Actions))
		}
		if slices.Contains(t.Actions[:i], a) {
			return fmt.Errorf("%w: the action %s is named twice", ErrMisuse, a)
		}
	}
	if len(t.Pipelines) > 0 && len(t.Actions) == 1 && t.Actions[0] == ActionEvents {
		return fmt.Errorf("%w: events belong to no pipeline: leave out the pipeline, or name the action run or read too", ErrMisuse)
	}
	if !t.Expires.IsZero() && !t.Expires.After(now) {
		return fmt.Errorf("%w: the token would have expired already", ErrMisuse)
	}
	return nil
}

// Once is a request that is carried out one time only, however often it is sent.
//
// Source: IETF draft "The Idempotency-Key HTTP Header Field".
type Once struct {
	Token int64  // that it was sent with: others have keys of their own
	Key   string // at most 256 bytes
	Hash  string // SHA-256 of what it asks for, hex
}

// ErrOther is an Idempotency-Key that came before with another request.
var ErrOther = errors.New("this Idempotency-Key came before with another request")
