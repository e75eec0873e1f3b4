package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// thisMachine is who is believed when nothing is said: a proxy on this machine.
var thisMachine = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// networks reads a list of addresses and networks: items of the file, or what
// a variable or a flag has between commas.
func (r *serverReader) networks(name string, def []netip.Prefix) []netip.Prefix {
	list := []netip.Prefix{}
	read := func(n *node, text string) {
		p, err := parseNetwork(text)
		if err != nil {
			r.badAt(n, name, "%v", err)
			return
		}
		list = append(list, p)
	}
	if r.checked(name) {
		for _, item := range r.written[name].items {
			read(item, item.text)
		}
		return list
	}
	text := r.text(name, "")
	if text == "" {
		return def
	}
	for part := range strings.SplitSeq(text, ",") {
		read(nil, strings.TrimSpace(part))
	}
	return list
}

// parseNetwork reads a network, or an address as the network of it alone.
func parseNetwork(s string) (netip.Prefix, error) {
	wrong := fmt.Errorf("an address or a network is wanted here, like 10.0.0.5 or 10.0.0.0/8, not %q", short(s))
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, wrong
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, wrong
	case p.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%s is everybody: then each sender could write the address that it is known by", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s is not a network: did you mean %s, or %s alone", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// networksText is a list as it would be written.
func networksText(list []netip.Prefix) string {
	parts := make([]string, len(list))
	for i, p := range list {
		if parts[i] = p.String(); p.IsSingleIP() {
			parts[i] = p.Addr().String()
		}
	}
	return strings.Join(parts, ", ")
}
