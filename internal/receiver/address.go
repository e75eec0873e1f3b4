package receiver

import (
	"net/http"
	"net/netip"
	"strings"
)

// hopsMost bounds how many addresses of a header are looked at.
const hopsMost = 100

// address is who sent the request, for log lines and limits: the peer, or
// where that is a trusted proxy, whom it names in X-Forwarded-For. No other
// header is read for it: a proxy passes on what it does not know, and so
// anybody could write it.
func (rc *Receiver) address(r *http.Request) string {
	return sender(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), rc.o.Proxies)
}

// sender reads the hops of X-Forwarded-For from the right, where each proxy
// adds whom it saw. The first that is no trusted proxy is the sender; what
// stands left of it is that one's own word. Where a trusted proxy names
// nothing that is an address, it stands for what is behind it.
//
// A peer without an address, as on a Unix socket, is believed nothing.
func sender(peer string, header []string, trusted []netip.Prefix) string {
	at, ok := parseHop(peer)
	if !ok {
		return clip(peer)
	}
	looked := 0
	for i := len(header) - 1; i >= 0; i-- {
		rest := header[i]
		for more := true; more; looked++ {
			if looked == hopsMost || !within(at, trusted) {
				return at.String()
			}
			hop := rest
			if cut := strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, hop = rest[:cut], rest[cut+1:]
			} else {
				more = false
			}
			next, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				return at.String()
			}
			at = next
		}
	}
	return at.String()
}

// parseHop reads an address, with or without a port, as proxies write it.
func parseHop(s string) (netip.Addr, bool) {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return p.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(s, "]") {
		s = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), err == nil
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
