package receiver

// What the tests of the package look at besides its exported names.
var (
	CheckGitHub = checkGitHub
	PayloadOf   = payloadOf
	CheckToken  = checkToken
	Sender      = sender
)

// BodyTime is how long a body may take.
const BodyTime = bodyTime

// Held is how many bytes of bodies are in memory.
func Held(rc *Receiver) int64 { return rc.memory.held.Load() }
