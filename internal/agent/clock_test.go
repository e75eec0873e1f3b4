package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

const year = 365 * 24 * time.Hour

// epoch is when names of releases in tests are of.
var epoch = time.Unix(0, 0)

func TestAgentGoesByTheDaemonsClock(t *testing.T) {
	t.Parallel()
	var c clock
	var during time.Time
	h := c.timed(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { during = c.now() }))
	request := func(at string) (here string) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(wire.TimeHeader, at)
		h.ServeHTTP(w, r)
		return w.Header().Get(wire.TimeHeader)
	}
	near := func(at, want time.Time) bool { return !at.Before(want) && at.Sub(want) < time.Minute }
	for _, ahead := range []time.Duration{40 * year, -40 * year, 3 * time.Hour} {
		at := time.Now().Add(ahead)
		here, err := time.Parse(time.RFC3339Nano, request(at.Format(time.RFC3339Nano)))
		if err != nil || time.Since(here).Abs() > time.Minute {
			t.Errorf("its own clock is said to be %v, %v", here, err)
		}
		if !near(during, at) || !near(c.now(), at) {
			t.Errorf("told %v it has %v, and later %v", at, during, c.now())
		}
		// What is no time changes nothing.
		for _, none := range []string{"", "yesterday", "99999-01-01T00:00:00Z"} {
			if request(none); !near(during, at) {
				t.Errorf("told %q it has %v", none, during)
			}
		}
	}
}

func TestCacheUsedLastStaysWhateverTheClockSays(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	var order []string
	for i, ahead := range []time.Duration{0, 30 * year, -30 * year, time.Hour} {
		s.now = func() time.Time { return time.Now().Add(ahead) }
		q := ask(deploy.BranchCache, "m")
		q.Pipeline = []string{"first", "second", "third", "fourth"}[i]
		s.kept(s.workspace("m/x="+q.Pipeline), q)
		order = append([]string{q.Pipeline}, order...)
	}
	listed := func() (list []string) {
		for _, one := range s.all() {
			list = append(list, one.set.Pipeline)
		}
		return list
	}
	if got := listed(); !slices.Equal(got, order) {
		t.Errorf("kept, the last first: %q, want %q", got, order)
	}
	// Taking a set is a use of it too.
	s.now = func() time.Time { return time.Now().Add(-30 * year) }
	q := ask(deploy.BranchCache, "m")
	q.Pipeline = "second"
	s.restored(s.workspace(), q)
	if got := listed(); got[0] != "second" {
		t.Errorf("after a use of the second: %q", got)
	}
}

func TestProgramsOfAClockThatWasAheadGoInTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{
		"agent-own": year, "agent-used": 29 * 24 * time.Hour, "agent-unused": 31 * 24 * time.Hour, "agent-ahead": -20 * year, "other": year,
		".new-running": time.Minute, ".new-left": 25 * time.Hour, ".new-ahead": -20 * year,
	} {
		path, at := filepath.Join(dir, name), time.Now().Add(-age)
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	tidyPrograms(filepath.Join(dir, "agent-own"), nil)
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
		st, err := e.Info()
		if err != nil || time.Until(st.ModTime()) > time.Minute {
			t.Errorf("%s is dated %v, %v", e.Name(), st.ModTime(), err)
		}
	}
	if want := []string{".new-ahead", ".new-running", "agent-ahead", "agent-own", "agent-used", "other"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

func TestWhoReadsABodySaysHowMuchHasCome(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	h := new(clock).timed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, make([]byte, 1<<10))
		fmt.Fprint(w, n, err, w.Header().Get(wire.CameHeader))
	}))
	srv := httptest.NewServer(h)
	defer srv.Close()
	var said []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		said = append(said, h.Get(wire.CameHeader))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != fmt.Sprint(size, nil, "") || res.Header.Get(wire.CameHeader) != "" {
		t.Errorf("%s, %v", b, err)
	}
	// On a busy machine it may say more, for the time.
	last := 0
	for _, s := range said {
		n, err := strconv.Atoi(s)
		if err != nil || n <= last || n > size {
			t.Errorf("it says %q", said)
			break
		}
		last = n
	}
	if len(said) < 3 || last < 16*16*4<<10 {
		t.Errorf("it says %q", said)
	}
}
