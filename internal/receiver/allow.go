package receiver

import (
	"errors"
	"fmt"
	"net/http"

	"deployhook/internal/deploy"
)

// errRanges is a list of networks that cannot be read now.
var errRanges = errors.New("reading who may send")

// allowed says whether the address of a request may send to a hook: the one
// that limits count by. A list that cannot be read lets nobody in.
func (rc *Receiver) allowed(r *http.Request, hook *deploy.Hook) error {
	if len(hook.Allow) == 0 && len(hook.Ranges) == 0 {
		return nil
	}
	from, ok := parseHop(rc.address(r))
	if ok && within(from, hook.Allow) {
		return nil
	}
	for _, name := range hook.Ranges {
		if rc.o.Ranges == nil {
			return fmt.Errorf("%w: there is no list of %s", errRanges, name)
		}
		list, err := rc.o.Ranges(name)
		if err != nil {
			return fmt.Errorf("%w: %w", errRanges, err)
		}
		if ok && within(from, list) {
			return nil
		}
	}
	return refuse(http.StatusForbidden, "this address may not send to this hook: it is not in the hook's allow")
}
