package config

import (
	"bytes"
	"strings"
	"testing"
)

func TestDescribeSaysWhatWasUnderstoodAndDefaulted(t *testing.T) {
	f := parsed(t, `server: { workers: 2 }
hooks:
  github: { secret: { credential: github-webhook } }
  pay: { provider: generic, token: { environment: PAY } }
defaults: { timeout: 10m }
pipelines:
  shop:
    repository: github.com/acme/shop
    hook: github
    on: { push: { branches: [main, "release/**"] } }
    if: message contains "[deploy]"
    jobs:
      test: { name: All tests, working_dir: app, path: [/opt/go/bin], steps: [ { run: "make test\nmake lint\n" }, { run: make lint, if: success(), working_dir: x, timeout: 10m, retry: { limit: 2 }, continue_on_error: true } ] }
      deploy:
        needs: test
        secrets: { TOKEN: { file: /etc/token } }
        release: { path: /srv/shop, keep: 3, shared: { dirs: [storage], files: [.env] } }
        restart: sudo systemctl restart shop
  pay:
    on: { hook: { name: pay, if: payload.type == "paid" } }
    jobs: { enable: { steps: [ { run: "a name \e[31mthat is long enough to be broken into two lines of the page" } ] } }
`)
	var b bytes.Buffer
	Describe(&b, f)
	want := `server
  listen    127.0.0.1:8484 (default)
  proxies   127.0.0.0/8, ::1 name the sender (default)
  data      /var/lib/deployhook (default)
  socket    /run/deployhook/control.sock (default)
  agents    test spawn, deploy spawn (default)
  workers   2
  log       info, text (default)
  bodies    at most 64 MiB in memory (default)
  grace     30s when it stops (default)
hook github
  address   POST /hooks/github
  provider  github (default)
  secret    from systemd credential github-webhook
hook pay
  address   POST /hooks/pay
  provider  generic
  token     from variable PAY
pipeline shop
  commits   github.com/acme/shop
  from      https://github.com/acme/shop.git (default)
  branch    the repository's when an event names none (default)
  starts    pushes: branches main, release/**; through hook github
  if        message contains "[deploy]"
  queue     latest: of several pushes to one ref the newest is deployed
            (default)
  job test (test)
    name      All tests
    after     nothing: it starts at once (default)
    host      local (default)
    timeout   10m a step
    shell     bash -eo pipefail, else sh -e (default)
    in        app
    path      /opt/go/bin
    crash     rerun (default)
    step      make test
    step      make lint (if success(); in x; timeout 10m; tried 2 times more;
              may fail)
  job deploy (deploy)
    after     test
    host      local (default)
    timeout   10m a step
    shell     bash -eo pipefail, else sh -e (default)
    secret    TOKEN from file /etc/token
    release   /srv/shop
    keeps     3 that were live, 2 that were not
    shares    storage, .env
    group     shop/deploy (default)
    crash     rerun (default)
    restart   sudo systemctl restart shop
pipeline pay
  commits   none: jobs start in an empty workspace
  starts    payloads of hook pay if payload.type == "paid"
  job enable (test)
    after     nothing: it starts at once (default)
    host      local (default)
    timeout   10m a step
    shell     bash -eo pipefail, else sh -e (default)
    crash     rerun (default)
    step      a name ?[31mthat is long enough to be broken into two lines of the
              page
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s", got)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

func TestDescribeSaysWhichVariableOrFlagDecided(t *testing.T) {
	t.Setenv("DEPLOYHOOK_SERVER_DATA", "/elsewhere")
	t.Setenv("DEPLOYHOOK_SERVER_LOG_LEVEL", "debug")
	f, err := loaded(t, "server: { data: /here }\n", "--server-limits-body-memory=30MB")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	Describe(&b, f)
	for _, want := range []string{
		"  data      /elsewhere (DEPLOYHOOK_SERVER_DATA)\n", "  log       debug, text (DEPLOYHOOK_SERVER_LOG_LEVEL)\n",
		"  bodies    at most 30 MB in memory (--server-limits-body-memory)\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in\n%s", want, b.String())
		}
	}
}

func TestDescribeNamesCertificateAndProxies(t *testing.T) {
	var b bytes.Buffer
	Describe(&b, parsed(t, "server: { tls: { certificate: /c.pem, key: { credential: tls-key } }, trusted_proxies: [] }\n"))
	for _, want := range []string{
		"\n  tls       certificate from file /c.pem, key from systemd credential tls-key\n",
		"\n  proxies   none: X-Forwarded-For is not read\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
