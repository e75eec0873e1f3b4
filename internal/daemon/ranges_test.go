package daemon_test

import (
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deployhook/internal/config"
	"deployhook/internal/daemon"
)

// A fetch counts without a reload, and what is damaged takes nothing away.
func TestPublishedNetworksCountOnceTheyAreFetched(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		networks := daemon.Networks(dir)
		if _, err := networks("github"); err == nil {
			t.Error("there are networks before any were fetched")
		}
		keep := func(network string) {
			t.Helper()
			r := config.Ranges{"github": {Fetched: time.Now(), Networks: []netip.Prefix{netip.MustParsePrefix(network)}}}
			if err := config.WriteRanges(dir, r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		for _, network := range []string{"192.30.252.0/22", "203.0.113.0/24"} {
			keep(network)
			if list, err := networks("github"); err != nil || len(list) != 1 || list[0].String() != network {
				t.Errorf("got %v, %v, want %s", list, err, network)
			}
		}
		if err := os.WriteFile(config.RangesFile(dir), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if list, err := networks("github"); err != nil || len(list) != 1 {
			t.Errorf("with a damaged file: %v, %v", list, err)
		}
		if _, err := networks("gitlab"); err == nil || !strings.Contains(err.Error(), "ranges.json") {
			t.Errorf("a list that is not there: %v", err)
		}
	})
}

// The sender of such a request may not even get to read the 431 before its
// connection ends; the next one is served as ever.
func TestHeaderOfAMegabyteIsRefusedAndTakesNothingDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(s.config("") + pay)
	for range 5 {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/hooks/webhook", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Deployhook-Token", strings.Repeat("a", 1<<20))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 1 MB is answered %d", res.StatusCode)
		}
	}
	if got := s.payment(http.DefaultClient, "after"); got.status != http.StatusAccepted {
		t.Errorf("after it: %+v", got)
	}
}
