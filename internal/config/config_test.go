package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

var update = flag.Bool("update", false, "write docs/configuration.md and testdata anew")

func parsed(t testing.TB, text string) *File {
	t.Helper()
	f, err := Parse("deploy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return f
}

func warningsOf(f *File) []string {
	var list []string
	for _, w := range f.Warnings {
		list = append(list, w.String())
	}
	return list
}

const smallest = `hooks:
  github: { provider: github, secret: { credential: github-webhook } }

pipelines:
  shop:
    repository: github.com/acme/shop
    on:
      push: { branches: [main] }
    jobs:
      test:
        steps:
          - run: npm ci && npm test
      deploy:
        release: /srv/shop                     # releases/, shared/, current
        steps:
          - run: npm ci --omit=dev             # in the new release, not live yet
        restart: sudo systemctl restart shop   # after the switch, and again after a rollback
`

func TestSmallestFileHasEveryDefault(t *testing.T) {
	f := parsed(t, smallest)
	want := &deploy.Config{
		Digest: f.Deploy.Digest, Text: smallest,
		Hooks: []deploy.Hook{{Name: "github", Provider: "github", Secrets: []deploy.Secret{{Name: "hooks.github.secret", Credential: "github-webhook"}}, Signature: deploy.Signature{Header: "X-Hub-Signature-256", Algorithm: "sha256", Encoding: "hex", Prefix: "sha256="}}},
		Pipelines: []deploy.Pipeline{{
			Name: "shop", Repository: "github.com/acme/shop", CloneURL: "https://github.com/acme/shop.git", Hook: "github",
			On: deploy.Triggers{Push: &deploy.PushTrigger{Branches: []string{"main"}}}, Queue: deploy.QueueLatest,
			Jobs: []deploy.Job{{
				Name: "test", Title: "test", Hosts: []string{"local"}, Timeout: 30 * time.Minute, OnCrash: deploy.CrashRerun,
				Steps: []deploy.Step{{Name: "npm ci && npm test", Run: "npm ci && npm test"}},
			}, {
				Name: "deploy", Title: "deploy", Needs: []string{"test"}, Hosts: []string{"local"}, Timeout: 30 * time.Minute, OnCrash: deploy.CrashRerun,
				Group: "shop/deploy", Steps: []deploy.Step{{Name: "npm ci --omit=dev", Run: "npm ci --omit=dev"}},
				Release: &deploy.ReleaseSpec{Path: "/srv/shop", Keep: 5, KeepFailed: 2}, Restart: "sudo systemctl restart shop",
			}},
		}},
	}
	if !reflect.DeepEqual(f.Deploy, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f.Deploy, want)
	}
	if len(f.Deploy.Digest) != 64 {
		t.Errorf("the digest is %q", f.Deploy.Digest)
	}
	server := Server{Listen: "127.0.0.1:8484", Socket: "/run/deployhook/control.sock", Agent: Agents{spawn, spawn}, Data: "/var/lib/deployhook",
		Workers: defaultWorkers(memory()), LogLevel: "info", LogFormat: "text", BodyMemory: 64 << 20, ShutdownGrace: 30 * time.Second,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	if !reflect.DeepEqual(f.Server, server) {
		t.Errorf("server is %+v, want %+v", f.Server, server)
	}
}

func TestJobsAreAChainUnlessTheySayNeeds(t *testing.T) {
	f := parsed(t, hooksPart+`pipelines:
  p:
    jobs:
      a: { steps: [ { run: x } ] }
      b: { steps: [ { run: x } ] }
      c: { needs: [], steps: [ { run: x } ] }
      d: { needs: a, steps: [ { run: x } ] }
      e: { needs: [c, d], steps: [ { run: x } ] }
`)
	want := map[string][]string{"a": nil, "b": {"a"}, "c": {}, "d": {"a"}, "e": {"c", "d"}}
	var order []string
	for _, j := range f.Deploy.Pipelines[0].Jobs {
		order = append(order, j.Name)
		if !slices.Equal(j.Needs, want[j.Name]) {
			t.Errorf("%s needs %v, want %v", j.Name, j.Needs, want[j.Name])
		}
	}
	if got := strings.Join(order, ""); got != "abcde" {
		t.Errorf("the order is %s", got)
	}
}

func TestEnvKeepsItsLiteralText(t *testing.T) {
	f := parsed(t, hooksPart+`env: { A: 1.10, B: 0644, C: yes, D: "q\tx", E: 1_000, F: 0x1f, G: 2001-01-01, H: true, I: '', J: .inf, K: 1e3, N: null, O: ~, P: , Q: 12345678901234567890123, R: -0, S: !!str null, T: 'yes', U: <<, V: off, W: 0o17 }
pipelines:
  p:
    env:
      L: |
        two
        lines
      M: ${{ payload.id }}
    jobs: { a: { steps: [ { run: x } ] } }
`)
	want := []string{"A=1.10", "B=0644", "C=yes", "D=q\tx", "E=1_000", "F=0x1f", "G=2001-01-01", "H=true", "I=", "J=.inf", "K=1e3",
		"N=null", "O=~", "P=", "Q=12345678901234567890123", "R=-0", "S=null", "T=yes", "U=<<", "V=off", "W=0o17", "L=two\nlines\n", "M=${{ payload.id }}"}
	var got []string
	for _, v := range f.Deploy.Pipelines[0].Env {
		got = append(got, v.Name+"="+v.Value.Source())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpellingsThatMeanTheSame(t *testing.T) {
	f := parsed(t, `x-common: &common
  timeout: 5m
  continue_on_error: true
x-later: { rollout: 1 }
`+hooksPart+`pipelines:
  p:
    x-note: left alone
    repository: https://GitHub.com/Acme/Shop.git
    clone-url: file:///srv/git/shop.git
    on: { push: { branches: main, paths-ignore: docs/** } }
    jobs:
      a:
        working-dir: app
        on-crash: stop
        steps:
          - { <<: *common, run: one, continue-on-error: false }
          - { run: two, <<: [*common] }
`)
	p := f.Deploy.Pipelines[0]
	j := p.Jobs[0]
	switch {
	case p.Repository != "github.com/acme/shop", p.CloneURL != "file:///srv/git/shop.git":
		t.Errorf("repository %s from %s", p.Repository, p.CloneURL)
	case !slices.Equal(p.On.Push.Branches, []string{"main"}), !slices.Equal(p.On.Push.PathsIgnore, []string{"docs/**"}):
		t.Errorf("on.push is %+v", p.On.Push)
	case j.WorkingDir != "app", j.OnCrash != deploy.CrashStop:
		t.Errorf("job is %+v", j)
	case j.Steps[0].ContinueOnError, j.Steps[0].Timeout != 5*time.Minute, !j.Steps[1].ContinueOnError, j.Steps[1].Run != "two":
		t.Errorf("steps are %+v", j.Steps)
	}
	for _, on := range []string{"on: push", "on: [push]", "on: { push: }", "on: { push: {} }", `"on": push`} {
		if p := parsed(t, pipelineText("repository: github.com/a/b\n"+on+"\n")).Deploy.Pipelines[0]; p.On.Push == nil || p.Hook != "github" {
			t.Errorf("%s: %+v", on, p.On)
		}
	}
}

func TestRepositoriesAreReachedAsWritten(t *testing.T) {
	key, token := "auth: { ssh_key: { file: /k } }\n", "auth: { token: { file: /t }, username: me }\n"
	for _, tt := range []struct{ lines, id, address string }{
		{"repository: github.com/Acme/Shop\n", "github.com/acme/shop", "https://github.com/Acme/Shop.git"},
		{"repository: github.com/acme/shop.git\n", "github.com/acme/shop", "https://github.com/acme/shop.git"},
		{"repository: github.com/acme/shop\n" + key, "github.com/acme/shop", "git@github.com:acme/shop.git"},
		{"repository: github.com/acme/shop\n" + token, "github.com/acme/shop", "https://github.com/acme/shop.git"},
		{"repository: https://git.example.com/a/b/c.git\n" + token, "git.example.com/a/b/c", "https://git.example.com/a/b/c.git"},
		{"repository: git@git.example.com:a/b.git\n" + key, "git.example.com/a/b", "git@git.example.com:a/b.git"},
		{"repository: ssh://git@git.example.com:2222/a/b.git\n" + key, "git.example.com/a/b", "ssh://git@git.example.com:2222/a/b.git"},
		{"repository: localhost:3000/a/b\n", "localhost/a/b", "https://localhost:3000/a/b.git"},
		{"repository: 'https://[::1]:3000/a/b'\n", "::1/a/b", "https://[::1]:3000/a/b"},
		{"repository: gitlab.com/group/sub/project\n", "gitlab.com/group/sub/project", "https://gitlab.com/group/sub/project.git"},
		{"repository: http://127.0.0.1:3000/a/b\n", "127.0.0.1/a/b", "http://127.0.0.1:3000/a/b"},
		{"repository: dev.azure.com/ORG/P/_git/R\n", "dev.azure.com/org/p/_git/r", "https://dev.azure.com/ORG/P/_git/R"},
		{"repository: github.com/acme/shop\nclone_url: /srv/git/shop.git\n", "github.com/acme/shop", "/srv/git/shop.git"},
	} {
		p := parsed(t, pipelineText(tt.lines)).Deploy.Pipelines[0]
		if p.Repository != tt.id || p.CloneURL != tt.address {
			t.Errorf("%s gives %s from %s, want %s from %s", tt.lines, p.Repository, p.CloneURL, tt.id, tt.address)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{smallest, "deploy.yaml: test jobs (shop/test) and deploy jobs (shop/deploy) run as the same user, the daemon's own"},
		{"server: { agent: { test: /a.sock, deploy: /a.sock } }\n" + smallest, "run as the same user, that of /a.sock"},
		{"server: { agent: { deploy: /a.sock } }\n" + smallest, "test jobs (shop/test) run as the daemon's own user"},
		{"server: { agent: { test: /a.sock } }\n" + smallest, "deploy jobs (shop/deploy) run as the daemon's own user"},
		{pipelineText("repository: github.com/a/b\n"), "deploy.yaml:4:5: pipelines.p: nothing starts this pipeline but deployhook trigger p"},
		{"hooks: { w: { provider: generic, token: { environment: A } } }\n" + strings.TrimPrefix(pipelineText("repository: github.com/a/b\non: push\n"), hooksPart), "pushes do not come through a generic hook"},
		{pipelineText("on: { hook: { name: github } }\n"), "payloads of a github hook start nothing here"},
		{pipelineText("repository: http://git.example.com/a/b\non: push\nauth: { token: { file: /t } }\n"), "the token goes over the network unencrypted"},
	} {
		f := parsed(t, tt.text)
		got := slices.DeleteFunc(warningsOf(f), func(w string) bool { return strings.Contains(w, "no pipeline takes") })
		if len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s\nwarns %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestWarningsOfWhatDoesNothing also has what is at odds with the section server.
func TestWarningsOfWhatDoesNothing(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"{}", []string{"deploy.yaml: there are no pipelines: nothing can run"}},
		{hooksPart + "pipelines: { p: { jobs: { j: { steps: [ { run: x } ] } } } }\n", []string{"deploy.yaml:1:20: hooks.github: no pipeline takes what comes through this hook"}},
		{"secrets: { used: { file: /a }, idle: { file: /b } }\npipelines: { p: { jobs: { j: { secrets: { A: used }, steps: [ { run: x } ] } } } }\n",
			[]string{"deploy.yaml:1:40: secrets.idle: this secret is used nowhere"}},
		{"server: { limits: { body_memory: 10 MiB } }\npipelines: { p: { jobs: { j: { steps: [ { run: x } ] } } } }\n",
			[]string{"deploy.yaml:1:34: server.limits.body_memory: a webhook may have 25 MiB: a larger one than this is answered 503 each time"}},
		{"server: { listen: '0.0.0.0:8484' }\nhooks: { w: { provider: generic, token: { file: /a } } }\npipelines: { p: { on: { hook: { name: w } }, jobs: { j: { steps: [ { run: x } ] } } } }\n",
			[]string{"deploy.yaml:1:19: server.listen: other machines reach this without TLS, and the token of hook w with it: listen on 127.0.0.1 behind a proxy, or set server.tls"}},
		{"server: { data: /srv/data }\n" + jobText("release: /srv/data/shop\n"),
			[]string{"deploy.yaml:9:18: pipelines.p.jobs.j.release: /srv/data/shop lies in server.data, which is deployhook's own: keep releases apart from it"}},
		{"server: { data: /srv/data }\n" + jobText("release: /srv/data2\n"), nil},
	} {
		if got := warningsOf(parsed(t, tt.text)); !slices.Equal(got, tt.want) {
			t.Errorf("%s\nwarns %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestFindPrefersTheFlagThenTheVariable(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("DEPLOYHOOK_CONFIG", "")
	if got := Find(""); got != "/etc/deployhook/deploy.yaml" {
		t.Errorf("without anything: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "deploy.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Find(""); got != "deploy.yaml" {
		t.Errorf("with ./deploy.yaml: %s", got)
	}
	t.Setenv("DEPLOYHOOK_CONFIG", "/b")
	if got := Find(""); got != "/b" {
		t.Errorf("with the variable: %s", got)
	}
	if got := Find("/a"); got != "/a" {
		t.Errorf("with the flag: %s", got)
	}
}

// Agents of two users leave nothing to warn of.
func TestNoWarningWhereEachKindOfJobHasItsUser(t *testing.T) {
	f := parsed(t, "server: { agent: { test: /a.sock, deploy: /b.sock } }\n"+smallest)
	if w := warningsOf(f); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	if got := f.Server.Agent.Sockets(); got[deploy.TestAgent] != "/a.sock" || got[deploy.DeployAgent] != "/b.sock" || len(got) != 2 {
		t.Errorf("the sockets are %v", got)
	}
}
