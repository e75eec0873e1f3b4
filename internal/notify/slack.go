package notify

import (
	"context"
	"fmt"
	"strings"
)

// Bounds of Slack, in characters.
//
// Source: Slack API docs, "Section block", "chat.postMessage", section
// "Truncating content".
const (
	slackBlock = 3000
	slackText  = 40_000
)

// slack writes to an incoming webhook.
//
// Source: Slack API docs, "Sending messages using incoming webhooks".
type slack struct{ Deps }

func newSlack(d Deps) Sender { return slack{d} }

type slackMessage struct {
	Text   string      `json:"text"` // what a notification on a screen shows
	Blocks []slackPart `json:"blocks,omitempty"`
	Links  bool        `json:"unfurl_links"`
	Media  bool        `json:"unfurl_media"`
}

type slackPart struct {
	Type string          `json:"type"`
	Text slackTextObject `json:"text"`
}

type slackTextObject struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// slackEscape makes text of markup: without <, > and & nobody is called and
// nothing is linked.
//
// Source: Slack API docs, "Formatting text for app surfaces", section
// "Escaping text".
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

// inBackticks makes a text fit between marks of code: a space without width
// stands between backticks, so that none ends the code.
func inBackticks(s string) string {
	return strings.ReplaceAll(s, "`", "`\u200b")
}

var slackForm = form{
	most: slackBlock, text: slackEscape,
	bold:  func(s string) string { return "*" + slackEscape(s) + "*" },
	code:  func(s string) string { return "`" + inBackticks(slackEscape(s)) + "`" },
	block: func(s string) string { return "```\n" + inBackticks(slackEscape(s)) + "\n```" },
	link:  slackEscape,
}

// slackOf is the message as Slack has it: the log in a block of its own.
func slackOf(n news) slackMessage {
	if n.text != "" {
		f := slackForm
		f.most = slackText
		return slackMessage{Text: n.write(f)}
	}
	m := slackMessage{Text: slackForm.fit(n.head)}
	section := func(s string) {
		m.Blocks = append(m.Blocks, slackPart{"section", slackTextObject{"mrkdwn", s}})
	}
	tail, first, last := n.tail, n, n
	first.tail, first.url, first.commands = nil, "", nil
	section(first.write(slackForm))
	for len(tail) > 0 {
		if s := slackForm.block(strings.Join(tail, "\n")); width(s) <= slackBlock && strings.TrimSpace(strings.Join(tail, "")) != "" {
			section(s)
			break
		}
		tail = tail[1:]
	}
	if last.url != "" || len(last.commands) > 0 {
		section(last.ways(slackForm))
	}
	return m
}

func (s slack) Send(ctx context.Context, m *Message) (Answer, error) {
	n, err := newsOf(m)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	address, err := Address(ctx, s.Deps, m.Spec)
	if err != nil {
		return Answer{}, err
	}
	a, err := post(ctx, s.Client(m.Spec.AllowPrivate, m.Spec.Literal), address, slackOf(n))
	if err == nil {
		return a, nil
	}
	what := map[string]string{
		"no_service": "the webhook is not there any more: make another in Slack", "no_service_id": "the webhook's address is not whole: copy it again from Slack",
		"invalid_token": "the webhook's address is wrong: copy it again from Slack", "no_team": "the workspace is not there any more",
		"team_disabled": "the workspace is closed", "channel_not_found": "the channel is not there any more: make a webhook for another",
		"channel_is_archived": "the channel is archived: make a webhook for another", "action_prohibited": "an administrator of the workspace does not allow it",
		"posting_to_general_channel_denied": "only an administrator writes in this channel", "invalid_payload": "it does not take the message; please report this",
		"user_not_found": "who made the webhook is not there any more: make another in Slack",
	}[strings.TrimSpace(string(a.Body))]
	if what != "" {
		a.Permanent = true
		return a, fmt.Errorf("slack: %s", what)
	}
	return a, err
}
