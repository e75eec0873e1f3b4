package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

// everyKind is a file with each kind of notification, and a target.
const everyKind = `secrets:
  slack: { environment: SLACK }
  old: { environment: OLD_KEY }
  new: { environment: NEW_KEY }
hooks: { git: { provider: github, secret: { environment: HOOK_SECRET } } }
notify:
  - slack: slack
  - webhook: https://ops.example/hook
    secret: [new, old]
    on: [queued, succeeded, recovered]
    retry: { limit: 3, delay: 1m, factor: 1.5 }
    allow_private: true
  - status: true
targets:
  partner: { url: https://partner.example/in, events: [payment.*], secret: new, allow-private: true, retry: { delay: 10s } }
  all: { url: { file: /etc/all }, secret: [{ file: /etc/key }] }
pipelines:
  shop:
    repository: github.com/acme/shop
    on: { push: { branches: [main] } }
    auth: { token: { environment: TOKEN } }
    notify:
      - discord: { file: /etc/discord }
        if: state == "failed" && needs.deploy.result == "failed"
        text: "${{ pipeline }} ${{ run }}: ${{ change }} ${{ error }}"
      - slack: slack
      - name: nights
        telegram: { token: { file: /etc/bot }, chat: -1001234567890 }
      - email: { server: "smtp.example.com:587", username: u, password: { file: /etc/pw }, from: "Deploys <d@example.com>", to: ops@example.com }
      - name: github
        status: { environment: production }
    jobs: { deploy: { release: /srv/shop } }
  pay:
    jobs: { enable: { steps: [ { run: make } ] } }
`

