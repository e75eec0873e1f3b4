package daemon

import "net/netip"

// Networks gives the published networks of a data directory, as hooks ask for them.
func Networks(data string) func(name string) ([]netip.Prefix, error) {
	return (&ranges{data: data}).networks
}
