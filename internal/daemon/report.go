package daemon

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"deployhook/internal/deploy"
)

// reporter says what this daemon is, at any moment.
func (d *daemon) reporter(listen string) func() deploy.DaemonReport {
	started := time.Now().UTC()
	return func() deploy.DaemonReport {
		f := d.file.Load()
		return deploy.DaemonReport{
			Version: d.o.Version, PID: os.Getpid(), User: userName(), Started: started, Config: f.Path, Digest: f.Deploy.Digest, Listen: listen,
		}
	}
}

// sizePath is below /hooks/, so that a proxy treats it as a hook, and none can
// have its name.
const sizePath = "/hooks/-size"

// Bounds of a probe of size.
const (
	sizeMost = 25 << 20 // bytes: GitHub's cap
	sizeTime = 30 * time.Second
)

// sizeProbe answers how many bytes of a body came through, for doctor: so it
// finds a proxy's limit without a secret, and without an attempt at one. A
// body is dropped as it is read, and one is read at a time.
type sizeProbe struct{ busy atomic.Bool }

func (p *sizeProbe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !p.busy.CompareAndSwap(false, true) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, `{"message":"another probe is being read"}`)
		return
	}
	defer p.busy.Store(false)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(sizeTime))
	n, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, sizeMost))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		fmt.Fprintln(w, `{"message":"the body is over 25 MiB, or was cut off"}`)
		return
	}
	fmt.Fprintf(w, "{\"bytes\":%d}\n", n)
}
