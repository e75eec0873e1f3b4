package deploy

// HookTest is what became of the deliveries that the daemon sent to one of its
// own hooks.
type HookTest struct {
	Hook     string    `json:"hook"`
	Provider string    `json:"provider"`
	Tries    []HookTry `json:"tries"` // in the order sent
}

// HookTry is one delivery of a [HookTest]. OK says whether it was answered as
// it must be: a right one is taken, a wrong one is refused, both by this daemon
// and within the time that a sender waits.
type HookTry struct {
	Way      string `json:"way"`      // local: server.listen; public: server.url
	Address  string `json:"address"`  // where it was sent to
	Delivery string `json:"delivery"` // wrong or right: its signature or token
	OK       bool   `json:"ok"`
	Status   int    `json:"status"`  // of the answer; 0 = there was none
	Message  string `json:"message"` // what was answered, or why nothing was
	TookMS   int64  `json:"took_ms"` // until the whole answer was there
	TLS      string `json:"tls"`     // version and end of the certificate; empty = none
	From     string `json:"from"`    // the address that the daemon saw; empty = it did not arrive
	Text     string `json:"text"`    // one sentence: what the sender would see
	Fix      string `json:"fix"`     // what to do about it, a line each; empty = nothing
}
