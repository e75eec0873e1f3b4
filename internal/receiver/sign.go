package receiver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"deployhook/internal/deploy"
)

// keys are what a delivery is signed with; empty = the hook has none.
type keys struct {
	secret, token string
}

// keys reads those of a hook, of several the first that can be read, or makes
// ones that nobody has.
func (rc *Receiver) keys(ctx context.Context, hook *deploy.Hook, right bool) (k keys, err error) {
	for _, of := range []struct {
		secrets []deploy.Secret
		into    *string
	}{{hook.Secrets, &k.secret}, {hook.Tokens, &k.token}} {
		switch {
		case len(of.secrets) == 0:
		case !right:
			*of.into = randomHex(32)
		default:
			values, err := rc.readable(ctx, of.secrets)
			if len(values) == 0 {
				return keys{}, err
			}
			*of.into = values[0]
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
	case "gitlab":
		return map[string]any{"object_kind": "deployhook_test"}
	case "azure":
		return map[string]any{"id": id, "eventType": "deployhook.test"}
	}
	return map[string]any{"id": id, "type": "deployhook.test"}
}

// sign gives the headers of a delivery as the hook's sender would make them. A
// token goes into a header, since proxies write addresses into their logs.
func sign(hook *deploy.Hook, k keys, id string, body []byte, at time.Time) http.Header {
	h := http.Header{}
	digits := macHex(sha256.New, k.secret, body)
	named := func(prefix, event string) {
		h.Set("X-"+prefix+"-Event", event)
		h.Set("X-"+prefix+"-Delivery", id)
	}
	signature := func(name, value string) {
		if k.secret != "" {
			h.Set(name, value)
		}
	}
	token := "X-Deployhook-Token"
	switch hook.Provider {
	case "github":
		named("GitHub", "ping")
		signature(signatureHeader, "sha256="+digits)
	case "gitea", "forgejo":
		named("Gitea", "deployhook_test")
		signature("X-Gitea-Signature", digits)
	case "gogs":
		named("Gogs", "deployhook_test")
		signature("X-Gogs-Signature", digits)
	case "gitlab":
		h.Set("X-Gitlab-Event", "Test Hook")
		h.Set("X-Gitlab-Event-UUID", id)
		token = "X-Gitlab-Token"
	case "bitbucket":
		h.Set("X-Event-Key", "diagnostics:ping")
		h.Set("X-Request-UUID", id)
		signature(bitbucketHeader, "sha256="+digits)
	case "azure":
		signature("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(k.secret)))
	case "standard":
		seconds := strconv.FormatInt(at.Unix(), 10)
		key, _ := standardKey(k.secret) // none fits one that is not base64
		h.Set(standardwebhooks.HeaderWebhookID, id)
		h.Set(standardwebhooks.HeaderWebhookTimestamp, seconds)
		signature(standardwebhooks.HeaderWebhookSignature,
			"v1,"+base64.StdEncoding.EncodeToString(mac(sha256.New, string(key), []byte(id+"."+seconds+"."), body)))
	case "stripe":
		seconds := strconv.FormatInt(at.Unix(), 10)
		signature(stripeHeader, "t="+seconds+",v1="+macHex(sha256.New, k.secret, []byte(seconds+"."), body))
	case "generic":
		h.Set("Idempotency-Key", id)
		if form := hashes[hook.Signature.Algorithm]; form != nil {
			sum := mac(form, k.secret, body)
			text := hex.EncodeToString(sum)
			if hook.Signature.Encoding == "base64" {
				text = base64.StdEncoding.EncodeToString(sum)
			}
			signature(hook.Signature.Header, hook.Signature.Prefix+text)
		}
	}
	if k.token != "" {
		h.Set(token, k.token)
	}
	return h
}

// mac is the HMAC of texts one after the other.
func mac(form func() hash.Hash, secret string, texts ...[]byte) []byte {
	m := hmac.New(form, []byte(secret))
	for _, t := range texts {
		m.Write(t)
	}
	return m.Sum(nil)
}

// macHex is [mac] in hexadecimal.
func macHex(form func() hash.Hash, secret string, texts ...[]byte) string {
	return hex.EncodeToString(mac(form, secret, texts...))
}
