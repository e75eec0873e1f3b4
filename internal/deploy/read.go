package deploy

// RunFilter narrows a list of runs, newest first.
type RunFilter struct {
	Pipeline string
	State    State
	Before   int64 // only runs with a smaller number; 0 = from the newest
	Limit    int   // 1 to 1,000
}

// DeliveryFilter narrows a list of deliveries, newest first.
type DeliveryFilter struct {
	Hook   string
	Before int64
	Limit  int
}

// LogFilter narrows a run's log.
type LogFilter struct {
	Job, Step string
	Host      string
	After     int64 // only chunks with a greater id
	Tail      int   // only the last chunks, as many as hold so many lines; 0 = all
}

// LogChunk is a piece of a step's output as it was written down.
type LogChunk struct {
	ID       int64
	At       StepAt
	StepName string
	Lines    []LogLine
}
