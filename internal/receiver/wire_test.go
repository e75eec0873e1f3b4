package receiver_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

// raw sends bytes on a connection of its own and gives what comes back until
// the other end closes it.
func (x *fixture) raw(text string) string {
	x.t.Helper()
	c, err := net.Dial("tcp", x.Listener.Addr().String())
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		x.t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(b)
}

// request is a signed push as it stands on the wire; lines are more headers.
func request(version, path string, body []byte, lines ...string) string {
	head := append([]string{
		"POST " + path + " HTTP/" + version, "Host: x", "Content-Type: application/json", "X-GitHub-Event: push",
		fmt.Sprintf("Content-Length: %d", len(body)),
	}, lines...)
	return strings.Join(head, "\r\n") + "\r\n\r\n" + string(body)
}

func numbered(n int) []byte { return push(func(p map[string]any) { p["n"] = n }) }

func TestOddWaysOfHTTP(t *testing.T) {
	x := start(t)
	n := 0
	for _, tt := range []struct {
		name, version, path string
		lines               []string // SIGN stands for the right signature
		want                string
	}{
		{"HTTP/1.0", "1.0", "/hooks/github", []string{"X-Hub-Signature-256: SIGN"}, "202"},
		{"a hook's name in percents", "1.1", "/hooks/git%68ub", []string{"X-Hub-Signature-256: SIGN"}, "202"},
		{"a slash in percents", "1.1", "/hooks%2Fgithub", []string{"X-Hub-Signature-256: SIGN"}, "202"},
		{"a whole address", "1.1", "http://x/hooks/github", []string{"X-Hub-Signature-256: SIGN"}, "202"},
		{"a slash at the end", "1.1", "/hooks/github/", []string{"X-Hub-Signature-256: SIGN"}, "404"},
		{"another case", "1.1", "/hooks/GitHub", []string{"X-Hub-Signature-256: SIGN"}, "404"},
		{"two slashes", "1.1", "//hooks/github", []string{"X-Hub-Signature-256: SIGN"}, "404"},
		{"dots", "1.1", "/x/../hooks/github", []string{"X-Hub-Signature-256: SIGN"}, "404"},
		{"NUL in the name", "1.1", "/hooks/github%00", []string{"X-Hub-Signature-256: SIGN"}, "404"},
		{"a header in lower case", "1.1", "/hooks/github", []string{"x-hub-signature-256: SIGN"}, "202"},
		{"space around the signature", "1.1", "/hooks/github", []string{"X-Hub-Signature-256:  \t SIGN \t"}, "202"},
		{"space in the signature", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: sha256= SIGN"}, "401"},
		{"the signature twice", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "X-Hub-Signature-256: SIGN"}, "401"},
		{"a wrong one first", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: sha256=" + strings.Repeat("0", 64), "X-Hub-Signature-256: SIGN"}, "401"},
		{"a wrong one last", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "X-Hub-Signature-256: sha256=" + strings.Repeat("0", 64)}, "401"},
		{"two with a comma", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN, SIGN"}, "401"},
		{"SHA-1 beside it", "1.1", "/hooks/github", []string{"X-Hub-Signature: sha1=" + strings.Repeat("0", 40), "X-Hub-Signature-256: SIGN"}, "202"},
		{"Expect", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "Expect: 100-continue"}, "202"},
		{"an unknown Expect", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "Expect: 200-maybe"}, "417"},
		{"compressed", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "Content-Encoding: gzip"}, "415"},
		{"identity", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "Content-Encoding: identity"}, "202"},
		{"compressed and unsigned", "1.1", "/hooks/github", []string{"Content-Encoding: gzip"}, "401"},
		{"two lengths", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "Content-Length: 1"}, "400"},
		{"another method in a header", "1.1", "/hooks/github", []string{"X-Hub-Signature-256: SIGN", "X-HTTP-Method-Override: GET"}, "202"},
	} {
		n++
		body := numbered(n)
		text := request(tt.version, tt.path, body, append(tt.lines, "Connection: close")...)
		got := x.raw(strings.ReplaceAll(text, "SIGN", sign(body)))
		got = strings.TrimPrefix(got, "HTTP/1.1 100 Continue\r\n\r\n")
		if line, _, _ := strings.Cut(got, "\r\n"); !strings.Contains(line, " "+tt.want+" ") {
			t.Errorf("%s: %q, want %s", tt.name, line, tt.want)
		}
	}
}

