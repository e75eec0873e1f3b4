package deploy

import "errors"

// ErrMisuse is a command that cannot mean anything as it was given: exit 2.
var ErrMisuse = errors.New("misuse")

// ErrRefused is a command that was understood and is not carried out: exit 1.
var ErrRefused = errors.New("refused")

// TriggerCommand asks for a run by hand.
type TriggerCommand struct {
	Pipeline string            `json:"pipeline"`
	Branch   string            `json:"branch,omitempty"` // empty = the pipeline's
	SHA      string            `json:"sha,omitempty"`
	Inputs   map[string]string `json:"inputs,omitempty"`
	Force    bool              `json:"force,omitempty"`
	Actor    string            `json:"actor"`
	Once     *Once             `json:"-"` // the same request makes one run; nil = each makes one
}

// RetryCommand asks for a new run like an ended one.
type RetryCommand struct {
	Run   int64  `json:"run"`
	Force bool   `json:"force,omitempty"`
	Actor string `json:"actor"`
}

// RollbackCommand asks for an earlier release to be current again.
type RollbackCommand struct {
	Pipeline string `json:"pipeline"`
	Job      string `json:"job,omitempty"`   // empty = the only release job
	To       string `json:"to,omitempty"`    // empty = the one below the top of the stack
	Force    bool   `json:"force,omitempty"` // although the pipeline is locked
	Actor    string `json:"actor"`
}

// RollbackReceipt says what a rollback will do.
type RollbackReceipt struct {
	Run    int64  `json:"run"`
	From   string `json:"from"`
	Target string `json:"target"`
}
