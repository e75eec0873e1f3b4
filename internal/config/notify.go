package config

import (
	"fmt"
	"maps"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// Bounds of notifications and targets.
const (
	notifyMost  = 1000 // notifications of a pipeline, top level's included
	targetsMost = 1000
	toMost      = 50   // receivers of one mail
	urlMost     = 2048 // bytes
	delayLeast  = time.Second
	delayMost   = 12 * time.Hour
	retryDelay  = 5 * time.Second
	retryFactor = 2
)

// notifyKeys are the keys of the list notify, which stands in two places.
func notifyKeys(at string) []key {
	doc := "Messages about the runs of all pipelines, at most 1000: see [messages](messages.md)."
	if at != "notify" {
		doc = "Messages about its runs, besides those of the top level's `notify`."
	}
	item := at + "[]."
	return append([]key{
		{at, sections, "", nil, false, doc},
		{item + "name", line, "(its kind; with a number where that is taken)", nil, false, "Its name in `deployhook notifications`."},
		{item + "webhook", address, "", nil, false, "POST of the run as JSON, signed as Standard Webhooks are: the URL, or a secret with it."},
		{item + "slack", secret, "", nil, false, "Address of an incoming webhook of Slack, or of what takes the same: whoever knows it can write there, so it is a secret."},
		{item + "discord", secret, "", nil, false, "Address of a webhook of Discord, which is a secret too."},
		{item + "telegram", section, "", nil, false, "A chat on Telegram, through a bot."},
		{item + "telegram.token", secret, "", nil, false, "Token of the bot, as @BotFather gives it."},
		{item + "telegram.chat", line, "", nil, false, "Number of the chat, or `\"@name\"` of a channel."},
		{item + "telegram.server", line, "https://api.telegram.org", nil, false, "Another Bot API server."},
		{item + "email", section, "", nil, false, "Mail, one thread a run."},
		{item + "email.server", line, "", nil, false, "Mail server and port: `smtp.example.com:587`."},
		{item + "email.tls", line, "starttls", []string{"starttls", "tls", "none"}, false, "`starttls` begins in the clear and goes no further without TLS (port 587), `tls` begins with it (465), `none` has none."},
		{item + "email.username", line, "", nil, false, "User to log in as."},
		{item + "email.password", secret, "", nil, false, "Password of the user."},
		{item + "email.from", line, "", nil, false, "The sender: `deploy@example.com`, or `Deploys <deploy@example.com>`."},
		{item + "email.to", texts, "", nil, false, "Who gets it, at most 50."},
		{item + "status", trueOrMap, "", nil, false, "Commit statuses on the repository's forge, as `deployhook/PIPELINE`; `true` takes `auth.token`."},
		{item + "status.token", secret, "(the pipeline's `auth.token`)", nil, false, "Token of the forge."},
		{item + "status.forge", line, "", []string{"github", "gitlab", "gitea", "forgejo"}, false, "What the forge is, where neither the repository's host nor the provider of the pipeline's hook says it."},
		{item + "status.server", line, "(the repository's host)", nil, false, "Address of the forge where it is another than the repository's: `https://git.example.com:3000`."},
		{item + "status.environment", line, "", nil, false, "On GitHub: runs of pipelines with a deploy job are deployments to this environment too."},
		{item + "on", texts, "[failed, lost, recovered]", nil, false, "Changes that are told: states of a run, `recovered` (succeeded after it had not), `superseded`, `rolled_back`, `waiting_for_approval`. Of `status` all states."},
		{item + "if", expression, "", nil, false, "A further condition, with [words of the run](#expressions): `branch == \"main\" && state == \"failed\"`."},
		{item + "text", message, "(what happened, by whom, the last lines of the log, what to do)", nil, false, "What is said in place of the message that is made: `Run ${{ run }} of ${{ pipeline }}: ${{ state }}`. Not for `webhook`, whose body is JSON."},
		{item + "secret", secretList, "", nil, false, "Key that a `webhook` is signed with, 16 characters or more; of a list all sign, for a rotation."},
		{item + "allow_private", boolean, "false", nil, false, "With `webhook`, `slack` and `discord`: a name that stands for a private, link-local or loopback address is connected to."},
	}, retryKeys(item+"retry")...)
}

// retryKeys are those of what is sent through the outbox.
func retryKeys(at string) []key {
	return []key{
		{at, section, "", nil, false, "How it is tried again, within three days, with full jitter: each wait is a random part of the delay."},
		{at + ".limit", number, "(as many as three days have room for)", nil, false, "Further tries."},
		{at + ".delay", duration, "5s", nil, false, "The longest wait before the second try, 1s to 12h."},
		{at + ".factor", decimal, "2", nil, false, "Each delay is the one before times this, 12h at most."},
	}
}

// targetKeys are those of the section targets.
var targetKeys = append([]key{
	{"targets", names, "", nil, false, "Receivers of the application's own events (`POST /api/events`), at most 1000."},
	{"targets.*", section, "", nil, false, "A receiver: it gets signed webhooks."},
	{"targets.*.url", address, "", nil, false, "Its URL, or a secret with it."},
	{"targets.*.events", texts, "(all)", nil, false, "Types of events that it gets, with GitHub's globs: `payment.*`."},
	{"targets.*.secret", secretList, "", nil, false, "Key of the signature, 16 characters or more; of a list all sign, for a rotation."},
	{"targets.*.allow_private", boolean, "false", nil, false, "A name that stands for a private, link-local or loopback address is connected to."},
}, retryKeys("targets.*.retry")...)

// addressForm is the form of a URL that may be a secret. What is neither is
// not repeated: it may be one.
func (c *checker) addressForm(n *node) *node {
	if !n.v.scalar || !strings.Contains(n.v.text, "://") {
		return c.secret(n)
	}
	n.text = strings.TrimSpace(n.v.text)
	if err := checkURL(n.text); err != nil {
		c.problem(n.v.line, n.v.column, n.path, "%v", err)
		return nil
	}
	return n
}

// checkURL checks the address of a receiver. Its errors do not repeat it.
func checkURL(text string) error {
	if len(text) > urlMost {
		return fmt.Errorf("a URL has at most %d characters here", urlMost)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fmt.Errorf("this URL cannot be read")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("a URL that begins with https:// or http:// is wanted here")
	case u.User != nil:
		return fmt.Errorf("a login does not stand in the URL: write a secret with the whole URL in its place")
	case u.Hostname() == "":
		return fmt.Errorf("this URL has no host")
	case u.Fragment != "":
		return fmt.Errorf("a URL has no # here")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("the port of this URL is not one")
		}
	}
	return nil
}

