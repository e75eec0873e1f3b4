package receiver

import (
	"net/http"
	"time"
)

// apiHook stands for the API where hooks are counted: no hook has such a name.
const apiHook = "/api"

// RetryAfter is how long an address with too many wrong tokens is to wait.
const RetryAfter = refusalWindow

// WrongToken counts a request of the API that was refused for its token as one
// of a hook would be: who guesses has as many tries at both together. It says
// whether its address has sent too many.
func (rc *Receiver) WrongToken(r *http.Request, why string) (tooMany bool) {
	tooMany = rc.refused.tooMany(rc.address(r), time.Now())
	status := http.StatusUnauthorized
	if tooMany {
		status = http.StatusTooManyRequests
	}
	if unlogged, ok := rc.refused.sayIt(kind{hook: apiHook, status: status}, time.Now()); ok {
		rc.o.Log.Warn("request refused", append([]any{"hook", apiHook, "status", status, "err", why, "from", rc.address(r)}, unlogged...)...)
	}
	return tooMany
}
