package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
)

// telegramMost is how much a message may have, in characters.
//
// Source: Telegram Bot API, "sendMessage".
const telegramMost = 4096

// telegram writes to a chat through a bot.
type telegram struct{ Deps }

func newTelegram(d Deps) Sender { return telegram{d} }

type telegramMessage struct {
	Chat    string          `json:"chat_id"`
	Text    string          `json:"text"`
	Parse   string          `json:"parse_mode"`
	Preview telegramPreview `json:"link_preview_options"`
}

type telegramPreview struct {
	Disabled bool `json:"is_disabled"`
}

// telegramEscape makes text of HTML, and of @name what calls nobody: Telegram
// finds names by itself.
func telegramEscape(s string) string {
	return strings.ReplaceAll(html.EscapeString(s), "@", "@\u2060")
}

var telegramForm = form{
	most: telegramMost, text: telegramEscape,
	bold:  func(s string) string { return "<b>" + telegramEscape(s) + "</b>" },
	code:  func(s string) string { return "<code>" + html.EscapeString(s) + "</code>" },
	block: func(s string) string { return "<pre>" + html.EscapeString(s) + "</pre>" },
	link:  html.EscapeString,
}

func (t telegram) Send(ctx context.Context, m *Message) (Answer, error) {
	n, err := newsOf(m)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	token, err := t.Secret(ctx, *m.Spec.Token)
	if err != nil {
		return Answer{}, err
	}
	address := m.Spec.Server + "/bot" + url.PathEscape(token) + "/sendMessage"
	body := telegramMessage{Chat: m.Spec.Chat, Text: n.write(telegramForm), Parse: "HTML", Preview: telegramPreview{true}}
	// Whose server it is stands in the config: it may be one of one's own.
	a, err := post(ctx, t.Client(true, ""), address, body)
	a.Body = Hide(a.Body, token)
	if err == nil {
		return a, nil
	}
	var said struct {
		Description string `json:"description"`
		Parameters  struct {
			RetryAfter float64 `json:"retry_after"` // seconds
			Migrated   int64   `json:"migrate_to_chat_id"`
		} `json:"parameters"`
	}
	_ = json.Unmarshal(a.Body, &said) // a proxy's words are not JSON, and say nothing
	switch {
	case a.Status == 429:
		a.RetryAfter = max(a.RetryAfter, seconds(said.Parameters.RetryAfter))
		return a, fmt.Errorf("telegram answered 429: too many messages")
	case a.Status == 401 || a.Status == 404:
		return a, fmt.Errorf("telegram answered %d: the bot's token is wrong; ask @BotFather for it", a.Status)
	case said.Parameters.Migrated != 0:
		return a, fmt.Errorf("telegram answered %d: the group has become another chat; write chat: %d", a.Status, said.Parameters.Migrated)
	case a.Status == 403:
		return a, fmt.Errorf("telegram answered 403: the bot may not write in chat %s; add it there", m.Spec.Chat)
	case a.Status == 400 && strings.Contains(said.Description, "chat not found"):
		return a, fmt.Errorf("telegram answered 400: chat %s is not there, or the bot is not in it; add it there", m.Spec.Chat)
	}
	return a, err
}