// secretsAt gives the secrets of a list.
func (b *builder) secretsAt(n *node) (list []deploy.Secret) {
	if n == nil {
		return nil
	}
	for _, i := range n.items {
		if s := b.secretOf(i); s != nil {
			list = append(list, *s)
		}
	}
	return list
}

// receiver gives a URL as it is written, or the secret that it is.
func (b *builder) receiver(n *node) (literal string, s *deploy.Secret) {
	if n == nil {
		return "", nil
	}
	if n.keys != nil || !strings.Contains(n.text, "://") {
		return "", b.secretOf(n)
	}
	u, err := url.Parse(n.text)
	if err == nil && u.Scheme == "http" && !loopback(n.text) {
		b.warn(n, "what is sent goes over the network unencrypted: use https")
	}
	if err == nil && u.RawQuery != "" {
		b.warn(n, "what stands after the ? may be a token: a secret with the whole URL can stand here")
	}
	return n.text, nil
}

// retry reads how often something is sent again.
func (b *builder) retry(n *node) deploy.NotifyRetry {
	r := deploy.NotifyRetry{Limit: numberOf(n.get("limit"), 0), Delay: durationOf(n.get("delay"), retryDelay), Factor: retryFactor}
	if f := n.get("factor"); f != nil {
		if r.Factor, _ = strconv.ParseFloat(f.text, 64); r.Factor < 1 { // the checker has read it
			b.bad(f, "a number of 1 or more is wanted here: delays do not get shorter")
		}
	}
	if d := n.get("delay"); d != nil && (r.Delay < delayLeast || r.Delay > delayMost) {
		b.bad(d, "a duration from %s to %s is wanted here, not %q", span(delayLeast), span(delayMost), short(d.text))
	}
	return r
}

