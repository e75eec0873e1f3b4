package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
)

// webhook sends signed webhooks.
//
// Source: standardwebhooks.com, "Specification".
type webhook struct{ Deps }

func newWebhook(d Deps) Sender { return webhook{d} }

// Send posts the body of a run or event, signed with every key of the target.
func (w webhook) Send(ctx context.Context, m *Message) (Answer, error) {
	address, err := Address(ctx, w.Deps, m.Spec)
	if err != nil {
		return Answer{}, err
	}
	body, err := WebhookBody(m.Type, m.Created, m.Body)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return Answer{Permanent: true}, errNoAddress
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", UserAgent)
	req.Header.Set(standardwebhooks.HeaderWebhookID, m.Key)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	var signatures []string
	for _, s := range m.Spec.Secrets {
		value, err := w.Secret(ctx, s)
		if err != nil {
			return Answer{}, fmt.Errorf("signing: %w", err)
		}
		signature, err := sign(value, m.Key, now, body)
		if err != nil {
			return Answer{}, fmt.Errorf("signing: secret %s: %w", s.Name, err)
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) > 0 {
		req.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return Do(w.Client(m.Spec.AllowPrivate, address), req)
}

// sign gives a signature: a whsec_ secret is base64, as the specification has
// it; every other one is the key itself.
func sign(secret, id string, at time.Time, body []byte) (string, error) {
	wh, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	if strings.HasPrefix(secret, "whsec_") {
		wh, err = standardwebhooks.NewWebhook(secret)
	}
	if err != nil {
		return "", errors.New("what follows whsec_ is not base64")
	}
	return wh.Sign(id, at, body)
}

// payload is the body of a webhook.
type payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// WebhookBody is what is posted about a run or an event: kind is its type, at
// when it happened, data its JSON. The same three give the same bytes, at each
// try.
func WebhookBody(kind string, at time.Time, data []byte) ([]byte, error) {
	b, err := json.Marshal(payload{Type: kind, Timestamp: at.UTC().Truncate(time.Millisecond), Data: data})
	if err != nil {
		return nil, fmt.Errorf("the data of %s is no JSON", kind)
	}
	return b, nil
}

// Address gives the address of a target, from its secret where it is one.
func Address(ctx context.Context, d Deps, spec *deploy.Notify) (string, error) {
	if spec.URL == nil {
		return spec.Literal, nil
	}
	return d.Secret(ctx, *spec.URL)
}
