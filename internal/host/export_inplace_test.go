package host

// KillAgent ends the agent as the machine's lack of memory would.
func (c *Conn) KillAgent() { c.process.kill() }