// targets reads the section targets.
func (b *builder) targets(n *node) {
	if n == nil {
		return
	}
	if len(n.order) > targetsMost {
		b.bad(n, "there are %d targets, and %d are the most", len(n.order), targetsMost)
		return
	}
	for _, name := range n.order {
		k := n.keys[name]
		t := deploy.Target{Name: name, Events: textsOf(k.get("events")), Secrets: b.secretsAt(k.get("secret")), Retry: b.retry(k.get("retry")), AllowPrivate: k.str("allow_private", "false") == "true"}
		t.Literal, t.URL = b.receiver(k.get("url"))
		if b.absent(k, "url") {
			b.bad(k, "url is missing: where the events are sent")
		}
		if b.absent(k, "secret") {
			b.bad(k, "secret is missing: the receiver tells by the signature who sent it")
		}
		if e := k.get("events"); e != nil {
			if len(e.items) == 0 && !b.within(e.path) {
				b.bad(e, "the list is empty: leave the key out for all")
			}
			for _, i := range e.items {
				if err := deploy.ValidGlob(i.text); err != nil {
					b.bad(i, "%v", err)
				}
			}
		}
		b.cfg.Targets = append(b.cfg.Targets, t)
	}
}

// notifyKinds are the kinds by their keys, in the order of the table.
var notifyKinds = []deploy.NotifyKind{
	deploy.NotifyWebhook, deploy.NotifySlack, deploy.NotifyDiscord, deploy.NotifyTelegram, deploy.NotifyEmail, deploy.NotifyStatus,
}

// changes are the words of on.
var changes = []deploy.Change{
	deploy.Change(deploy.Queued), deploy.Change(deploy.Waiting), deploy.Change(deploy.Running), deploy.Change(deploy.Succeeded),
	deploy.Change(deploy.Failed), deploy.Change(deploy.Canceled), deploy.Change(deploy.Skipped), deploy.Change(deploy.Lost),
	deploy.Recovered, deploy.Superseded, deploy.RolledBack, deploy.NeedsApproval,
}

// notify reads a list of notifications.
func (b *builder) notify(n *node) (list []deploy.Notify) {
	if n == nil {
		return nil
	}
	if len(n.items) > notifyMost {
		b.bad(n, "there are %d notifications, and %d are the most", len(n.items), notifyMost)
		return nil
	}
	taken := map[string]bool{}
	for _, k := range n.items {
		name := k.get("name")
		if name == nil {
			continue
		}
		switch {
		case !validName(name.text):
			b.bad(name, "a name has letters, digits, - and _, and begins with a letter or digit; at most 64 characters")
		case taken[name.text]:
			b.bad(name, "another notification has this name")
		}
		taken[name.text] = true
	}
	for _, k := range n.items {
		if k == nil {
			continue
		}
		if x, ok := b.oneNotify(k); ok {
			if x.Name = k.str("name", ""); x.Name == "" {
				x.Name = freeName(string(x.Kind), taken)
			}
			list = append(list, x)
		}
	}
	return list
}

// freeName is a name that is not taken, and takes it.
func freeName(name string, taken map[string]bool) string {
	free := name
	for i := 2; taken[free]; i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	taken[free] = true
	return free
}

