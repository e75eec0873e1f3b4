package host

import "time"

// ShortDeadlines makes those deadlines shorter for which a test would wait too
// long. It is called before any test runs.
func ShortDeadlines(stall, slack, silence time.Duration) {
	stallTime, stepSlack, silenceTime = stall, slack, silence
}
