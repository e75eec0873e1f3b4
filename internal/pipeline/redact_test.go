package pipeline

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func redacted(values []string, chunks ...string) string {
	return newMasks(values).redacted(chunks...)
}

func (m *masks) redacted(chunks ...string) string {
	r := redactor{masks: m}
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

// encodings are the ways in which programs print a secret and that are masked.
var encodings = map[string]func(string) string{
	"plain":               func(s string) string { return s },
	"query":               url.QueryEscape,
	"path":                url.PathEscape,
	"query, lower case":   func(s string) string { return lowerHex(url.QueryEscape(s)) },
	"path, lower case":    func(s string) string { return lowerHex(url.PathEscape(s)) },
	"every byte of a URL": func(s string) string { return "%" + strings.ReplaceAll(fmt.Sprintf("% x", s), " ", "%") },
	"JavaScript's URL": func(s string) string {
		return strings.NewReplacer("%21", "!", "%27", "'", "+", "%20").Replace(url.QueryEscape(s))
	},
	"JSON":                  func(s string) string { return jsonText(s, true) },
	"JSON without HTML":     func(s string) string { return jsonText(s, false) },
	"PHP's JSON":            func(s string) string { return strings.ReplaceAll(jsonText(s, false), "/", `\/`) },
	"JSON in ASCII":         func(s string) string { return strings.Trim(strconv.QuoteToASCII(s), `"`) },
	"a shell's trace":       func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" },
	"base64":                func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64, one before":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte("u" + s + "tail"))[2:] },
	"base64, two before":    func(s string) string { return base64.StdEncoding.EncodeToString([]byte("u:" + s + "tail"))[3:] },
	"base64 for URLs":       func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"base64 of the command": func(s string) string { return wrapped(base64.StdEncoding.EncodeToString([]byte(s+"\n")), 76, "\n") },
	"base64 of openssl":     func(s string) string { return wrapped(base64.StdEncoding.EncodeToString([]byte("a:"+s)), 64, "\n")[3:] },
	"base64 of a mail":      func(s string) string { return wrapped(base64.StdEncoding.EncodeToString([]byte(s)), 76, "\r\n") },
	"base64 in small lines": func(s string) string { return wrapped(base64.StdEncoding.EncodeToString([]byte(s)), 1, "\n") },
	"base64 in a query":     func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s))) },
}

func lowerHex(s string) string {
	return regexp.MustCompile("%[0-9A-F]{2}").ReplaceAllStringFunc(s, strings.ToLower)
}

func jsonText(s string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	_ = e.Encode(s)
	return strings.Trim(strings.TrimSpace(b.String()), `"`)
}

func wrapped(s string, width int, end string) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width] + end)
		s = s[width:]
	}
	return b.String() + s
}

func TestEverySecretIsMaskedInEveryEncoding(t *testing.T) {
	for _, secret := range []string{
		"hunter", "s3cr3t/pass+word", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"a b&c=d%e\"f\\g'h", "p%25q<r>s!t", "ünï-cödé-пароль", "tab\there", strings.Repeat("long/+", 40),
	} {
		m := newMasks([]string{secret})
		for name, encode := range encodings {
			text := encode(secret)
			out := m.redacted("before " + text + " after")
			// A letter of base64 at each end holds bits of a neighbour, which is shown.
			rest := strings.NewReplacer("before ", "", " after", "", "***", "", "'", "", "\n", "").Replace(out)
			if !strings.Contains(out, "***") || len(rest) > 9 || !strings.HasPrefix(out, "before ") || !strings.HasSuffix(out, " after") {
				t.Errorf("%s of %q: %q became %q", name, secret, text, out)
			}
			for cut := 1; cut < len(text); cut++ {
				if got := m.redacted("before "+text[:cut], text[cut:]+" after"); got != out {
					t.Fatalf("%s of %q: cut at %d it becomes %q, whole %q", name, secret, cut, got, out)
				}
			}
		}
	}
}

func TestWordsLikeASecretStay(t *testing.T) {
	for _, text := range []string{
		"hunter3", "100% of hunter%", "hunter%33x", `hunter\n2`, "+%+\\+%2", `\u00`, "%", "aHVu", "hunter\n2", "%68unte", `'\''`,
	} {
		if got := redacted([]string{"hunter2", "it's 100%"}, text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func FuzzRedactedNeverShowsTheSecret(f *testing.F) {
	f.Add("hunter2hunter3", "a hunter2hunter3 b", 5)
	f.Add("aaaaaaa", "aaaaaaaaaaaaaaaaaaaa", 3)
	f.Add("ab\ncdefghi\n", "cdefghi", 1)
	f.Add("100%25%+\\u0031", "x", 1)
	f.Add("it's \\'quoted'", "\\", 2)
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
		if whole := redacted([]string{secret}, text); whole != out {
			t.Errorf("%q becomes %q whole and %q cut at %d", text, whole, out, cut)
		}
		for _, name := range []string{"query", "path, lower case", "base64", "base64 of the command"} {
			if encoded := encodings[name](secret); strings.Contains(redacted([]string{secret}, text, encoded), encoded) {
				t.Errorf("the %s of %q is shown behind %q", name, secret, text)
			}
		}
	})
}

// slowly is what redacted must give: every place is looked at.
func (m *masks) slowly(text []byte) string {
	var out []byte
	for i := 0; i < len(text); {
		n := 0
		if m.mayBegin(text[i:]) {
			n, _ = m.match(text[i:])
		}
		if n == 0 {
			out, i = append(out, text[i]), i+1
			continue
		}
		out, i = append(out, mask...), i+n
	}
	return string(out)
}

func FuzzNoPlaceIsPassedOver(f *testing.F) {
	f.Add("hunter2hunter3", "another secret+of", "a hunter2hunter3 b another+secret%2Bof c", 7)
	f.Add("aaaaaaab", "aaaaaaac", "aaaaaaaaaaaaaaaaaaabaaaaaaaac", 3)
	f.Add("it's \\'quoted'", "line one\nline two", "it'\\''s \\'quoted' bGluZSBvbm\nUKbGluZSB0d28=", 20)
	f.Add("päßwörd", "0123456789", "p\\u00e4\\u00dfw\\u00f6rd %30%31%32%33%34%35%36789 MDEyMzQ1Njc4OQ==", 33)
	f.Fuzz(func(t *testing.T, one, two, text string, cut int) {
		if len(one)+len(two)+len(text) > 4000 {
			t.Skip("long")
		}
		m := newMasks([]string{one, two})
		if cut < 0 || cut > len(text) {
			cut = len(text) / 2
		}
		want := m.slowly([]byte(text))
		if got := m.redacted(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		if got := m.redacted(text[:cut], text[cut:]); got != want {
			t.Errorf("%q becomes %q when it is cut at %d, want %q", text, got, cut, want)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	line := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog 0123456789\n", 600))
	r := redactor{masks: newMasks([]string{"s3cr3t/pass+word", "another-secret-of-some-length", "ghp_0123456789abcdefghijklmnopqrstuvwxyz"})}
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		r.write(line)
	}
}
