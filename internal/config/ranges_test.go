package config

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestPublishedNetworksAreFetchedWithinBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string // of the error; empty: two networks
	}{
		"good":     {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"hooks":["192.30.252.0/22","2a0a:a440::/29"]}`)) }, ""},
		"an error": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, "it answered 403"},
		"a redirect": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(http.StatusFound)
		}, "it answered 302"},
		"no JSON":  {func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }, "it is not the JSON that is documented"},
		"too much": {func(w http.ResponseWriter) { _, _ = w.Write([]byte(strings.Repeat(" ", rangesMost+1))) }, "it is over 1024 KiB"},
		"too many": {func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"hooks":["10.0.0.1"` + strings.Repeat(`,"10.0.0.1"`, allowMost) + `]}`))
		}, "1 to 1000 are wanted"},
		"everybody": {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"hooks":["::/0"]}`)) }, "::/0 is everybody"},
		"none":      {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{}`)) }, "it has 0 networks of webhooks"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) }))
		r, err := FetchRanges(t.Context(), s.URL)
		s.Close()
		switch {
		case tt.want == "" && (err != nil || len(r["github"].Networks) != 2):
			t.Errorf("%s: %v, %v", name, r, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestPublishedNetworksAreKeptWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadRanges(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before any were fetched: %v", err)
	}
	list, err := parseRanges([]byte(`{"hooks":["192.30.252.0/22"]}`))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 4, 1, 10, 0, 0, 0, time.UTC)
	for range 2 {
		if err := WriteRanges(dir, Ranges{"github": {Fetched: at, Networks: list}}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := ReadRanges(dir)
	if err != nil || !r["github"].Fetched.Equal(at) || len(r["github"].Networks) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	if RangesOld(at, at.Add(29*24*time.Hour)) || !RangesOld(at, at.Add(31*24*time.Hour)) {
		t.Error("a month is the bound")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("something is left behind: %v, %v", entries, err)
	}
	if err := WriteRanges(dir+"/gone", r); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), ".ranges-") {
		t.Errorf("into a directory that is not there: %v", err)
	}
	if err := os.WriteFile(RangesFile(dir), []byte(`{"github":{"networks":["x"]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRanges(dir); err == nil || !strings.Contains(err.Error(), "fetch it anew with deployhook hooks ranges") {
		t.Errorf("damaged: %v", err)
	}
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{`{"hooks":["192.30.252.0/22","2a0a:a440::/29"]}`, `{"hooks":["0.0.0.0/0"]}`, `{"hooks":null}`, `[]`, `{"hooks":["::ffff:1.2.3.4/120",""]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseRanges(b)
		if err == nil && (len(list) == 0 || len(list) > allowMost) {
			t.Fatalf("%d networks", len(list))
		}
		for _, p := range list {
			if !p.IsValid() || p.Bits() == 0 || p != p.Masked() {
				t.Fatalf("%v is taken for a network", p)
			}
		}
	})
}

func TestSecretsOfHooksHaveTheFormThatTheirProviderWants(t *testing.T) {
	t.Setenv("SHORT", "too short")
	t.Setenv("PLAIN", "a secret without a colon")
	t.Setenv("BROKEN", "whsec_this is no base64!")
	t.Setenv("LITTLE", "whsec_AAAAAAAAAAAAAAAA")
	t.Setenv("GOOD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f := parsed(t, `
secrets: { good: { environment: GOOD }, short: { environment: SHORT } }
hooks:
  a: { provider: azure, secret: { environment: PLAIN } }
  b: { provider: standard, secret: { environment: BROKEN } }
  c: { provider: standard, secret: [ good, { environment: LITTLE } ] }
  d: { provider: stripe, secret: { environment: BROKEN } }
  e: { provider: gitlab, secret: [ good, short ] }
`)
	errs, _ := CheckSecrets(t.Context(), f)
	var got []string
	for _, p := range errs {
		got = append(got, p.String())
	}
	same(t, got,
		"deploy.yaml:4:35: hooks.a.secret: with azure it is user:password, as the service hook has them",
		"deploy.yaml:5:38: hooks.b.secret: after whsec_ comes base64 of 16 bytes or more: was it copied whole",
		"deploy.yaml:6:46: hooks.c.secret[1]: after whsec_ comes base64 of 16 bytes or more: was it copied whole",
		"deploy.yaml:8:42: hooks.e.secret[1]: it has 9 characters, and 16 are the least: make one with openssl rand -hex 32",
	)
}
