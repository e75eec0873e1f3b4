package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

// received is a request as a service got it.
type received struct {
	method, path string // the path with its query
	header       http.Header
	body         string
}

// service is a server that answers as a service does, and keeps what it got.
type service struct {
	*httptest.Server
	mu  sync.Mutex
	got []received
}

func serve(t *testing.T, answer func(r received, w http.ResponseWriter)) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			t.Errorf("reading a request: %v", err)
		}
		got := received{r.Method, r.URL.RequestURI(), r.Header.Clone(), string(body)}
		s.mu.Lock()
		s.got = append(s.got, got)
		s.mu.Unlock()
		answer(got, w)
	}))
	t.Cleanup(s.Close)
	return s
}

// last is the last request, of how many.
func (s *service) last() (received, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) == 0 {
		return received{}, 0
	}
	return s.got[len(s.got)-1], len(s.got)
}

const secretToken = "123456:AAH-secret-token-of-the-bot"

// deps are what senders get in a test: secrets are their own names' values.
func deps(t *testing.T) Deps {
	t.Helper()
	clients := NewClients(nil)
	t.Cleanup(clients.Close)
	return Deps{
		Client: clients.Client, Log: slog.New(slog.DiscardHandler),
		Secret: func(_ context.Context, s deploy.Secret) (string, error) {
			if s.Environment == "" {
				return "", errors.New("secret " + s.Name + " has no source")
			}
			return s.Environment, nil
		},
	}
}

func secretOf(value string) *deploy.Secret { return &deploy.Secret{Name: "s", Environment: value} }

func exit(code int) *int { return &code }

// failedRun is a run whose deploy job has failed, with words of outsiders that
// are markup everywhere.
func failedRun() *deploy.Run {
	return &deploy.Run{
		ID: 42, State: deploy.Failed,
		NewRun: deploy.NewRun{
			Pipeline: "shop", Event: deploy.Push, Repository: "github.com/acme/shop", Ref: "refs/heads/main",
			Commit: "3f2c1ab0c9e1d5f7a8b6c4d2e0f1a3b5c7d9e1f3", Actor: "alice", Message: "Fix <!channel> & *cart* for @everyone\n\nMore.",
		},
		Jobs: []deploy.RunJob{
			{NewJob: deploy.NewJob{Name: "test"}, State: deploy.Succeeded, Begun: true},
			{
				NewJob: deploy.NewJob{Name: "deploy", Deploys: true}, State: deploy.Failed, Begun: true,
				HostRuns: []deploy.RunHost{{HostState: deploy.HostState{Name: "web-1", State: deploy.Failed}, Steps: []deploy.RunStep{
					{Name: "migrate", State: deploy.Failed, ExitCode: exit(1), Error: "exit status 1"},
				}}},
			},
		},
	}
}

// failedMessage is the message about it.
func failedMessage(spec *deploy.Notify) *Message {
	return &Message{
		Notification: deploy.Notification{
			ID: 7, Key: "msg_42_failed", Target: "shop/chat", Run: 42, Change: deploy.Change(deploy.Failed),
			Created: time.Date(2026, 4, 1, 3, 15, 0, 0, time.UTC),
		},
		Run: failedRun(), Spec: spec, Attempt: 1,
		Pipeline: &deploy.Pipeline{Name: "shop", Repository: "github.com/acme/shop"},
		Tail: []deploy.LogLine{
			{Stream: 1, Text: []byte("\x1b[31mapplying 0042_cart.sql\x1b[0m")},
			{Stream: 2, Text: []byte("ERROR: ```column <price> & \"x\" does not exist")},
		},
		Job: "deploy", Step: "migrate", Host: "web-1", URL: "https://ci.example.com/runs/42",
	}
}

