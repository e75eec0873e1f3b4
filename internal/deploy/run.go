package deploy

import (
	"strconv"
	"strings"
	"time"
)

// NewRun is a run as [Plan], a command or a retry asks for it; the store gives
// it its number.
type NewRun struct {
	Pipeline   string
	Config     string // digest of the config that it was accepted under
	Event      Kind
	Why        string // what brought it about, where no delivery says so
	Hook       string
	Repository string
	Ref        string
	Before     string
	Commit     string // empty = resolved when it starts
	Actor      string
	Message    string // at most 16 KiB
	Inputs     map[string]string
	Queue      QueuePolicy
	Deferred   bool   // paths or if need a diff: decided when it starts
	Forced     bool   // the ref was forced or made anew: may go backwards while the remote still points there
	Force      bool   // asked for with --force: may go backwards
	RetryOf    int64  // 0 = none
	KeepOrder  bool   // with RetryOf: stands in its lane where that one stood
	Target     string // of a rollback: the release to go to
	Pops       bool   // of a rollback: takes the top off the stack; false with --to
	Once       *Once  // of a request with an Idempotency-Key: the run that it made before counts; nil = none
	Jobs       []NewJob
}

// RunURL is where people find a run: server.url and its number; empty without
// server.url.
func RunURL(server string, run int64) string {
	if server == "" {
		return ""
	}
	return strings.TrimSuffix(server, "/") + "/runs/" + strconv.FormatInt(run, 10)
}

// NewJob is a job of a [NewRun].
type NewJob struct {
	Name    string
	Needs   []string
	Hosts   []string
	Deploys bool
	Path    string // of its release; empty for a test job
	Group   string // concurrency group; empty = none
	Ready   bool   // needs are done and its if is true; at first: it has neither
}

// Run is one execution of a pipeline for one commit.
type Run struct {
	ID         int64
	NewRun     // Jobs is empty here: see [Run.Jobs]
	State      State
	Cause      string
	Error      string
	Delivery   int64 // 0 = none
	Order      int64 // place in its lane: greater is newer
	WaitingFor string
	Created    time.Time
	Started    time.Time // zero = not yet
	Ended      time.Time
	Jobs       []RunJob
}

// RunJob is a job of a run.
type RunJob struct {
	NewJob
	State      State
	Begun      bool // past the claim: its first step may have run
	Cause      string
	Error      string
	Attempt    int    // 0 = never claimed; counts claims
	Release    string // the release it makes, once chosen
	WaitingFor string // one sentence while waiting
	Started    time.Time
	Ended      time.Time
	HostRuns   []RunHost
	Outputs    map[string]string // that its steps wrote for later jobs; nil in lists of runs
}

// RunHost is a job on one of its hosts.
type RunHost struct {
	HostState
	Steps []RunStep // of the last attempt
}

// HostState is how a job stands on one of its hosts. Of a job that failed,
// hosts where nothing went wrong are canceled, or skipped where nothing was
// done; those are succeeded where a release is live, or a test came to its end.
type HostState struct {
	Name  string
	State State
	Phase HostPhase
	Error string // what went wrong on this host itself
}

// HostPhase is how far a deploy came on a host; empty: nothing was done there,
// or the job deploys nothing.
type HostPhase string

// Phases of a deploy on a host.
const (
	PhasePreparing HostPhase = "preparing" // there is a release, which is not whole
	PhasePrepared  HostPhase = "prepared"  // it is whole, and not switched to
	PhaseSwitching HostPhase = "switching" // the switch was begun, and nobody knows whether it was made
	PhaseSwitched  HostPhase = "switched"  // current points to it, or in place the files are its
	PhaseLive      HostPhase = "live"      // and it has restarted
	PhasePutBack   HostPhase = "put_back"  // current points to the one before again
)

// RunStep is a step of a job on one host.
type RunStep struct {
	Index    int // 0-based, in the order they ran; restart comes after the others
	Name     string
	State    State
	ExitCode *int   // nil when it did not end by itself
	Signal   string // "SIGKILL", when one ended it
	Error    string
	Tries    int
	Started  time.Time
	Ended    time.Time
	Outputs  map[string]string // that it wrote, to be saved; nil where a step is read: see [RunJob]
}

// StepAt says which step of which attempt is meant.
type StepAt struct {
	Run     int64
	Job     string
	Attempt int
	Host    string
	Index   int
}

// LogLine is one line of a step's output, redacted.
type LogLine struct {
	Time   time.Time
	Stream uint8  // 1 stdout, 2 stderr, 0 deployhook itself
	Text   []byte // without its newline
	Open   bool   // the line had no newline yet: the next one continues it
}

// Move is one change of a job's state, made by compare and set: it holds only
// while the job is still in From at Attempt.
type Move struct {
	Run     int64
	Job     string
	Attempt int // the attempt that is meant; a claim (To Running) makes it one more
	From    State
	To      State
	Ready   bool   // true: the job is ready from now on (false changes nothing)
	Begin   bool   // true: the job has begun; such a move has From and To Running
	Release string // not empty: the release that it makes
	Cause   string // empty with From = To: stays as it is
	Error   string
	Waiting string   // new WaitingFor; empty = waits for nothing
	Locks   []string // To Running: taken in the same transaction, or nothing happens
	// BlockedAt is for To Lost: these of its locks stay, each with the
	// sentence that says what is there and how to go on.
	BlockedAt map[string]string
	Hosts     []HostState // how the job ended on each of its hosts; none: they stand as the job does
	At        time.Time
}

// LockHolder says who holds a group or a path.
type LockHolder struct {
	Run     int64
	Job     string
	Blocked string // not empty: an unfinished switch; the sentence with the way on
}

// Hold keeps a pipeline from going on.
type Hold struct {
	Pipeline string
	Kind     HoldKind
	By       string
	Reason   string
	Commit   string // HoldRollback: the commit that was rolled back from
	Target   string // HoldRollback: the commit that was rolled back to
	Run      int64  // HoldRollback: the rollback
	Order    int64  // HoldRollback: pushes accepted after this one may end it
	Since    time.Time
}

// HoldKind is what a hold keeps back.
type HoldKind string

// The kinds of holds.
const (
	HoldAll      HoldKind = "hold"     // runs wait: deployhook hold
	HoldDeploys  HoldKind = "lock"     // test jobs run, release jobs wait: deployhook lock
	HoldRollback HoldKind = "rollback" // a commit and its ancestors are not deployed again
)

// Live is what a path on a host was last seen to run.
type Live struct {
	Host, Path string
	Release    string
	Repository string
	Commit     string
	Run        int64
	Seen       time.Time
}

// Active is one snapshot of everything that is not terminal, for [Schedule].
type Active struct {
	Runs  []Run // with their jobs, without host runs; in no special order
	Locks map[string]LockHolder
	Holds []Hold
	Away  map[string]string // host -> why no job can start there now
}

// GroupLock names the lock of a concurrency group.
func GroupLock(group string) string { return "group " + group }

// PathLock names the lock of a path on a host.
func PathLock(host, path string) string { return "path " + host + ":" + path }