func TestNotifyIsReadForEveryKind(t *testing.T) {
	f := parsed(t, everyKind)
	shop, pay := f.Deploy.Pipeline("shop"), f.Deploy.Pipeline("pay")
	var names []string
	for _, n := range shop.Notify {
		names = append(names, n.Name+" "+string(n.Kind))
	}
	if want := []string{"slack slack", "webhook webhook", "status status", "discord discord", "slack-2 slack", "nights telegram", "email email", "github status"}; !slices.Equal(names, want) {
		t.Fatalf("shop tells %q, want %q", names, want)
	}
	if len(pay.Notify) != 2 || len(f.Deploy.Notify) != 3 { // without a repository there is no commit that has a status
		t.Errorf("pay tells %+v, all %+v", pay.Notify, f.Deploy.Notify)
	}
	slack, webhook, status, discord := shop.Notify[0], shop.Notify[1], shop.Notify[2], shop.Notify[3]
	if slack.URL.Environment != "SLACK" || !slices.Equal(slack.On, []deploy.Change{"failed", "lost", "recovered"}) || slack.Retry != (deploy.NotifyRetry{Delay: retryDelay, Factor: 2}) {
		t.Errorf("slack %+v", slack)
	}
	if webhook.Literal != "https://ops.example/hook" || len(webhook.Secrets) != 2 || webhook.Secrets[0].Environment != "NEW_KEY" || webhook.Secrets[1].Environment != "OLD_KEY" ||
		webhook.Retry != (deploy.NotifyRetry{Limit: 3, Delay: 60e9, Factor: 1.5}) || !webhook.AllowPrivate || !slices.Equal(webhook.On, []deploy.Change{"queued", "succeeded", "recovered"}) {
		t.Errorf("webhook %+v", webhook)
	}
	if status.Forge != "github" || status.Server != "https://api.github.com" || status.Token.Environment != "TOKEN" || len(status.On) != 8 || status.Environment != "" || shop.Notify[7].Environment != "production" {
		t.Errorf("status %+v, and %+v", status, shop.Notify[7])
	}
	if discord.URL.File != "/etc/discord" || discord.If.Source() != `state == "failed" && needs.deploy.result == "failed"` || discord.Text == nil {
		t.Errorf("discord %+v", discord)
	}
	if n := shop.Notify[5]; n.Chat != "-1001234567890" || n.Token.File != "/etc/bot" || n.Server != telegramServer {
		t.Errorf("telegram %+v", n)
	}
	if e := shop.Notify[6].Email; e.Server != "smtp.example.com:587" || e.TLS != "starttls" || e.Username != "u" || e.Password.File != "/etc/pw" || !slices.Equal(e.To, []string{"ops@example.com"}) {
		t.Errorf("email %+v", e)
	}
	if ts := f.Deploy.Targets; len(ts) != 2 || ts[0].Name != "partner" || ts[0].Literal != "https://partner.example/in" || !slices.Equal(ts[0].Events, []string{"payment.*"}) || !ts[0].AllowPrivate || ts[0].Retry.Delay != 10e9 || ts[1].URL.File != "/etc/all" || ts[1].Secrets[0].File != "/etc/key" {
		t.Errorf("targets %+v", f.Deploy.Targets)
	}
	if p := againstSchema(t, everyKind); len(p) > 0 {
		t.Errorf("the schema refuses it:\n%s", strings.Join(p, "\n"))
	}
	var b bytes.Buffer
	Describe(&b, f)
	for _, want := range []string{
		"\n  tells     slack: failed, lost, recovered\n", "\n  tells     webhook at https://ops.example: queued, succeeded, recovered\n",
		"\n  tells     nights, telegram chat -1001234567890: failed, lost, recovered\n", "\n  tells     email to ops@example.com: failed, lost, recovered\n",
		"\n  tells     github, status on github and deployments to production: queued,\n", "\ntarget partner\n  address   https://partner.example\n  events    payment.*\n",
		"\ntarget all\n  address   an address from file /etc/all\n  events    all (default)\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestForgeIsFoundByHostHookOrWord has each way in which the API is found.
func TestForgeIsFoundByHostHookOrWord(t *testing.T) {
	for _, tt := range []struct{ pipeline, status, forge, server string }{
		{"repository: gitlab.com/acme/group/shop\n", "true", "gitlab", "https://gitlab.com/api/v4"},
		{"repository: codeberg.org/acme/shop\n", "true", "forgejo", "https://codeberg.org/api/v1"},
		{"repository: git.example.com/acme/shop\n", "{ forge: gitea }", "gitea", "https://git.example.com/api/v1"},
		{"repository: git.example.com/acme/shop\nclone_url: https://git.example.com:3000/acme/shop.git\n", "{ forge: gitea }", "gitea", "https://git.example.com:3000/api/v1"},
		{"repository: git.example.com/acme/shop\nclone_url: https://mirror.example.com:3000/acme/shop.git\n", "{ forge: gitea }", "gitea", "https://git.example.com/api/v1"},
		{"repository: git.example.com/acme/shop\n", "{ forge: gitlab, server: \"https://lab.example.com/\" }", "gitlab", "https://lab.example.com/api/v4"},
		{"repository: git.example.com/acme/shop\non: { push: { branches: [main] } }\n", "true", "github", "https://git.example.com/api/v3"}, // GitHub Enterprise, by its hook
	} {
		f := parsed(t, pipelineText(tt.pipeline+"auth: { token: { environment: TOKEN } }\nnotify: [ { status: "+tt.status+" } ]\n"))
		if n := f.Deploy.Pipeline("p").Notify; len(n) != 1 || n[0].Forge != tt.forge || n[0].Server != tt.server {
			t.Errorf("%s %s: %+v, want %s at %s", tt.pipeline, tt.status, n, tt.forge, tt.server)
		}
	}
}

func TestMistakesInNotifyAreOneSentence(t *testing.T) {
	notify := func(entry string) string {
		return pipelineText("repository: github.com/acme/shop\nauth: { token: { environment: TOKEN } }\nnotify:\n  - " + entry + "\n")
	}
	mail := func(part string) string {
		return notify("email: { " + part + " }")
	}
	const rest = ", from: a@b.example, to: c@d.example"
	for _, tt := range []struct{ name, text, want string }{
		{"no way", notify("name: x"), "notify[0]: one of webhook, slack, discord, telegram, email and status is wanted: where it goes"},
		{"two ways", notify("{ slack: { file: /a }, discord: { file: /a } }"), "notify[0]: one way a notification: slack and discord do not go together; write one for each"},
		{"false", notify("status: false"), "notify[0].status: true is wanted here, or a section with token, forge, server or environment"},
		{"Slack's address itself", notify("slack: https://hooks.slack.com/services/T0/B0/secretpath"), "notify[0].slack: a secret is the name of one under secrets, or an object like {environment: NAME}; its value never stands in this file"},
		{"a webhook without a key", notify("webhook: https://a.example"), "notify[0]: secret is missing: the receiver of a webhook tells by the signature who sent it"},
		{"another scheme", notify("{ webhook: ftp://a.example, secret: { file: /k } }"), "notify[0].webhook: a URL that begins with https:// or http:// is wanted here"},
		{"a login", notify("{ webhook: https://u:secretpath@a.example, secret: { file: /k } }"), "notify[0].webhook: a login does not stand in the URL: write a secret with the whole URL in its place"},
		{"a port", notify("{ webhook: 'https://a.example:99999', secret: { file: /k } }"), "notify[0].webhook: the port of this URL is not one"},
		{"no keys", notify("{ webhook: https://a.example, secret: [] }"), "notify[0].secret: a secret, or a list of 1 to 10, is wanted here"},
		{"a key for a chat", notify("{ slack: { file: /a }, secret: { file: /k } }"), "notify[0].secret: only a webhook is signed: leave the key out"},
		{"text of a webhook", notify("{ webhook: https://a.example, secret: { file: /k }, text: x }"), "notify[0].text: the body of a webhook is JSON, and has no text: leave the key out"},
		{"private mail", notify("{ email: { server: 'a:25'" + rest + " }, allow_private: true }"), "notify[0].allow_private: this is for webhook, slack and discord: other kinds may have private addresses"},
		{"unknown change", notify("{ slack: { file: /a }, on: [failed, fails] }"), `notify[0].on: "fails" is not one of queued, waiting,`},
		{"a change twice", notify("{ slack: { file: /a }, on: [failed, failed] }"), "notify[0].on: failed stands here twice"},
		{"no change", notify("{ slack: { file: /a }, on: [] }"), "notify[0].on: the list is empty: nothing would be told"},
		{"a secret in a text", notify("{ slack: { file: /a }, text: 'key ${{ secrets.slack }}' }"), "notify[0].text: ${{ secrets.slack }}: secrets are not part of messages: what they say leaves this machine"},
		{"changed in an if", notify("{ slack: { file: /a }, if: 'changed(\"a\")' }"), "notify[0].if: changed has no meaning in a notification"},
		{"a word of notify in a job", jobText("if: state == 'failed'\nsteps: [ { run: x } ]\n"), "jobs.j.if: state has a meaning only in notify"},
		{"unknown job", notify("{ slack: { file: /a }, if: needs.tets.result == 'failed' }"), `notify[0].if: needs.tets: no job "tets"; did you mean "test"?`},
		{"unknown word", notify("{ slack: { file: /a }, text: '${{ stat }}' }"), `notify[0].text: ${{ stat }}: unknown name "stat"; did you mean "state"?`},
		{"empty text", notify("{ slack: { file: /a }, text: ' ' }"), "notify[0].text: this is empty: fill it in, or leave the key out"},
		{"no chat", notify("telegram: { token: { file: /a } }"), "notify[0].telegram: chat is missing: the number of a chat"},
		{"no bot", notify("telegram: { chat: 1 }"), "notify[0].telegram: token is missing: @BotFather gives one"},
		{"a chat's name", notify("telegram: { token: { file: /a }, chat: ops }"), `notify[0].telegram.chat: the number of a chat is wanted here, like -1001234567890, or "@name" of a channel, not "ops"`},
		{"no port", mail("server: smtp.example.com" + rest), `notify[0].email.server: a mail server with its port is wanted here, like smtp.example.com:587, not "smtp.example.com"`},
		{"no receiver", mail("server: 'a:25', from: a@b.example"), "notify[0].email: to is missing"},
		{"no mailbox", mail("server: 'a:25', from: a@b.example, to: ops"), `notify[0].email.to: the address of one mailbox is wanted here, like deploy@example.com, not "ops"`},
		{"a user alone", mail("server: 'a:25', username: u" + rest), "notify[0].email.username: a username without a password cannot log in"},
		{"a password in the clear", mail("server: 'a:25', tls: none, username: u, password: { file: /p }" + rest), "notify[0].email.tls: the password would go over the network unencrypted: use starttls or tls"},
		{"a short delay", notify("{ slack: { file: /a }, retry: { delay: 1ms } }"), `notify[0].retry.delay: a duration from 1s to 12h is wanted here, not "1ms"`},
		{"shorter delays", notify("{ slack: { file: /a }, retry: { factor: 0.5 } }"), "notify[0].retry.factor: a number of 1 or more is wanted here: delays do not get shorter"},
		{"a name twice", pipelineText("notify: [ { name: x, slack: { file: /a } }, { name: x, slack: { file: /b } } ]\n"), "notify[1].name: another notification has this name"},
		{"a name of the top level", "notify: [ { name: x, slack: { file: /a } } ]\n" + pipelineText("notify: [ { name: x, slack: { file: /b } } ]\n"), "pipelines.p.notify[0].name: a notification at the top level has this name, and this pipeline has it too"},
		{"a bad name", notify("{ name: a/b, slack: { file: /a } }"), "notify[0].name: a name has letters, digits, - and _"},
		{"a status without a repository", pipelineText("notify: [ { status: true } ]\n"), "pipelines.p.notify: without repository there is no commit that could have a status"},
		{"a status without a token", pipelineText("repository: github.com/acme/shop\nnotify: [ { status: true } ]\n"), "a token is wanted for commit statuses: auth.token of the pipeline, or status: {token: secret}"},
		{"an unknown forge", pipelineText("repository: git.example.com/acme/shop\nnotify: [ { status: { token: { file: /a } } } ]\n"), "what git.example.com is cannot be told from its name: write status: {forge: github, gitlab, gitea or forgejo}"},
		{"one of all without a token", "notify: [ { status: true } ]\n" + pipelineText("repository: github.com/acme/shop\n"), "notify: a token of pipeline p is wanted for commit statuses"},
		{"a deployment of nothing", notify("status: { environment: production }"), "status.environment: no job of this pipeline deploys; leave it out"},
		{"a target without a key", "targets: { a: { url: https://a.example } }\n" + pipelineText(""), "targets.a: secret is missing: the receiver tells by the signature who sent it"},
		{"a target without a URL", "targets: { a: { secret: { file: /a } } }\n" + pipelineText(""), "targets.a: url is missing: where the events are sent"},
		{"no events", "targets: { a: { url: https://a.example, secret: { file: /a }, events: [] } }\n" + pipelineText(""), "targets.a.events: the list is empty: leave the key out for all"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := problemsOf(t, tt.text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), tt.want)
			}
			if strings.Contains(strings.Join(got, ""), "secretpath") {
				t.Errorf("the address is repeated: %s", got)
			}
		})
	}
}