func TestMessageSaysWhatWhoWhereAndWhatToType(t *testing.T) {
	n, err := newsOf(failedMessage(&deploy.Notify{}))
	if err != nil {
		t.Fatal(err)
	}
	want := `shop: run 42 failed
commit 3f2c1ab of github.com/acme/shop, branch main, by alice: Fix <!channel> & *cart* for @everyone
job deploy on web-1: step migrate: exit status 1

applying 0042_cart.sql
ERROR: ` + "```" + `column <price> & "x" does not exist

https://ci.example.com/runs/42
deployhook logs 42 --job deploy --host web-1
deployhook retry 42
deployhook rollback shop`
	if got := n.write(plain(4096)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEveryChangeHasItsSentence(t *testing.T) {
	for change, want := range map[deploy.Change]string{
		"queued": "shop: run 42 is queued", "waiting": "shop: run 42 is waiting", "running": "shop: run 42 is running",
		"succeeded": "shop: run 42 succeeded", "failed": "shop: run 42 failed", "canceled": "shop: run 42 was canceled",
		"skipped": "shop: run 42 was skipped", "lost": "shop: run 42 is lost", "recovered": "shop has recovered: run 42 succeeded",
		"superseded": "shop: run 42 was superseded", "rolled_back": "shop was rolled back by run 42",
		"waiting_for_approval": "shop: run 42 waits for an approval",
	} {
		m := failedMessage(&deploy.Notify{})
		m.Change = change
		if got := headOf(m); got != want {
			t.Errorf("%s: %q, want %q", change, got, want)
		}
	}
	m := failedMessage(&deploy.Notify{})
	m.Run.State, m.Run.Cause, m.Change, m.Tail, m.Job, m.Step, m.Host, m.URL = deploy.Canceled, "superseded by run 43", deploy.Superseded, nil, "", "", "", ""
	n, err := newsOf(m)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.write(plain(4096)); !strings.Contains(got, "\ncanceled: superseded by run 43\n") || !strings.HasSuffix(got, "\n\ndeployhook retry 42") {
		t.Errorf("a superseded run is told as\n%s", got)
	}
	m.Run.State, m.Run.Cause, m.Run.WaitingFor, m.Change = deploy.Waiting, "", "the hold of alice", deploy.Change(deploy.Waiting)
	if n, err = newsOf(m); err != nil {
		t.Fatal(err)
	}
	if got := n.write(plain(4096)); !strings.Contains(got, "\nwaits for: the hold of alice\n") || !strings.HasSuffix(got, "\n\ndeployhook run 42") {
		t.Errorf("a waiting run is told as\n%s", got)
	}
}

func TestTestJobThatFailedOffersNoRollback(t *testing.T) {
	m := failedMessage(&deploy.Notify{})
	m.Run.Jobs[0].State, m.Run.Jobs[1].Begun, m.Run.Jobs[1].State = deploy.Failed, false, deploy.Skipped
	m.Job, m.Host, m.Step = "test", deploy.Local, "make test"
	want := []string{"deployhook logs 42 --job test --host local", "deployhook retry 42"}
	if got := commandsOf(m); strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("commands %q, want %q", got, want)
	}
}

func TestSlackGetsBlocksWithEscapedText(t *testing.T) {
	s := serve(t, func(r received, w http.ResponseWriter) { io.WriteString(w, "ok") })
	m := failedMessage(&deploy.Notify{Kind: deploy.NotifySlack, URL: secretOf(s.URL + "/services/T0/B0/secretpath"), AllowPrivate: true})
	a, err := newSlack(deps(t)).Send(t.Context(), m)
	if err != nil || a.Status != 200 || string(a.Body) != "ok" {
		t.Fatalf("%+v, %v", a, err)
	}
	got, n := s.last()
	want := `{"text":"shop: run 42 failed","blocks":[` +
		`{"type":"section","text":{"type":"mrkdwn","text":"*shop: run 42 failed*\ncommit 3f2c1ab of github.com/acme/shop, branch main, by alice: Fix &lt;!channel&gt; &amp; *cart* for @everyone\njob deploy on web-1: step migrate: exit status 1"}},` +
		"{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"text\":\"```\\napplying 0042_cart.sql\\nERROR: `\u200b`\u200b`\u200bcolumn &lt;price&gt; &amp; \\\"x\\\" does not exist\\n```\"}}," +
		"{\"type\":\"section\",\"text\":{\"type\":\"mrkdwn\",\"text\":\"https://ci.example.com/runs/42\\n`deployhook logs 42 --job deploy --host web-1`\\n`deployhook retry 42`\\n`deployhook rollback shop`\"}}" +
		`],"unfurl_links":false,"unfurl_media":false}`
	if got.body != want || n != 1 || got.method != "POST" || got.path != "/services/T0/B0/secretpath" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s\n%s\nwant\n%s", got.method, got.path, got.body, want)
	}
}

