package web

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"deployhook/internal/deploy"
)

// TokenPrefix begins every token: so that people, and who looks for leaked
// secrets, see what it is.
const TokenPrefix = "dh_"

// tokenBytes of randomness make up a token.
const tokenBytes = 32

// expiresMost is the longest that a token counts which has an end.
const expiresMost = 10 * 365 * 24 * time.Hour

// Tokens are kept for the API.
type Tokens interface {
	CreateToken(ctx context.Context, t deploy.Token, hash string) (int64, error)
	Tokens(ctx context.Context) ([]deploy.Token, error)
	RevokeToken(ctx context.Context, which string, now time.Time) (deploy.Token, error)
}

// TokenCommand asks for a token.
type TokenCommand struct {
	Name      string          `json:"name"`
	Actions   []deploy.Action `json:"actions"`
	Pipelines []string        `json:"pipelines,omitempty"` // empty = all
	Expires   int64           `json:"expires_s,omitempty"` // in so many seconds; 0 = never
}

// NewToken is a token with its value, which is not kept.
type NewToken struct {
	deploy.Token
	Value string `json:"value"`
}

// newTokenValue makes the value of a token.
func newTokenValue() string {
	b := make([]byte, tokenBytes)
	_, _ = rand.Read(b) // it never fails: crypto/rand ends the program then
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

func (s *server) createToken(r *http.Request) (NewToken, error) {
	q, err := body[TokenCommand](r)
	if err != nil {
		return NewToken{}, err
	}
	now := time.Now()
	t := deploy.Token{Name: q.Name, Actions: q.Actions, Pipelines: q.Pipelines, Actor: actor(r), Created: now.UTC().Truncate(time.Millisecond)}
	if q.Expires < 0 || q.Expires > int64(expiresMost/time.Second) {
		return NewToken{}, fmt.Errorf("%w: a token expires after at most %d days", deploy.ErrMisuse, expiresMost/(24*time.Hour))
	}
	if q.Expires > 0 {
		t.Expires = t.Created.Add(time.Duration(q.Expires) * time.Second)
	}
	if err := t.Check(now); err != nil {
		return NewToken{}, err
	}
	for i, name := range t.Pipelines {
		if !s.Pipeline(name) {
			return NewToken{}, hinted{fmt.Errorf("%w: no pipeline %q", deploy.ErrNotFound, name), "deployhook check lists the pipelines"}
		}
		if slices.Contains(t.Pipelines[:i], name) {
			return NewToken{}, fmt.Errorf("%w: the pipeline %s is named twice", deploy.ErrMisuse, name)
		}
	}
	value := newTokenValue()
	if t.ID, err = s.Options.Tokens.CreateToken(r.Context(), t, hashOf(value)); err != nil {
		return NewToken{}, err
	}
	if t.Pipelines == nil {
		t.Pipelines = []string{}
	}
	s.Options.Log.Info("token created", "token", t.Name, "by", t.Actor)
	return NewToken{Token: t, Value: value}, nil
}

func (s *server) listTokens(r *http.Request) ([]deploy.Token, error) {
	list, err := s.Options.Tokens.Tokens(r.Context())
	for i := range list {
		if list[i].Pipelines == nil {
			list[i].Pipelines = []string{}
		}
	}
	return list, err
}

func (s *server) revokeToken(r *http.Request) (done, error) {
	which := r.PathValue("name")
	t, err := s.Options.Tokens.RevokeToken(r.Context(), which, time.Now())
	if errors.Is(err, deploy.ErrNotFound) {
		return done{}, hinted{fmt.Errorf("%w: no token %q that is not revoked", deploy.ErrNotFound, which), "deployhook token list shows them"}
	}
	if err != nil {
		return done{}, err
	}
	s.Options.Log.Info("token revoked", "token", t.Name, "by", actor(r))
	return done{fmt.Sprintf("token %s (%d) is revoked", t.Name, t.ID)}, nil
}

// CreateToken makes a token for the API and gives its value, which nobody can
// ask for again.
func (c *Client) CreateToken(ctx context.Context, t TokenCommand) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, "/api/tokens", t)
}

// Tokens lists tokens, the newest first, the last ones that were revoked among
// them.
func (c *Client) Tokens(ctx context.Context) ([]deploy.Token, error) {
	return call[[]deploy.Token](ctx, c, http.MethodGet, "/api/tokens", nil)
}

// RevokeToken ends a token, by its name or its number.
func (c *Client) RevokeToken(ctx context.Context, which string) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, "/api/tokens/"+url.PathEscape(which)+"/revoke", nil)
	return d.Message, err
}
