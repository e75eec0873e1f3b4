package deploy

import "time"

// DaemonReport is what a running daemon says of itself.
type DaemonReport struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	User    string    `json:"user"`
	Started time.Time `json:"started"`
	Config  string    `json:"config"` // path of the file in force
	Digest  string    `json:"digest"` // of the text in force
	Listen  string    `json:"listen"` // the address that is served
}

// AgentReport is what became of opening an agent of one kind, and what it says
// of itself and of the paths that its jobs write there. Over SSH all jobs have
// one user, so a host has one report.
type AgentReport struct {
	Host    string    `json:"host"` // of hosts, or [Local]: this machine
	Kind    AgentKind `json:"kind"`
	Socket  string    `json:"socket"` // empty: a child process of the daemon
	Error   string    `json:"error"`  // one sentence; what follows is empty then
	Version string    `json:"version"`
	User    string    `json:"user"`
	UID     int       `json:"uid"`
	Home    string    `json:"home"`
	ClockMS int64     `json:"clock_ms"` // by how much its machine's clock is ahead of the daemon's, in ms; negative: behind
	Paths   []Room    `json:"paths"`
	HostKey string    `json:"host_key"` // "ssh-ed25519 AAAA…" that the host showed, where Error is that it is not the one wanted; else empty
}

// Local says whether the agent is one of this machine.
func (r *AgentReport) Local() bool { return r.Host == "" || r.Host == Local }

// Room is what there is for another release at a path.
type Room struct {
	Path   string `json:"path"`
	Error  string `json:"error"`  // why it cannot be written, and what to do; empty = it can
	Bytes  int64  `json:"bytes"`  // free for this user
	Inodes int64  `json:"inodes"` // free; -1: the file system does not count them
}
