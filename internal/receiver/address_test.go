package receiver_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/config"
	"deployhook/internal/receiver"
)

func networks(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestSenderIsTheLastHopThatIsNoTrustedProxy(t *testing.T) {
	lo := networks("127.0.0.0/8", "::1/128")
	two := networks("127.0.0.0/8", "10.0.0.0/8")
	for _, tt := range []struct {
		name    string
		peer    string
		header  []string
		trusted []netip.Prefix
		want    string
	}{
		{"no proxy", "203.0.113.7:4711", nil, lo, "203.0.113.7"},
		{"no proxy, and it names another", "203.0.113.7:4711", []string{"198.51.100.1"}, lo, "203.0.113.7"},
		{"one proxy", "127.0.0.1:4711", []string{"203.0.113.7"}, lo, "203.0.113.7"},
		{"one proxy over IPv6", "[::1]:4711", []string{"2001:db8::7"}, lo, "2001:db8::7"},
		{"IPv4 on an IPv6 socket", "[::ffff:127.0.0.1]:4711", []string{"::ffff:203.0.113.7"}, lo, "203.0.113.7"},
		{"the proxy adds to what the sender wrote", "127.0.0.1:1", []string{"198.51.100.1, 203.0.113.7"}, lo, "203.0.113.7"},
		{"in a line of its own", "127.0.0.1:1", []string{"198.51.100.1", "203.0.113.7"}, lo, "203.0.113.7"},
		{"the sender names a proxy", "127.0.0.1:1", []string{"127.0.0.1, 203.0.113.7"}, lo, "203.0.113.7"},
		{"two proxies", "127.0.0.1:1", []string{"198.51.100.1, 203.0.113.7, 10.1.2.3"}, two, "203.0.113.7"},
		{"two proxies, one believed", "127.0.0.1:1", []string{"203.0.113.7, 10.1.2.3"}, lo, "10.1.2.3"},
		{"with ports", "127.0.0.1:1", []string{"203.0.113.7:5000"}, lo, "203.0.113.7"},
		{"with brackets and port", "127.0.0.1:1", []string{"[2001:db8::7]:5000"}, lo, "2001:db8::7"},
		{"with brackets", "127.0.0.1:1", []string{"[2001:db8::7]"}, lo, "2001:db8::7"},
		{"with a zone", "127.0.0.1:1", []string{"fe80::1%eth0"}, lo, "fe80::1"},
		{"only proxies", "127.0.0.1:1", []string{"10.0.0.1, 10.0.0.2"}, two, "10.0.0.1"},
		{"no header", "127.0.0.1:1", nil, lo, "127.0.0.1"},
		{"empty header", "127.0.0.1:1", []string{""}, lo, "127.0.0.1"},
		{"only commas", "127.0.0.1:1", []string{",,,"}, lo, "127.0.0.1"},
		{"no address", "127.0.0.1:1", []string{"198.51.100.1, unknown"}, lo, "127.0.0.1"},
		{"no address behind a second proxy", "127.0.0.1:1", []string{"198.51.100.1, \x1b[31m, 10.0.0.2"}, two, "10.0.0.2"},
		{"half a bracket", "127.0.0.1:1", []string{"[203.0.113.7"}, lo, "127.0.0.1"},
		{"nobody is believed", "127.0.0.1:1", []string{"203.0.113.7"}, nil, "127.0.0.1"},
		{"Unix socket", "@", []string{"203.0.113.7"}, lo, "@"},
		{"Unix socket without a name", "", []string{"203.0.113.7"}, lo, ""},
		{"a name that moves the cursor", "/run/\x1b[2J", nil, lo, "/run/?[2J"},
	} {
		if got := receiver.Sender(tt.peer, tt.header, tt.trusted); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// A header as long as the server lets it be costs next to nothing.
	if got := receiver.Sender("127.0.0.1:1", []string{strings.Repeat("127.0.0.1,", 6000)}, lo); got != "127.0.0.1" {
		t.Errorf("6,000 hops: %q", got)
	}
}

func TestWrongTokensAreCountedByTheSenderBehindTheProxy(t *testing.T) {
	x := start(t)
	rc := receiver.New(receiver.Options{
		Config: x.cfg.Load, Secret: config.Resolve, Store: x.store, Log: slog.New(slog.NewTextHandler(x.log, nil)), BodyMemory: 64 << 20,
		Proxies: networks("127.0.0.0/8"),
	})
	from := func(peer, forwarded string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/hooks/github", strings.NewReader("{}"))
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", forwarded)
		r.Header.Set("Forwarded", "for=198.51.100.9")
		r.Header.Set("X-Real-Ip", "198.51.100.9")
		rc.ServeHTTP(w, r)
		return w.Code
	}
	var codes []int
	for range 61 {
		codes = append(codes, from("127.0.0.1:1", "203.0.113.7"))
	}
	if codes[59] != 401 || codes[60] != 429 {
		t.Errorf("the 60th and 61st wrong request: %v, want 401 and 429", codes[59:])
	}
	for what, got := range map[string]int{
		"another sender behind the same proxy":   from("127.0.0.1:1", "203.0.113.8"),
		"a stranger who claims to be that one":   from("192.0.2.1:1", "203.0.113.7"),
		"the proxy itself, which names nobody":   from("127.0.0.1:1", ""),
		"the one who claims to be somebody else": from("127.0.0.1:1", "203.0.113.8, 203.0.113.9"),
	} {
		if got != 401 {
			t.Errorf("%s: %d, want 401", what, got)
		}
	}
	if got := from("127.0.0.1:1", "203.0.113.8, 203.0.113.7"); got != 429 {
		t.Errorf("the limited one who claims to be somebody else: %d, want 429", got)
	}
	if log := x.log.String(); !strings.Contains(log, "from=203.0.113.7") || strings.Contains(log, "198.51.100.9") {
		t.Errorf("the log does not name the sender alone:\n%s", log)
	}
}

func TestAcceptedDeliveriesNameTheirSender(t *testing.T) {
	x := start(t)
	body := push(nil)
	r := x.send("/hooks/github", body, "X-GitHub-Event", "push", "X-Hub-Signature-256", sign(body), "X-Forwarded-For", "203.0.113.7")
	if r.status != 202 {
		t.Fatalf("%+v", r)
	}
	if !strings.Contains(x.log.String(), "from=127.0.0.1") { // nobody is believed here
		t.Errorf("the log does not name the sender:\n%s", x.log)
	}
}

func FuzzSender(f *testing.F) {
	for _, seed := range [][2]string{
		{"127.0.0.1:1", "203.0.113.7"}, {"127.0.0.1:1", "1.2.3.4, 203.0.113.7:80, [::1]:9"}, {"[::1]:1", "unknown,_hidden"}, {"@", "1.2.3.4"},
		{"127.0.0.1:1", ",, ,"}, {"127.0.0.1:1", "\x1b[2J\n1.1.1.1"}, {"10.0.0.1:1", "fe80::1%eth0, ::ffff:10.0.0.2"}, {"203.0.113.1:1", "1.2.3.4"},
	} {
		f.Add(seed[0], seed[1], "10.0.0.9")
	}
	trusted := networks("127.0.0.0/8", "::1/128", "10.0.0.0/8")
	believed := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		got := receiver.Sender(peer, []string{first, second}, trusted)
		for _, c := range []byte(got) {
			if c < ' ' || c == 0x7f {
				t.Fatalf("%q would write control characters into the log", got)
			}
		}
		p, err := netip.ParseAddrPort(peer)
		if err != nil {
			return
		}
		a, err := netip.ParseAddr(got)
		if err != nil {
			t.Fatalf("peer %s gives no address: %q", peer, got)
		}
		if own := p.Addr().Unmap().WithZone(""); !believed(own) && a != own {
			t.Fatalf("peer %s, whom nobody trusts, is taken for %s", peer, a)
		}
		// Whatever a sender writes first, the proxy's word at the end counts.
		if !believed(p.Addr().Unmap().WithZone("")) {
			return
		}
		for _, claimed := range []string{first, second} {
			if got := receiver.Sender(peer, []string{claimed, "203.0.113.7"}, trusted); got != "203.0.113.7" {
				t.Fatalf("the sender's own %q hides its address behind %q", claimed, got)
			}
			if got := receiver.Sender(peer, []string{claimed + ", 203.0.113.7"}, trusted); got != "203.0.113.7" {
				t.Fatalf("the sender's own %q hides its address behind %q", claimed, got)
			}
		}
	})
}
