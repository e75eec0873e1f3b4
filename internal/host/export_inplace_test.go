package host

import "syscall"

// KillAgent sends the agent a signal.
func (c *Conn) KillAgent(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) }
