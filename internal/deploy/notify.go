package deploy

import (
	"encoding/json"
	"time"
)

// NotifyKind is the way that a notification goes.
type NotifyKind string

// The kinds of notifications.
const (
	NotifyWebhook  NotifyKind = "webhook"  // Standard Webhooks
	NotifySlack    NotifyKind = "slack"    // incoming webhook
	NotifyDiscord  NotifyKind = "discord"  // webhook
	NotifyTelegram NotifyKind = "telegram" // bot
	NotifyEmail    NotifyKind = "email"    // SMTP
	NotifyStatus   NotifyKind = "status"   // commit status and deployment of the pipeline's forge
)

// Change is what a notification tells of a run: one of its states, or one of
// those below. A webhook's type is made of it: "run.failed".
type Change string

// The changes that are no states of a run.
const (
	Recovered     Change = "recovered"   // succeeded, and the last one of the pipeline and ref that ended so or so had not
	Superseded    Change = "superseded"  // canceled for a newer run
	RolledBack    Change = "rolled_back" // a rollback has succeeded
	NeedsApproval Change = "waiting_for_approval"
)

// Notify is an entry of notify: whom to tell what.
type Notify struct {
	Name         string // unique among those of a pipeline; given where none is written
	Kind         NotifyKind
	URL          *Secret  // webhook, slack, discord: the address is a secret; nil = Literal
	Literal      string   // webhook, slack, discord: the address as it is written
	Chat         string   // telegram: id or @name
	Token        *Secret  // telegram: the bot's; status: the forge's
	Server       string   // telegram, status: where the API is, without a slash at its end
	Forge        string   // status: github, gitlab, gitea or forgejo
	Environment  string   // status: runs are deployments to it too; empty = they are not
	Email        *Email   // email
	On           []Change // never empty
	If           *Expr    // nil = always
	Text         *Template
	Secrets      []Secret // webhook: keys that it is signed with, all of them
	Retry        NotifyRetry
	AllowPrivate bool
}

// Email says how mail is sent.
type Email struct {
	Server   string // host:port
	TLS      string // starttls, tls or none
	Username string
	Password *Secret
	From     string
	To       []string
}

// NotifyRetry says how long a notification is tried.
type NotifyRetry struct {
	Limit  int           // further tries; 0 = as many as three days have room for
	Delay  time.Duration // before the second try, at most
	Factor float64       // each delay is the one before times this, 12 h at most
}

// Target is an entry of targets: who gets the application's own events.
type Target struct {
	Name         string
	URL          *Secret // nil = Literal
	Literal      string
	Events       []string // globs of types, as [MatchList] has them; empty = all
	Secrets      []Secret // keys that it is signed with, all of them
	Retry        NotifyRetry
	AllowPrivate bool
}

// AppEvent is an event of the user's own application.
type AppEvent struct {
	ID       int64  // given by the store
	Key      string // Idempotency-Key; empty = each request is new
	Type     string
	Data     json.RawMessage
	Received time.Time
}

// Notification is one message to one target about one change of a run, or one
// event of the application.
type Notification struct {
	ID       int64
	Key      string // stable, for the receiver to drop repeats: webhook-id
	Target   string // what order and circuit go by: PIPELINE/NAME of notify, or targets//NAME
	Run      int64  // 0 = an event of the application
	Event    int64  // AppEvent's; 0 = of a run
	Change   Change // of a run
	Type     string // of the webhook's body: "run.failed", or that of the event
	Config   string // digest of the config that it is sent under
	Body     []byte // JSON of the run as it was, or of the event: the data of a webhook
	Created  time.Time
	State    State // queued, waiting (for the next try), running, succeeded, failed (dead), canceled
	Attempts int
	Next     time.Time // of the next try, while it waits
	Error    string    // of the last try
	Since    time.Time // from when its three days count: Created, or when it was sent again by hand
	Ended    time.Time // zero = not yet
	Tries    []NotifyTry
}
