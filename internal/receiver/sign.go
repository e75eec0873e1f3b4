package receiver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"deployhook/internal/deploy"
)

// keys are what a delivery is signed with; empty = the hook has none.
type keys struct {
	secret, token string
}

// keys reads those of a hook, or makes ones that nobody has.
func (rc *Receiver) keys(ctx context.Context, hook *deploy.Hook, right bool) (k keys, err error) {
	for _, of := range []struct {
		secret *deploy.Secret
		into   *string
	}{{hook.Secret, &k.secret}, {hook.Token, &k.token}} {
		switch {
		case of.secret == nil:
		case !right:
			*of.into = randomHex(32)
		default:
			if *of.into, err = rc.secret(ctx, *of.secret); err != nil {
				return keys{}, err
			}
		}
	}
	return k, nil
}

// trialBody is a payload that the provider's reader takes and that is no event
// of any kind.
func trialBody(provider, id string) map[string]any {
	switch provider {
	case "github":
		return map[string]any{"zen": "This is a test of deployhook.", "hook_id": 0}
	}
	return map[string]any{"id": id, "type": "deployhook.test"}
}

// sign gives the headers of a delivery as the hook's sender would make them. A
// token goes into a header, since proxies write addresses into their logs.
func sign(hook *deploy.Hook, k keys, id string, body []byte, _ time.Time) http.Header {
	h := http.Header{}
	if k.token != "" {
		h.Set("X-Deployhook-Token", k.token)
	}
	if hook.Provider == "github" {
		h.Set("X-GitHub-Event", "ping")
		h.Set("X-GitHub-Delivery", id)
	} else {
		h.Set("Idempotency-Key", id)
	}
	if k.secret != "" {
		h.Set(signatureHeader, "sha256="+macHex(k.secret, body))
	}
	return h
}

// macHex is the HMAC-SHA256 of a body in hexadecimal.
func macHex(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