// oneNotify reads one notification; not ok where its kind is not known.
func (b *builder) oneNotify(n *node) (x deploy.Notify, ok bool) {
	var kinds []string
	for _, kind := range notifyKinds {
		if n.get(string(kind)) != nil {
			kinds = append(kinds, string(kind))
		}
	}
	switch {
	case len(kinds) == 1:
	case len(kinds) > 1:
		b.bad(n, "one way a notification: %s do not go together; write one for each", strings.Join(kinds, " and "))
		return x, false
	default:
		for _, kind := range notifyKinds {
			if !b.absent(n, string(kind)) {
				return x, false
			}
		}
		b.bad(n, "one of webhook, slack, discord, telegram, email and status is wanted: where it goes")
		return x, false
	}
	x = deploy.Notify{Kind: deploy.NotifyKind(kinds[0]), On: b.changes(n.get("on"), deploy.NotifyKind(kinds[0])), Retry: b.retry(n.get("retry")), AllowPrivate: n.str("allow_private", "false") == "true"}
	if k := n.get("if"); k != nil {
		x.If, _ = deploy.CompileNotice(k.text) // the checker has reported it
	}
	if k := n.get("text"); k != nil {
		if t, err := deploy.CompileNoticeTemplate(k.text); err == nil {
			x.Text = &t
		}
		if x.Kind == deploy.NotifyWebhook {
			b.bad(k, "the body of a webhook is JSON, and has no text: leave the key out")
		}
	}
	if x.Secrets = b.secretsAt(n.get("secret")); x.Kind != deploy.NotifyWebhook && n.get("secret") != nil {
		b.bad(n.get("secret"), "only a webhook is signed: leave the key out")
	}
	if k := n.get("allow_private"); k != nil && !slices.Contains([]deploy.NotifyKind{deploy.NotifyWebhook, deploy.NotifySlack, deploy.NotifyDiscord}, x.Kind) {
		b.bad(k, "this is for webhook, slack and discord: other kinds may have private addresses")
	}
	at := n.get(kinds[0])
	switch x.Kind {
	case deploy.NotifyWebhook:
		if x.Literal, x.URL = b.receiver(at); b.absent(n, "secret") {
			b.bad(n, "secret is missing: the receiver of a webhook tells by the signature who sent it")
		}
	case deploy.NotifySlack, deploy.NotifyDiscord:
		x.URL = b.secretOf(at)
	case deploy.NotifyTelegram:
		b.telegram(&x, at)
	case deploy.NotifyEmail:
		x.Email = b.email(at)
	case deploy.NotifyStatus:
		x.Token, x.Forge, x.Environment = b.secretOf(at.get("token")), at.str("forge", ""), at.str("environment", "")
		x.Server = b.server(at.get("server"), "")
	}
	return x, true
}

// changes reads on.
func (b *builder) changes(n *node, kind deploy.NotifyKind) []deploy.Change {
	if n == nil {
		if kind == deploy.NotifyStatus {
			return slices.Clone(changes[:8])
		}
		return []deploy.Change{deploy.Change(deploy.Failed), deploy.Change(deploy.Lost), deploy.Recovered}
	}
	if len(n.items) == 0 && !b.within(n.path) {
		b.bad(n, "the list is empty: nothing would be told")
	}
	var known []string
	for _, c := range changes {
		known = append(known, string(c))
	}
	var list []deploy.Change
	for _, i := range n.items {
		c := deploy.Change(i.text)
		switch {
		case !slices.Contains(changes, c):
			b.bad(i, "%s", notAllowed(i.text, known))
		case slices.Contains(list, c):
			b.bad(i, "%s stands here twice", c)
		default:
			list = append(list, c)
		}
	}
	return list
}

// server reads the address of an API, without a slash at its end.
func (b *builder) server(n *node, def string) string {
	if n == nil {
		return def
	}
	if err := checkURL(n.text); err != nil {
		b.bad(n, "%v", err)
		return def
	}
	if strings.Contains(n.text, "?") {
		b.bad(n, "an address has no ? here")
	}
	if strings.HasPrefix(n.text, "http://") && !loopback(n.text) {
		b.warn(n, "the token goes over the network unencrypted: use https")
	}
	return strings.TrimRight(n.text, "/")
}

const telegramServer = "https://api.telegram.org"

func (b *builder) telegram(x *deploy.Notify, n *node) {
	x.Token, x.Chat, x.Server = b.secretOf(n.get("token")), n.str("chat", ""), b.server(n.get("server"), telegramServer)
	if b.absent(n, "token") {
		b.bad(n, "token is missing: @BotFather gives one")
	}
	chat := n.get("chat")
	if b.absent(n, "chat") {
		b.bad(n, "chat is missing: the number of a chat, or \"@name\" of a channel")
	}
	if chat == nil {
		return
	}
	digits := strings.TrimPrefix(chat.text, "-")
	name, isName := strings.CutPrefix(chat.text, "@")
	if isName && validVariable(name) {
		return
	}
	if isName || digits == "" || len(digits) > 18 || strings.Trim(digits, "0123456789") != "" {
		b.bad(chat, "the number of a chat is wanted here, like -1001234567890, or \"@name\" of a channel, not %q", short(chat.text))
	}
}

