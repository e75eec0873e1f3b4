// Package notify tells others what has happened: it takes what waits in the
// outbox and brings it to webhooks, chats, mailboxes and forges, so that a
// receiver that is slow or gone holds up nobody else.
package notify

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"deployhook/internal/deploy"
)

// Message is what a sender makes of a notification.
type Message struct {
	deploy.Notification
	Run             *deploy.Run      // nil for an event of the application
	Spec            *deploy.Notify   // whom to tell, and how
	Pipeline        *deploy.Pipeline // nil for an event of the application
	Attempt         int              // 1 = the first
	Tail            []deploy.LogLine // the last lines of the step that failed, redacted as they are stored; at most 20
	Step, Job, Host string           // that failed; empty = none did
	URL             string           // where to look; empty = none
	Command         string           // what to type; empty = nothing
	Text            string           // the template of the config, rendered; empty = the sender's own words
}

// Answer is what came of a try.
type Answer struct {
	Status     int           // of HTTP or SMTP; 0 = no answer came
	Body       []byte        // the first of the answer, at most [AnswerMost]
	RetryAfter time.Duration // how long the receiver wants to be left alone; 0 = it did not say
	Gone       bool          // the receiver wants nothing more: its target ends until the config changes
	Permanent  bool          // trying again would be of no use
}

// AnswerMost is how much is kept of an answer, in bytes.
const AnswerMost = 1 << 10

// Sender brings messages to one kind of target. An error means that the try
// has failed; it says why in one sentence, without an address beyond scheme and
// host and without a secret. Send returns soon after ctx has ended, and may be
// called from several goroutines.
type Sender interface {
	Send(ctx context.Context, m *Message) (Answer, error)
}

// Deps are what senders are made of.
type Deps struct {
	// Client gives a client that reaches no private address, unless
	// allowPrivate, or literal (the address as somebody wrote it) has a private
	// address in place of a name. It follows no redirect.
	Client func(allowPrivate bool, literal string) *http.Client
	Secret func(ctx context.Context, s deploy.Secret) (string, error)
	Roots  *x509.CertPool // authorities that mail servers are verified with; nil = the system's
	Log    *slog.Logger
}

// Senders make the sender of each kind.
var Senders = map[deploy.NotifyKind]func(Deps) Sender{
	deploy.NotifyWebhook:  newWebhook,
	deploy.NotifySlack:    newSlack,
	deploy.NotifyDiscord:  newDiscord,
	deploy.NotifyTelegram: newTelegram,
	deploy.NotifyEmail:    newEmail,
	deploy.NotifyStatus:   newStatus,
}