func TestDiscordGetsAnEmbedThatCallsNobody(t *testing.T) {
	s := serve(t, func(r received, w http.ResponseWriter) { io.WriteString(w, `{"id":"1"}`) })
	m := failedMessage(&deploy.Notify{Kind: deploy.NotifyDiscord, URL: secretOf(s.URL + "/api/webhooks/1/secretpath?thread_id=9"), AllowPrivate: true})
	if a, err := newDiscord(deps(t)).Send(t.Context(), m); err != nil || a.Status != 200 {
		t.Fatalf("%+v, %v", a, err)
	}
	got, _ := s.last()
	want := `{"content":"shop\\: run 42 failed","embeds":[{"description":"**shop\\: run 42 failed**\ncommit 3f2c1ab of github\\.com/acme/shop, branch main, by alice\\: Fix \\<\\!channel\\> & \\*cart\\* for \\@everyone\njob deploy on web\\-1\\: step migrate\\: exit status 1` +
		"\\n\\n```\\napplying 0042_cart.sql\\nERROR: `\u200b`\u200b`\u200bcolumn <price> & \\\"x\\\" does not exist\\n```\\n\\nhttps://ci.example.com/runs/42\\n`deployhook logs 42 --job deploy --host web-1`\\n`deployhook retry 42`\\n`deployhook rollback shop`\"" +
		`,"color":13574702}],"allowed_mentions":{"parse":[]}}`
	if got.body != want {
		t.Errorf("got\n%s\nwant\n%s", got.body, want)
	}
	if got.path != "/api/webhooks/1/secretpath?thread_id=9&wait=true" {
		t.Errorf("path %s", got.path)
	}
}

func TestTelegramGetsHTMLThatCallsNobody(t *testing.T) {
	s := serve(t, func(r received, w http.ResponseWriter) { io.WriteString(w, `{"ok":true,"result":{}}`) })
	m := failedMessage(&deploy.Notify{Kind: deploy.NotifyTelegram, Token: secretOf(secretToken), Chat: "-1001234567890", Server: s.URL})
	if a, err := newTelegram(deps(t)).Send(t.Context(), m); err != nil || a.Status != 200 {
		t.Fatalf("%+v, %v", a, err)
	}
	got, _ := s.last()
	want := `{"chat_id":"-1001234567890","text":"<b>shop: run 42 failed</b>\ncommit 3f2c1ab of github.com/acme/shop, branch main, by alice: Fix &lt;!channel&gt; &amp; *cart* for @` + "\u2060" + `everyone\njob deploy on web-1: step migrate: exit status 1` +
		"\\n\\n<pre>applying 0042_cart.sql\\nERROR: ```column &lt;price&gt; &amp; &#34;x&#34; does not exist</pre>\\n\\nhttps://ci.example.com/runs/42\\n<code>deployhook logs 42 --job deploy --host web-1</code>\\n<code>deployhook retry 42</code>\\n<code>deployhook rollback shop</code>\"" +
		`,"parse_mode":"HTML","link_preview_options":{"is_disabled":true}}`
	if got.body != want || got.path != "/bot"+secretToken+"/sendMessage" {
		t.Errorf("%s\n%s\nwant\n%s", got.path, got.body, want)
	}
}

