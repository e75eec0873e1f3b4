package pipeline

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
)

func redacted(values []string, chunks ...string) string {
	r := newRedactor(values)
	var out bytes.Buffer
	for _, c := range chunks {
		out.Write(r.write([]byte(c)))
	}
	out.Write(r.flush())
	return out.String()
}

func TestSecretsAreMaskedInEveryForm(t *testing.T) {
	secret := "s3cr3t/pass+word"
	key := "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\n-----END KEY-----\n"
	for name, tt := range map[string]struct{ in, leak string }{
		"plain":             {"token is " + secret + " here", secret},
		"twice":             {secret + secret, secret},
		"base64":            {"x=" + base64.StdEncoding.EncodeToString([]byte(secret)), "czNjcjN0L3Bhc3Mrd29y"},
		"base64 of a pair":  {base64.StdEncoding.EncodeToString([]byte("user:" + secret)), base64.StdEncoding.EncodeToString([]byte("user:" + secret))[8:24]},
		"base64 one before": {base64.StdEncoding.EncodeToString([]byte("u" + secret + "tail")), base64.StdEncoding.EncodeToString([]byte("u" + secret))[4:20]},
		"base64 for URLs":   {base64.URLEncoding.EncodeToString([]byte(secret)), "czNjcjN0L3Bhc3Mrd29y"},
		"query":             {"https://h/?t=" + url.QueryEscape(secret), url.QueryEscape(secret)},
		"path, lower case":  {"https://h/s3cr3t%2fpass%2bword", "s3cr3t%2fpass%2bword"},
		"a line of it":      {"first\nmnopqrstuvwx\nlast", "mnopqrstuvwx"},
	} {
		out := redacted([]string{secret, key}, tt.in)
		if strings.Contains(out, tt.leak) || !strings.Contains(out, "***") {
			t.Errorf("%s: %q became %q, which still shows %q", name, tt.in, out, tt.leak)
		}
	}
}

func TestSecretsCutByChunksAreMasked(t *testing.T) {
	secret := "hunter2hunter3"
	text := "before " + secret + " after hunter2hunte not it"
	want := "before *** after hunter2hunte not it"
	for cut := range len(text) {
		if got := redacted([]string{secret}, text[:cut], text[cut:]); got != want {
			t.Errorf("cut at %d: %q, want %q", cut, got, want)
		}
	}
	var bytewise []string
	for i := range len(text) {
		bytewise = append(bytewise, text[i:i+1])
	}
	if got := redacted([]string{secret}, bytewise...); got != want {
		t.Errorf("byte by byte: %q, want %q", got, want)
	}
}

func TestLongerSecretWinsOverItsBeginning(t *testing.T) {
	if got := redacted([]string{"abcdef", "abcdefghij"}, "x abcdef", "ghij y abcdef z"); got != "x *** y *** z" {
		t.Errorf("got %q", got)
	}
}

func TestShortValuesAreNotMasked(t *testing.T) {
	if got := redacted([]string{"main", ""}, "domain main"); got != "domain main" {
		t.Errorf("got %q: a value under %d bytes must stay", got, minSecret)
	}
}

func FuzzRedactedNeverShowsTheSecret(f *testing.F) {
	f.Add("hunter2hunter3", "a hunter2hunter3 b", 5)
	f.Add("aaaaaaa", "aaaaaaaaaaaaaaaaaaaa", 3)
	f.Add("ab\ncdefghi\n", "cdefghi", 1)
	f.Fuzz(func(t *testing.T, secret, text string, cut int) {
		if len(secret) < minSecret || len(secret) > 1000 || strings.Contains(secret, "*") {
			t.Skip("not a secret that is masked")
		}
		if cut < 0 || cut > len(text) {
			cut = len(text) / 2
		}
		out := redacted([]string{secret}, text[:cut], text[cut:])
		if strings.Contains(out, secret) {
			t.Errorf("%q shows the secret %q", out, secret)
		}
		if len(text) > 0 && len(out) == 0 {
			t.Errorf("%q vanished", text)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	line := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog 0123456789\n", 600))
	r := newRedactor([]string{"s3cr3t/pass+word", "another-secret-of-some-length", "ghp_0123456789abcdefghijklmnopqrstuvwxyz"})
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		r.write(line)
	}
}