// email reads how mail is sent.
func (b *builder) email(n *node) *deploy.Email {
	e := &deploy.Email{
		Server: n.str("server", ""), TLS: n.str("tls", "starttls"), Username: n.str("username", ""), Password: b.secretOf(n.get("password")),
		From: n.str("from", ""), To: textsOf(n.get("to")),
	}
	for _, k := range []string{"server", "from", "to"} {
		if b.absent(n, k) {
			b.bad(n, "%s is missing", k)
		}
	}
	host := ""
	if k := n.get("server"); k != nil {
		h, port, err := net.SplitHostPort(k.text)
		if p, e := strconv.Atoi(port); err != nil || e != nil || h == "" || p < 1 || p > 65535 || strings.ContainsAny(h, " /@") {
			b.bad(k, "a mail server with its port is wanted here, like smtp.example.com:587, not %q", short(k.text))
		}
		host = h
	}
	user, password := n.get("username"), n.get("password")
	switch {
	case user != nil && b.absent(n, "password"):
		b.bad(user, "a username without a password cannot log in")
	case password != nil && b.absent(n, "username"):
		b.bad(password, "a password without a username cannot log in")
	case password != nil && e.TLS == "none" && !loopback("smtp://"+net.JoinHostPort(host, "25")):
		b.bad(n.get("tls"), "the password would go over the network unencrypted: use starttls or tls")
	}
	if k := n.get("from"); k != nil {
		b.mailbox(k)
	}
	if k := n.get("to"); k != nil {
		switch {
		case len(k.items) == 0 && !b.within(k.path):
			b.bad(k, "the list is empty: nobody would get it")
		case len(k.items) > toMost:
			b.bad(k, "at most %d receivers are wanted here: a mailing list has more", toMost)
		}
		for _, i := range k.items {
			b.mailbox(i)
		}
	}
	return e
}

func (b *builder) mailbox(n *node) {
	if a, err := mail.ParseAddress(n.text); err != nil || !strings.Contains(a.Address, "@") || len(n.text) > 320 {
		b.bad(n, "the address of one mailbox is wanted here, like deploy@example.com, not %q", short(n.text))
	}
}

// notified gives a pipeline its notifications: top level's, and its own.
func (b *builder) notified(p *deploy.Pipeline, n *node) {
	own := b.notify(n.get("notify"))
	if len(own)+len(b.cfg.Notify) > notifyMost {
		b.bad(n.get("notify"), "with those of the top level there are %d notifications, and %d are the most", len(own)+len(b.cfg.Notify), notifyMost)
		return
	}
	taken := map[string]bool{}
	add := func(at *node, x deploy.Notify, inherited bool) {
		if x.Kind == deploy.NotifyStatus && !b.status(p, n, at, &x, inherited) {
			return
		}
		p.Notify = append(p.Notify, x)
	}
	for _, x := range b.cfg.Notify {
		taken[x.Name] = true
		add(b.notices, x, true)
	}
	named := map[string]*node{}
	for _, k := range n.get("notify").list() {
		if name := k.get("name"); name != nil {
			named[name.text] = name
		}
	}
	for _, x := range own {
		if at := named[x.Name]; at != nil && taken[x.Name] {
			b.bad(at, "a notification at the top level has this name, and this pipeline has it too")
		}
	}
	maps.DeleteFunc(taken, func(name string, _ bool) bool { return named[name] != nil })
	for _, x := range own {
		if named[x.Name] == nil {
			if taken[x.Name] {
				x.Name = freeName(string(x.Kind), taken)
			}
			taken[x.Name] = true
		}
		add(n.get("notify"), x, false)
	}
	b.noticed(p, n)
}

// list are the items of a list that are right.
func (n *node) list() []*node {
	if n == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(n.items), func(k *node) bool { return k == nil })
}

// noticed checks the jobs that a pipeline's notifications name as needs.JOB.
func (b *builder) noticed(p *deploy.Pipeline, n *node) {
	jobs := n.get("jobs")
	if jobs == nil || b.within(jobs.path) {
		return
	}
	for _, k := range n.get("notify").list() {
		check := func(at *node, names []string) {
			for _, name := range names {
				if p.Job(name) == nil {
					b.bad(at, "needs.%s: no job %q%s", short(name), short(name), deploy.DidYouMean(name, jobs.order))
				}
			}
		}
		if at := k.get("if"); at != nil {
			if e, err := deploy.CompileNotice(at.text); err == nil {
				check(at, e.Needs())
			}
		}
		if at := k.get("text"); at != nil {
			if t, err := deploy.CompileNoticeTemplate(at.text); err == nil {
				check(at, t.Needs())
			}
		}
	}
}