func TestTextOfTheConfigIsSaidInPlaceOfTheMessage(t *testing.T) {
	s := serve(t, func(r received, w http.ResponseWriter) { io.WriteString(w, `{"ok":true}`) })
	d := deps(t)
	for _, tt := range []struct {
		sender Sender
		spec   *deploy.Notify
		want   string
	}{
		{newSlack(d), &deploy.Notify{URL: secretOf(s.URL), AllowPrivate: true}, `{"text":"Run 42\n&lt;b&gt; &amp;","unfurl_links":false,"unfurl_media":false}`},
		{newDiscord(d), &deploy.Notify{URL: secretOf(s.URL), AllowPrivate: true}, `{"content":"Run 42\n\\<b\\> &","allowed_mentions":{"parse":[]},"flags":4}`},
		{newTelegram(d), &deploy.Notify{Token: secretOf(secretToken), Chat: "@x", Server: s.URL}, `{"chat_id":"@x","text":"Run 42\n&lt;b&gt; &amp;","parse_mode":"HTML","link_preview_options":{"is_disabled":true}}`},
	} {
		m := failedMessage(tt.spec)
		m.Text = "Run 42\n<b> &"
		if _, err := tt.sender.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.last(); got.body != tt.want {
			t.Errorf("got  %s\nwant %s", got.body, tt.want)
		}
	}
}

