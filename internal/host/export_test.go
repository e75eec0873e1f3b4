package host

import "time"

// ShortDeadlines makes those deadlines shorter for which a test would wait too
// long. It is called before any test runs.
func ShortDeadlines(stall, slack, silence time.Duration) {
	stallTime, stepSlack, silenceTime, agentSilence = stall, slack, silence, 3*silence
}

// Backdate has it be later for the agents of a host whose exit nobody saw.
func Backdate(h *Hosts, name string, by time.Duration) {
	r := h.remote(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.lost {
		r.lost[i].until = r.lost[i].until.Add(-by)
	}
}
