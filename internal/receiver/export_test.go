package receiver

import (
	"net/http"

	"deployhook/internal/deploy"
)

// What the tests of the package look at besides its exported names.
var (
	PayloadOf = payloadOf
	Sender    = sender
)

// CheckSignature holds a request's signature against one secret.
func CheckSignature(h http.Header, hook *deploy.Hook, secret string, body []byte) error {
	return checkSignature(h, hook, []string{secret}, body)
}

// CheckGitHub is that of a github hook.
func CheckGitHub(h http.Header, secret string, body []byte) error {
	return CheckSignature(h, &deploy.Hook{Provider: "github"}, secret, body)
}

// CheckToken holds a request's token against one.
func CheckToken(r *http.Request, want string) error { return checkToken(r, "generic", []string{want}) }

// BodyTime is how long a body may take.
const BodyTime = bodyTime

// Held is how many bytes of bodies are in memory.
func Held(rc *Receiver) int64 { return rc.memory.held.Load() }

// Parts are the payloads that a delivery is taken apart into.
func Parts(provider string, payload []byte) [][]byte {
	list, err := parts(providers[provider], payload)
	if err != nil {
		return nil
	}
	return list
}