func TestRefusalsOfChatsAreOneSentenceWithoutASecret(t *testing.T) {
	type answer struct {
		status int
		header string // Retry-After
		body   string
	}
	d := deps(t)
	chat := func(kind deploy.NotifyKind, url string) (Sender, *deploy.Notify) {
		n := &deploy.Notify{Kind: kind, URL: secretOf(url + "/hooks/secretpath"), Token: secretOf(secretToken), Chat: "-100", Server: url, AllowPrivate: true}
		return Senders[kind](d), n
	}
	for _, tt := range []struct {
		kind      deploy.NotifyKind
		answer    answer
		want      string
		permanent bool
		wait      time.Duration
	}{
		{deploy.NotifySlack, answer{404, "", "no_service"}, "slack: the webhook is not there any more: make another in Slack", true, 0},
		{deploy.NotifySlack, answer{400, "", "invalid_payload"}, "slack: it does not take the message; please report this", true, 0},
		{deploy.NotifySlack, answer{403, "", "action_prohibited"}, "slack: an administrator of the workspace does not allow it", true, 0},
		{deploy.NotifySlack, answer{429, "30", "rate_limited"}, "answered 429 Too Many Requests", false, 30 * time.Second},
		{deploy.NotifySlack, answer{503, "", "busy"}, "answered 503 Service Unavailable", false, 0},
		{deploy.NotifySlack, answer{302, "", "/hooks/secretpath"}, "redirects are not followed", true, 0},
		{deploy.NotifyDiscord, answer{429, "1", `{"message":"You are being rate limited.","retry_after":64.5,"global":false}`}, "discord answered 429: too many messages through this webhook", false, 64500 * time.Millisecond},
		{deploy.NotifyDiscord, answer{404, "", `{"message":"Unknown Webhook","code":10015}`}, "discord answered 404: the webhook is not there any more", true, 0},
		{deploy.NotifyDiscord, answer{401, "", `{"message":"Invalid Webhook Token","code":50027}`}, "discord answered 401: the webhook's address is wrong", true, 0},
		{deploy.NotifyDiscord, answer{500, "", ""}, "answered 500 Internal Server Error", false, 0},
		{deploy.NotifyTelegram, answer{429, "", `{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 5","parameters":{"retry_after":5}}`}, "telegram answered 429: too many messages", false, 5 * time.Second},
		{deploy.NotifyTelegram, answer{429, "", `{"ok":false,"parameters":{"retry_after":1e99}}`}, "telegram answered 429: too many messages", false, 12 * time.Hour},
		{deploy.NotifyTelegram, answer{401, "", `{"ok":false,"error_code":401,"description":"Unauthorized"}`}, "telegram answered 401: the bot's token is wrong; ask @BotFather for it", true, 0},
		{deploy.NotifyTelegram, answer{403, "", `{"ok":false,"error_code":403,"description":"Forbidden: bot was kicked from the group chat"}`}, "telegram answered 403: the bot may not write in chat -100; add it there", true, 0},
		{deploy.NotifyTelegram, answer{400, "", `{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}`}, "telegram answered 400: chat -100 is not there", true, 0},
		{deploy.NotifyTelegram, answer{400, "", `{"ok":false,"error_code":400,"parameters":{"migrate_to_chat_id":-100200}}`}, "the group has become another chat; write chat: -100200", true, 0},
		{deploy.NotifyTelegram, answer{502, "", "<html>" + secretToken}, "answered 502 Bad Gateway", false, 0},
	} {
		s := serve(t, func(r received, w http.ResponseWriter) {
			if tt.answer.header != "" {
				w.Header().Set("Retry-After", tt.answer.header)
			}
			w.Header().Set("Location", "/hooks/secretpath")
			w.WriteHeader(tt.answer.status)
			io.WriteString(w, tt.answer.body)
		})
		sender, spec := chat(tt.kind, s.URL)
		a, err := sender.Send(t.Context(), failedMessage(spec))
		if err == nil || !strings.Contains(err.Error(), tt.want) || a.Permanent != tt.permanent || a.RetryAfter != tt.wait || a.Status != tt.answer.status {
			t.Errorf("%s %d %s: %+v, %v\nwant %q, permanent %v, after %v", tt.kind, tt.answer.status, tt.answer.body, a, err, tt.want, tt.permanent, tt.wait)
		}
		for _, secret := range []string{"secretpath", secretToken} {
			if err != nil && strings.Contains(err.Error(), secret) || strings.Contains(string(a.Body), secret) {
				t.Errorf("%s %d: the secret stands in %v or %s", tt.kind, tt.answer.status, err, a.Body)
			}
		}
		if _, n := s.last(); n != 1 {
			t.Errorf("%s %d: %d requests", tt.kind, tt.answer.status, n)
		}
		s.Close()
		if _, err := sender.Send(t.Context(), failedMessage(spec)); err == nil || strings.Contains(err.Error(), "secretpath") || strings.Contains(err.Error(), secretToken) || !strings.HasPrefix(err.Error(), s.URL+": ") {
			t.Errorf("%s without a server: %v", tt.kind, err)
		}
	}
}

func TestChatsTakeNoEventOfTheApplicationAndNoBadSecret(t *testing.T) {
	d := deps(t)
	for kind, make := range Senders {
		if kind == deploy.NotifyWebhook {
			continue
		}
		spec := &deploy.Notify{Kind: kind, URL: &deploy.Secret{Name: "gone"}, Token: &deploy.Secret{Name: "gone"}, Email: &deploy.Email{Server: "127.0.0.1:1", From: "a@b.example", To: []string{"c@d.example"}, Password: &deploy.Secret{Name: "gone"}}}
		m := failedMessage(spec)
		if a, err := make(d).Send(t.Context(), m); err == nil || err.Error() != "secret gone has no source" || a.Permanent {
			t.Errorf("%s without its secret: %+v, %v", kind, a, err)
		}
		m.Run = nil
		if a, err := make(d).Send(t.Context(), m); !errors.Is(err, errNoRun) || !a.Permanent {
			t.Errorf("%s with an event: %+v, %v", kind, a, err)
		}
	}
}

