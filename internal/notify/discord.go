package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"deployhook/internal/deploy"
)

// Bounds of Discord, in characters.
//
// Source: Discord docs, "Webhook resource", section "Execute webhook", and
// "Message resource", section "Embed limits".
const (
	discordContent = 2000
	discordEmbed   = 4096
)

// discord writes to a webhook.
type discord struct{ Deps }

func newDiscord(d Deps) Sender { return discord{d} }

type discordMessage struct {
	Content  string          `json:"content"`
	Embeds   []discordPart   `json:"embeds,omitempty"`
	Mentions discordMentions `json:"allowed_mentions"`
	Flags    int             `json:"flags,omitempty"`
}

type discordPart struct {
	Description string `json:"description"`
	Color       int    `json:"color"`
}

// discordMentions calls nobody, whatever is written.
type discordMentions struct {
	Parse []string `json:"parse"`
}

// suppressEmbeds keeps addresses in a text from growing pictures.
const suppressEmbeds = 1 << 2

// discordEscape makes text of Markdown.
func discordEscape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x7f && strings.ContainsRune("\\`*_~|<>[](){}#+-.!@:", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// discordLink leaves an address as it is, so that it can be followed, unless
// there may be more in it than an address.
func discordLink(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\\`*~|<>[](){}", r) }) {
		return discordEscape(s)
	}
	return s
}

var discordForm = form{
	most: discordEmbed, text: discordEscape,
	bold:  func(s string) string { return "**" + discordEscape(s) + "**" },
	code:  func(s string) string { return "`" + inBackticks(s) + "`" },
	block: func(s string) string { return "```\n" + inBackticks(s) + "\n```" },
	link:  discordLink,
}

// colors are those of an embed's edge, by what has come of the run.
var colors = map[deploy.State]int{
	deploy.Succeeded: 0x2da44e, deploy.Failed: 0xcf222e, deploy.Lost: 0xcf222e, deploy.Canceled: 0x6e7781, deploy.Skipped: 0x6e7781,
}

func discordOf(n news, state deploy.State) discordMessage {
	m := discordMessage{Mentions: discordMentions{Parse: []string{}}}
	f := discordForm
	f.most = discordContent
	if n.text != "" {
		m.Content, m.Flags = n.write(f), suppressEmbeds
		return m
	}
	color, ok := colors[state]
	if !ok {
		color = 0xbf8700
	}
	m.Content = f.fit(n.head)
	m.Embeds = []discordPart{{Description: n.write(discordForm), Color: color}}
	return m
}

func (d discord) Send(ctx context.Context, m *Message) (Answer, error) {
	n, err := newsOf(m)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	address, err := Address(ctx, d.Deps, m.Spec)
	if err != nil {
		return Answer{}, err
	}
	// Without wait, Discord says that all is well before it has looked.
	u, err := url.Parse(address)
	if err != nil {
		return Answer{Permanent: true}, errNoAddress
	}
	q := u.Query()
	q.Set("wait", "true")
	u.RawQuery = q.Encode()
	a, err := post(ctx, d.Client(m.Spec.AllowPrivate, m.Spec.Literal), u.String(), discordOf(n, m.Run.State))
	if err == nil {
		return a, nil
	}
	var said struct {
		Code       int     `json:"code"`
		RetryAfter float64 `json:"retry_after"` // seconds
	}
	_ = json.Unmarshal(a.Body, &said) // a proxy's words are not JSON, and say nothing
	switch {
	case a.Status == 429:
		a.RetryAfter = max(a.RetryAfter, seconds(said.RetryAfter))
		return a, fmt.Errorf("discord answered 429: too many messages through this webhook")
	case a.Status == 404 || said.Code == 10015:
		return a, fmt.Errorf("discord answered %d: the webhook is not there any more; make another in the channel's settings", a.Status)
	case a.Status == 401 || a.Status == 403:
		return a, fmt.Errorf("discord answered %d: the webhook's address is wrong; copy it again from the channel's settings", a.Status)
	}
	return a, err
}