func TestRequestsBehindOneAnotherAreAllAnswered(t *testing.T) {
	x := start(t)
	var all strings.Builder
	for i := range 3 {
		lines := []string{"X-Hub-Signature-256: " + sign(numbered(i))}
		if i == 2 {
			lines = append(lines, "Connection: close")
		}
		all.WriteString(request("1.1", "/hooks/github", numbered(i), lines...))
	}
	in := bufio.NewReader(strings.NewReader(x.raw(all.String())))
	for i := range 3 {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 202 || !strings.Contains(string(b), fmt.Sprintf(`"runs":[%d]`, i+1)) {
			t.Errorf("answer %d: %d %s, %v", i, res.StatusCode, b, err)
		}
	}
}

func TestNoBodyIsAskedForWhereItIsNotWanted(t *testing.T) {
	x := start(t)
	for path, want := range map[string]string{"/hooks/none": "404", "/hooks/github": "413"} {
		got := x.raw("POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 27262976\r\n\r\n")
		if line, _, _ := strings.Cut(got, "\r\n"); !strings.Contains(line, want) {
			t.Errorf("%s: %q, want %s at once", path, line, want)
		}
	}
}

func TestSenderThatHangsUpHasSentAGoodDelivery(t *testing.T) {
	x := start(t)
	for i := range 20 {
		c, err := net.Dial("tcp", x.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body := numbered(i)
		if _, err := io.WriteString(c, request("1.1", "/hooks/github", body, "X-Hub-Signature-256: "+sign(body))); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	waitFor(t, "all runs", func() bool {
		list, err := x.store.Runs(t.Context(), deploy.RunFilter{})
		return err == nil && len(list) == 20
	})
	// Sent again, each is known.
	for i := range 20 {
		if r := x.github("push", fmt.Sprint("again-", i), numbered(i)); r.status != 200 || len(r.Runs) != 1 {
			t.Errorf("delivery %d sent again: %+v", i, r)
		}
	}
}

func TestEverySignatureErrorSaysWhatToDo(t *testing.T) {
	x := start(t)
	body := push(nil)
	good := sign(body)
	for name, tt := range map[string]struct {
		header []string
		want   string
	}{
		"missing":         {nil, "no signature: set the same secret on both sides"},
		"empty":           {[]string{"X-Hub-Signature-256", "sha256="}, "no signature: set the same secret on both sides"},
		"both empty":      {[]string{"X-Hub-Signature-256", "sha256=", "X-Hub-Signature", "sha1="}, "no signature: set the same secret on both sides"},
		"SHA-1 only":      {[]string{"X-Hub-Signature", "sha1=" + strings.Repeat("a", 40)}, "only the old SHA-1 signature is here: X-Hub-Signature-256 is wanted"},
		"upper case":      {[]string{"X-Hub-Signature-256", "sha256=" + strings.ToUpper(good[7:])}, "64 hexadecimal digits in lower case"},
		"truncated":       {[]string{"X-Hub-Signature-256", good[:40]}, "the signature is not sha256= and 64 hexadecimal digits"},
		"of another body": {[]string{"X-Hub-Signature-256", sign([]byte("{}"))}, "wrong signature: the secret here is not the one that signed this body"},
	} {
		if r := x.send("/hooks/github", body, append(tt.header, "X-GitHub-Event", "push")...); r.status != 401 || !strings.Contains(r.Message, tt.want) {
			t.Errorf("%s: %+v, want %q", name, r, tt.want)
		}
	}
}

func TestTokenInAnAddressMayHavePlusAndPercent(t *testing.T) {
	const odd = "a+b/c=d%e&f g\"<é>+1234567890=="
	x := start(t)
	t.Setenv("TEST_TOKEN", odd)
	body := []byte(`{"type":"payment.approved"}`)
	for query, want := range map[string]int{
		"?token=" + url.QueryEscape(odd):                                202,
		"?token=" + url.PathEscape(odd):                                 401, // its & ends the token
		"?token=" + strings.ReplaceAll(url.PathEscape(odd), "&", "%26"): 202, // + as it is
		"?x=1&secret=" + url.QueryEscape(odd) + "&y":                    202,
		"?%74oken=" + url.QueryEscape(odd):                              202,
		"?token=" + url.QueryEscape(odd) + "&token=%zz":                 401,
		"?token=" + url.QueryEscape(odd) + "&token":                     401,
		"?token=%zz":                            401,
		"?token=" + url.QueryEscape(odd) + ";x": 401,
		"?TOKEN=" + url.QueryEscape(odd):        401,
		"?token=" + strings.ReplaceAll(url.QueryEscape(odd), "%2B", "%20"): 401,
	} {
		if r := x.send("/hooks/webhook"+query, body); r.status != want {
			t.Errorf("%s: %+v, want %d", query, r, want)
		}
	}
	if strings.Contains(x.log.String(), "a+b/c") || strings.Contains(x.log.String(), url.QueryEscape(odd)) {
		t.Errorf("the log tells the token:\n%s", x.log)
	}
}

func TestSecretThatWasMadeShortLetsNobodyIn(t *testing.T) {
	x := start(t)
	t.Setenv("TEST_SECRET", "short")
	t.Setenv("TEST_TOKEN", "short-as-well")
	for path, header := range map[string][]string{"/hooks/github": {"X-Hub-Signature-256", sign(push(nil))}, "/hooks/webhook?token=short-as-well": nil} {
		if r := x.send(path, push(nil), header...); r.status != 503 || !strings.Contains(r.Message, "secret cannot be read") {
			t.Errorf("%s: %+v, want 503", path, r)
		}
	}
	if !strings.Contains(x.log.String(), "characters, and 16 are the least") {
		t.Errorf("the log does not say why:\n%s", x.log)
	}
}

func TestTokenInAPayloadIsNotKept(t *testing.T) {
	x := start(t)
	odd := "a+b/c=d<e>\"f&1234567890"
	t.Setenv("TEST_TOKEN", odd)
	// GitHub's ping tells the address of the hook, its query included.
	for i, address := range []string{
		"https://x/hooks/both?token=" + url.QueryEscape(odd), "https://x/hooks/both?token=" + url.PathEscape(odd), "https://x/hooks/both?token=" + odd,
	} {
		body := push(func(p map[string]any) {
			delete(p, "ref")
			p["hook"] = map[string]any{"config": map[string]any{"url": address, "secret": "********"}}
			p["zen"] = secret
			p["i"] = i
		})
		r := x.send("/hooks/both", body, "X-Deployhook-Token", odd, "X-GitHub-Event", "ping", "X-Hub-Signature-256", sign(body))
		if r.status != 200 {
			t.Fatalf("got %+v", r)
		}
		d, err := x.store.Delivery(t.Context(), r.Delivery)
		if err != nil || !strings.Contains(string(d.Body), `https://x/hooks/both?token=***"`) || strings.Contains(string(d.Body), secret) || bytes.Contains(d.Body, []byte("1234567890")) {
			t.Errorf("%s is kept as %s, %v", address, d.Body, err)
		}
		if again := x.send("/hooks/both", body, "X-Deployhook-Token", odd, "X-GitHub-Event", "ping", "X-Hub-Signature-256", sign(body)); again.Delivery != r.Delivery {
			t.Errorf("sent again it is another delivery: %+v, %+v", r, again)
		}
	}
}

func FuzzTokenInQuery(f *testing.F) {
	f.Add("a+b/c=d%e&f g 1234567890", "x=1")
	f.Add("0123456789abcdef", "token")
	f.Add("%zz;é\x00", "secret=1&%zz")
	f.Fuzz(func(t *testing.T, token, beside string) {
		r, err := http.NewRequest(http.MethodPost, "http://x/hooks/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = "token=" + url.QueryEscape(token)
		if err := receiver.CheckToken(r, token); err != nil {
			t.Errorf("%q is not found in %q: %v", token, r.URL.RawQuery, err)
		}
		if err := receiver.CheckToken(r, token+"x"); err == nil {
			t.Errorf("%q is taken for %q", token, token+"x")
		}
		r.URL.RawQuery += "&" + beside + "&secret=" + url.QueryEscape(token)
		if err := receiver.CheckToken(r, token); err == nil {
			t.Errorf("two tokens are taken: %q", r.URL.RawQuery)
		}
	})
}