// FuzzMessage has words of outsiders in every place, and looks whether what
// each service gets is within its limits, UTF-8, and has no markup of theirs.
func FuzzMessage(f *testing.F) {
	f.Add("Fix <!channel> & `x` ``` @everyone", "alice", "exit status 1", "line\nline", "", uint8(3))
	f.Add("\xff\x00\x1b[31m\u202e*_~|", "<@U1>", "</pre><b>", strings.Repeat("`", 5000), "", uint8(20))
	f.Add("[x](https://evil.example)", "a\r\nBcc: x@y.example", strings.Repeat("&", 9000), strings.Repeat("😀", 9000), "", uint8(20))
	f.Add("", "", "", "", strings.Repeat("<&>`😀", 20_000), uint8(0))
	f.Fuzz(func(t *testing.T, message, actor, problem, line, text string, lines uint8) {
		m := failedMessage(&deploy.Notify{Email: &deploy.Email{From: "Deploys <deploy@example.com>", To: []string{"ops@example.com"}}})
		m.Run.Message, m.Run.Actor, m.Run.Ref, m.Text = message, actor, "refs/heads/"+message, text
		m.Run.Jobs[1].HostRuns[0].Steps[0].Error = problem
		m.Tail, m.Command = nil, line
		for range lines {
			m.Tail = append(m.Tail, deploy.LogLine{Text: []byte(line)})
		}
		n, err := newsOf(m)
		if err != nil {
			t.Fatal(err)
		}
		fits := func(what, s string, most int) {
			t.Helper()
			if !utf8.ValidString(s) || width(s) > most || strings.TrimSpace(s) == "" && text == "" {
				t.Errorf("%s: %d of %d units, valid %v", what, width(s), most, utf8.ValidString(s))
			}
			if strings.ContainsAny(s, "\x00\x1b\u202e\r") {
				t.Errorf("%s has control characters: %q", what, s)
			}
		}
		slack := slackOf(n)
		fits("slack text", slack.Text, slackText)
		entities := strings.NewReplacer("&amp;", "", "&lt;", "", "&gt;", "")
		for _, s := range append([]slackPart{{"", slackTextObject{"", slack.Text}}}, slack.Blocks...) {
			if s.Type != "" {
				fits("slack block", s.Text.Text, slackBlock)
			}
			if rest := entities.Replace(s.Text.Text); strings.ContainsAny(rest, "<>&") {
				t.Errorf("slack has markup: %q", rest)
			}
			if c := strings.Count(s.Text.Text, "```"); s.Type != "" && c%2 != 0 {
				t.Errorf("slack's code has no end: %d marks", c)
			}
		}
		discord := discordOf(n, m.Run.State)
		fits("discord content", discord.Content, discordContent)
		total := 0
		for _, e := range discord.Embeds {
			fits("discord embed", e.Description, discordEmbed)
			total += width(e.Description)
			if c := strings.Count(e.Description, "```"); c > 2 {
				t.Errorf("discord's code has %d marks", c)
			}
		}
		if b, err := marshal(discord); err != nil || total > 6000 || !strings.Contains(string(b), `"allowed_mentions":{"parse":[]}`) {
			t.Errorf("discord: %d units, %v", total, err)
		}
		telegram := n.write(telegramForm)
		fits("telegram", telegram, telegramMost)
		tags := strings.NewReplacer("<b>", "", "</b>", "", "<pre>", "", "</pre>", "", "<code>", "", "</code>", "").Replace(telegram)
		if strings.ContainsAny(tags, "<>") || strings.Count(telegram, "<pre>") > 1 || strings.Count(telegram, "<pre>") != strings.Count(telegram, "</pre>") {
			t.Errorf("telegram has markup: %q", tags)
		}
		if s := describe(m, describeMost); utf8.RuneCountInString(s) > describeMost || strings.ContainsAny(s, "\n\r") || !utf8.ValidString(s) {
			t.Errorf("a description of %d characters: %q", utf8.RuneCountInString(s), s)
		}
		mailIsWhole(t, m, n)
		if b, err := marshal(slack); err != nil || !json.Valid(b) {
			t.Errorf("slack's JSON: %v", err)
		}
	})
}
