package deploy

// Notice is what expressions of a notification see besides the run's words.
type Notice struct {
	Run      int64
	Pipeline string
	State    State
	Change   Change
	Cause    string
	Error    string // of the run, or of the first of its jobs that has one
}