// forges are the public ones, by host.
var forges = map[string]string{"github.com": "github", "gitlab.com": "gitlab", "gitea.com": "gitea", "codeberg.org": "forgejo"}

// apis are where forges have their API below their address.
var apis = map[string]string{"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1", "forgejo": "/api/v1"}

// status fills in what a pipeline's commit statuses are set with; false where
// there is no commit that could have one, or something is wrong.
func (b *builder) status(p *deploy.Pipeline, n, at *node, x *deploy.Notify, inherited bool) bool {
	if b.within(n.path+".repository") || b.within(n.path+".auth") || b.within("hooks") || b.within(n.path+".jobs") {
		return false
	}
	if p.Repository == "" {
		if !inherited {
			b.bad(at, "without repository there is no commit that could have a status")
		}
		return false
	}
	of := ""
	if inherited {
		of = "of pipeline " + p.Name + " "
	}
	host, _, _ := strings.Cut(p.Repository, "/")
	if x.Forge == "" {
		x.Forge = forges[host]
	}
	if h := b.cfg.Hook(p.Hook); x.Forge == "" && h != nil && apis[h.Provider] != "" {
		x.Forge = h.Provider
	}
	if x.Token == nil {
		x.Token = p.Auth.Token
	}
	deploys := slices.ContainsFunc(p.Jobs, func(j deploy.Job) bool { return j.Deploys() })
	switch {
	case x.Forge == "":
		b.bad(at, "what %s %sis cannot be told from its name: write status: {forge: github, gitlab, gitea or forgejo}", short(host), of)
		return false
	case x.Token == nil:
		b.bad(at, "a token %sis wanted for commit statuses: auth.token of the pipeline, or status: {token: secret}", of)
		return false
	case x.Environment != "" && x.Forge != "github" && !inherited:
		b.bad(at, "status.environment: deployments are made on GitHub alone; leave it out")
		return false
	case x.Environment != "" && !deploys && !inherited:
		b.bad(at, "status.environment: no job of this pipeline deploys; leave it out")
		return false
	case x.Environment != "" && (x.Forge != "github" || !deploys):
		x.Environment = ""
	}
	address := x.Server
	if address == "" {
		address = "https://" + host
		if u, err := url.Parse(p.CloneURL); err == nil && (u.Scheme == "https" || u.Scheme == "http") && strings.EqualFold(u.Hostname(), host) {
			address = u.Scheme + "://" + u.Host
		}
	}
	x.Server = address + apis[x.Forge]
	if x.Forge == "github" && (address == "https://github.com" || address == "https://api.github.com") {
		x.Server = "https://api.github.com"
	}
	return true
}

// notifySecrets are those of notifications and targets, each once.
func notifySecrets(cfg *deploy.Config) (list []deploy.Secret) {
	seen := map[deploy.Secret]bool{}
	add := func(secrets ...*deploy.Secret) {
		for _, s := range secrets {
			if s != nil && !seen[*s] {
				seen[*s] = true
				list = append(list, *s)
			}
		}
	}
	all := func(secrets []deploy.Secret) {
		for i := range secrets {
			add(&secrets[i])
		}
	}
	notify := func(entries []deploy.Notify) {
		for i := range entries {
			x := &entries[i]
			add(x.URL, x.Token)
			if x.Email != nil {
				add(x.Email.Password)
			}
			all(x.Secrets)
		}
	}
	notify(cfg.Notify)
	for i := range cfg.Pipelines {
		notify(cfg.Pipelines[i].Notify)
	}
	for i := range cfg.Targets {
		add(cfg.Targets[i].URL)
		all(cfg.Targets[i].Secrets)
	}
	return list
}

// signingKeys are the secrets that webhooks are signed with.
func signingKeys(cfg *deploy.Config) map[deploy.Secret]bool {
	keys := map[deploy.Secret]bool{}
	add := func(secrets []deploy.Secret) {
		for _, s := range secrets {
			keys[s] = true
		}
	}
	for _, x := range cfg.Notify {
		add(x.Secrets)
	}
	for _, p := range cfg.Pipelines {
		for _, x := range p.Notify {
			add(x.Secrets)
		}
	}
	for _, t := range cfg.Targets {
		add(t.Secrets)
	}
	return keys
}
