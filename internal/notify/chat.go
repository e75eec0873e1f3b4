package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// post sends JSON and says what came of it, as a chat does. An address that is
// wrong or refused stays so: trying again would be of no use.
func post(ctx context.Context, c *http.Client, address string, body any) (Answer, error) {
	b, err := marshal(body)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(b))
	if err != nil {
		return Answer{Permanent: true}, errNoAddress
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", UserAgent)
	a, err := Do(c, req)
	if s := a.Status; s >= 300 && s < 500 && s != http.StatusTooManyRequests && s != http.StatusRequestTimeout {
		a.Permanent = true
	}
	return a, err
}

// marshal is JSON without HTML's escapes, which nobody reads here.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("making the message: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// seconds is a time to wait as services write it, within [retryMost].
func seconds(s float64) time.Duration {
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, retryMost.Seconds()) * float64(time.Second))
}
