package daemon

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"time"

	"deployhook/internal/config"
)

// rangesEvery is how often it is looked whether the published networks were
// fetched anew: a refused stranger must not cost a file each.
const rangesEvery = time.Second

// ranges are the published networks as they are in the data directory now.
type ranges struct {
	data   string
	mu     sync.Mutex
	looked time.Time
	info   fs.FileInfo // of the file that was read
	known  config.Ranges
}

// networks gives the networks of a service. A file that cannot be read any
// more leaves what was known before.
func (r *ranges) networks(name string) ([]netip.Prefix, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	if now := time.Now(); now.Sub(r.looked) >= rangesEvery {
		r.looked, err = now, r.look()
	}
	if list := r.known[name].Networks; len(list) > 0 {
		return list, nil
	}
	r.looked = time.Time{} // the next one looks again
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the networks of %s are not in %s: fetch them with deployhook hooks ranges", name, config.RangesFile(r.data))
}

// look reads the file where it is another one than was read.
func (r *ranges) look() error {
	info, err := os.Stat(config.RangesFile(r.data))
	if err == nil && r.info != nil && os.SameFile(info, r.info) && info.ModTime().Equal(r.info.ModTime()) {
		return nil
	}
	list, err := config.ReadRanges(r.data)
	if err != nil {
		return err
	}
	r.info, r.known = info, list
	return nil
}
