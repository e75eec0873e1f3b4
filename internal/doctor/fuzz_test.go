package doctor

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"deployhook/internal/config"
)

func TestListOfSudoSaysWhatNeedsNoPassword(t *testing.T) {
	const head = "Matching Defaults entries for deploy on vps:\n    env_reset, mail_badpass,\n    secure_path=/usr/sbin\\:/usr/bin\n\nUser deploy may run the following commands on vps:\n"
	const shop = "/usr/bin/systemctl restart shop"
	for name, tt := range map[string]struct {
		list string
		want bool
	}{
		"the command":          {head + "    (root) NOPASSWD: " + shop + "\n", true},
		"among others":         {head + "    (root) NOPASSWD: /usr/bin/systemctl restart blog, " + shop + "\n", true},
		"on the next line":     {head + "    (root) NOPASSWD: /usr/bin/systemctl restart blog,\n        " + shop + "\n", true},
		"everything":           {head + "    (ALL : ALL) NOPASSWD: ALL\n", true},
		"any argument":         {head + "    (root) NOPASSWD: /usr/bin/systemctl\n", true},
		"a glob":               {head + "    (root) NOPASSWD: /usr/bin/systemctl restart *\n", true},
		"other tags":           {head + "    (root) SETENV: NOPASSWD: " + shop + "\n", true},
		"authenticate is off":  {strings.Replace(head, "env_reset", "env_reset, !authenticate", 1) + "    (root) " + shop + "\n", true},
		"with a password":      {head + "    (root) " + shop + "\n", false},
		"PASSWD takes it back": {head + "    (root) NOPASSWD: /usr/bin/x, PASSWD: " + shop + "\n", false},
		"only another":         {head + "    (root) NOPASSWD: /usr/bin/systemctl restart blog\n    (root) " + shop + "\n", false},
		"another argument":     {head + "    (root) NOPASSWD: /usr/bin/systemctl restart shop2\n    (ALL) ALL\n", false},
		"nothing":              {"", false},
		"no arguments at all":  {head + "    (root) NOPASSWD: /usr/bin/systemctl \"\"\n", false},
	} {
		if got := withoutPassword(tt.list, shop); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzListOfSudo(f *testing.F) {
	f.Add("/usr/bin/systemctl restart shop", "User deploy may run:\n    (root) NOPASSWD: /usr/bin/systemctl restart shop, PASSWD: ALL\n")
	f.Add("/bin/x", "(ALL) SETENV: NOPASSWD: /bin/x *\n")
	f.Add("b", "(")
	f.Fuzz(func(_ *testing.T, command, list string) { withoutPassword(list, command) })
}

func FuzzTextsOfPrograms(f *testing.F) {
	f.Add("[Service]\nLoadCredential=a:/b\nLoadCredential=\nExecStart=/usr/bin/deployhook serve\n")
	f.Add("MemTotal: 1 kB\nMemAvailable: -1 kB\n")
	f.Add("/etc/sudoers: parsed OK\n/etc/sudoers.d/x:1:1: syntax error")
	f.Fuzz(func(t *testing.T, text string) {
		for name, path := range loadedCredentials(text) {
			if path != "" && !strings.HasPrefix(path, "/") {
				t.Errorf("credential %q comes from %q", name, path)
			}
		}
		meminfo(text)
		fault(text)
		if again := content(content(text)); again != content(text) {
			t.Errorf("what a unit says is %q, and then %q", content(text), again)
		}
		if s := oneLine(text); strings.ContainsAny(s, "\n\r\x1b\u009b") {
			t.Errorf("%q is not one line", s)
		}
	})
}

func FuzzGitHub(f *testing.F) {
	f.Add(`[{"id":7,"active":true,"events":["push"],"config":{"url":"https://x/hooks/github"}}]`, `[{"id":9,"delivered_at":"2026-04-01T10:15:00Z","status_code":401}]`, 200)
	f.Add(`{"message":"Not Found"}`, ``, 404)
	f.Add(`[null,{"config":{"url":"%zz","insecure_ssl":1},"events":["*"],"active":true}]`, `[{"status":"\u001b[2J","status_code":-1}]`, 200)
	file, err := config.Parse("deploy.yaml", []byte("server: { url: https://x }\nhooks: { github: { provider: github, secret: { environment: X } } }\n"+
		"pipelines: { shop: { repository: github.com/acme/shop, on: { push: { branches: [main] } }, jobs: { test: { steps: [ { run: x } ] } } } }"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, hooks, deliveries string, status int) {
		if status < 200 || status > 599 {
			return
		}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := hooks
			if strings.HasSuffix(r.URL.Path, "/deliveries") {
				text = deliveries
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}))
		defer srv.Close()
		e := newExam(context.Background(), Options{GitHub: srv.URL, Command: (&machine{}).command})
		e.file = file
		p := &file.Deploy.Pipelines[0]
		checks := e.lastDelivery(t.Context(), "acme/shop", "token-token-token", p)
		if len(checks) == 0 {
			t.Error("nothing is said")
		}
		for _, c := range checks {
			if c.Text == "" || strings.Contains(c.Text, "token-token-token") && !strings.Contains(hooks+deliveries, "token-token-token") || !utf8.ValidString(oneLine(c.Text)) {
				t.Errorf("%+v", c)
			}
		}
	})
}
