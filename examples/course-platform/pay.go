package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// payment is an event of the payment service.
type payment struct{ body []byte }

// newPayment makes the event that Stripe sends of a payment that went through,
// or of one that was given back.
//
// Source: docs.stripe.com/api/events, the fields that are read here.
func newPayment(student, course string, refund bool, at time.Time) payment {
	kind, object := "payment_intent.succeeded", "payment_intent"
	if refund {
		kind, object = "charge.refunded", "charge"
	}
	body, err := json.Marshal(map[string]any{
		"id": "evt_" + strings.ToLower(rand.Text()), "object": "event", "type": kind, "created": at.Unix(),
		"data": map[string]any{"object": map[string]any{
			"id": "py_" + strings.ToLower(rand.Text()), "object": object, "amount": 4900, "currency": "eur", "refunded": refund,
			"metadata": map[string]string{"student": student, "course": course},
		}},
	})
	if err != nil {
		panic(err) // of maps and strings there is none
	}
	return payment{body}
}

// sign gives the header Stripe-Signature.
//
// Source: docs.stripe.com/webhooks, "Verify webhook signatures manually".
func (p payment) sign(secret string, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), p.body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// send posts the event, signed at a time, and gives the answer.
func (p payment) send(ctx context.Context, to, secret string, at time.Time) (status int, answer string, err error) {
	if secret == "" {
		return 0, "", errors.New("STRIPE_WEBHOOK_SECRET is not set")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(p.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Stripe-Signature", p.sign(secret, at))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, strings.TrimSpace(string(b)), err
}