func TestThousandTargetsAreRead(t *testing.T) {
	var b strings.Builder
	b.WriteString("targets:\n")
	for i := range targetsMost {
		fmt.Fprintf(&b, "  t%d: { url: https://t%d.example/in, events: [payment.*], secret: { file: /etc/t%d } }\n", i, i, i)
	}
	f := parsed(t, b.String())
	if len(f.Deploy.Targets) != targetsMost || len(f.Secrets()) != targetsMost {
		t.Errorf("%d targets, %d secrets", len(f.Deploy.Targets), len(f.Secrets()))
	}
	b.WriteString("  more: { url: https://t.example/in, secret: { file: /etc/t } }\n")
	same(t, problemsOf(t, b.String()), "deploy.yaml:2:3: targets: there are 1001 targets, and 1000 are the most")
}

func TestKeysOfSignaturesAreLong(t *testing.T) {
	short := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(short, []byte("too-short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := parsed(t, "targets: { a: { url: https://a.example, secret: { file: "+short+" } } }\nnotify: [ { slack: { file: "+short+" } } ]\n")
	errs, warnings := CheckSecrets(t.Context(), f)
	if len(errs) != 1 || !strings.Contains(errs[0].String(), "targets.a.secret: it has 9 characters, and a key of signatures has 16 at least: make one with openssl rand -hex 32") || len(warnings) != 0 {
		t.Errorf("errors %v, warnings %v", errs, warnings)
	}
}
