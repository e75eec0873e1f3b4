package deploy

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Bounds of what a plan keeps of an outsider's words, in bytes.
const (
	messageBytes = 16 << 10 // of a commit message
	answerBytes  = 500      // of the answer's sentence
	nameBytes    = 80       // of a ref or repository within a sentence
)

// Decision is what an event starts, and why.
type Decision struct {
	Runs    []NewRun
	Why     []Verdict // one for each pipeline that was looked at
	Message string    // one sentence for the answer
}

// Plan decides what an event starts. It is pure: the same config and event
// give the same decision.
func Plan(cfg *Config, ev *Event) Decision {
	var d Decision
	if why := nothing(ev); why != "" {
		d.Message = why
		return d
	}
	others := true // every pipeline is of another repository
	for i := range cfg.Pipelines {
		p := &cfg.Pipelines[i]
		if !listens(p, ev) {
			continue
		}
		if ev.ofForge() && p.Repository != ev.Repository {
			d.Why = append(d.Why, Verdict{p.Name, false, fmt.Sprintf("its repository is %s", orNone(p.Repository))})
			continue
		}
		others = false
		run, deferred, why := wants(p, ev)
		why = shorten(why, answerBytes)
		d.Why = append(d.Why, Verdict{p.Name, run, why})
		if run {
			r := NewRunOf(cfg, p, ev)
			r.Deferred = deferred
			if deferred {
				for k := range r.Jobs {
					r.Jobs[k].Ready = false
				}
			}
			d.Runs = append(d.Runs, r)
		}
	}
	d.Message = answer(ev, &d, others)
	return d
}

// listens says whether a pipeline has anything to do with the event's hook.
func listens(p *Pipeline, ev *Event) bool {
	through := p.Hook == "" || p.Hook == ev.Hook
	switch ev.Kind {
	case Push:
		return p.On.Push != nil && through
	case ReleaseEvent:
		return p.On.Release && through
	case Workflow:
		return p.On.Workflow != nil && through
	case Payload:
		return p.On.Hook != nil && p.On.Hook.Name == ev.Hook
	case Scheduled:
		return p.Name == ev.Pipeline && p.schedule(ev.Schedule) != nil
	case Manual:
		return p.Name == ev.Pipeline
	case Chained:
		return p.On.Pipeline != "" && p.On.Pipeline == ev.Pipeline
	}
	return false
}

// ofForge says whether a forge sent it, about one of its repositories.
func (e *Event) ofForge() bool {
	return e.Kind == Push || e.Kind == ReleaseEvent || e.Kind == Workflow
}

// nothing gives the sentence for events that never start anything.
func nothing(ev *Event) string {
	ref := clip(ev.RefName())
	switch {
	case ev.Kind == Payload || ev.Kind == Scheduled || ev.Kind == Manual || ev.Kind == Chained:
		return ""
	case ev.Name == "ping":
		return "pong: the hook works, pushes will be answered here"
	case ofPullRequest(ev.Name):
		return noPullRequests
	case ev.Kind == ReleaseEvent:
		return noRelease(ev)
	case ev.Kind == Workflow:
		return noWorkflow(ev)
	case ev.Kind != Push:
		return fmt.Sprintf("event %s: no pipeline wants it", clip(ev.Name))
	case ev.Ref == "":
		return "this push names no ref: nothing to deploy"
	case ev.Deleted || ev.After == ZeroCommit:
		return fmt.Sprintf("%s was deleted: nothing to deploy", ref)
	case ev.After == "" && ev.Commit == "":
		return fmt.Sprintf("this push to %s names no commit: nothing to deploy", ref)
	case ev.Before != "" && ev.Before == ev.After:
		return fmt.Sprintf("%s did not move: nothing to deploy", ref)
	}
	if word := skipWord(ev.Message); word != "" {
		return fmt.Sprintf("the commit message says %s: nothing starts", word)
	}
	return ""
}

const noPullRequests = "pull requests start nothing: code of strangers does not run beside production"

// ofPullRequest says whether an event is about a pull or merge request, in any
// forge's spelling.
func ofPullRequest(name string) bool {
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(name))
	return strings.Contains(letters, "pullrequest") || strings.Contains(letters, "mergerequest")
}

// noRelease gives the sentence for a release that starts nothing.
func noRelease(ev *Event) string {
	switch {
	case ev.Draft:
		return "this release is a draft: nothing starts before it is published"
	case ev.Action != "published":
		return fmt.Sprintf("this release was %s: only one that is published starts something", clip(orNone(ev.Action)))
	case ev.Tag == "":
		return "this release names no tag: nothing to deploy"
	}
	return ""
}

// noWorkflow gives the sentence for a workflow run that starts nothing. What
// it deploys is its commit, so it must be one of the repository itself.
func noWorkflow(ev *Event) string {
	what := "workflow " + clip(orNone(ev.Workflow))
	switch {
	case ev.Action != "completed":
		return fmt.Sprintf("%s is %s: it starts something when it is completed", what, clip(orNone(ev.Action)))
	case ofPullRequest(ev.Trigger):
		return fmt.Sprintf("%s ran for a pull request: %s", what, noPullRequests)
	case ev.Fork:
		return fmt.Sprintf("%s ran for a commit of another repository, a fork: code of strangers does not run beside production", what)
	case ev.Conclusion != "success":
		return fmt.Sprintf("%s ended with %s: only success starts something", what, clip(orNone(ev.Conclusion)))
	case ev.Commit == "" || ev.Ref == "":
		return fmt.Sprintf("%s names no commit of a branch or tag: nothing to deploy", what)
	}
	return ""
}

var skipTrailer = regexp.MustCompile(`(?m)^skip-checks:\s*true\s*$`)

// skipWord finds what tells CI to leave a commit alone.
//
// Source: GitHub docs, "Skipping workflow runs".
func skipWord(message string) string {
	for _, w := range []string{"[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"} {
		if strings.Contains(message, w) {
			return w
		}
	}
	if _, trailers, ok := strings.Cut(strings.ReplaceAll(message, "\r\n", "\n"), "\n\n"); ok && skipTrailer.MatchString(trailers) {
		return "skip-checks: true"
	}
	return ""
}

// wants says whether a pipeline of the event's repository is started by it,
// whether that needs the diff, and why.
func wants(p *Pipeline, ev *Event) (run, deferred bool, why string) {
	switch ev.Kind {
	case Payload:
		if ok, why := holds(p.On.Hook.If, ev, nil); !ok {
			return false, false, why
		}
		return whole(p, ev, fmt.Sprintf("run starts for a payload of hook %s", ev.Hook))
	case ReleaseEvent:
		return whole(p, ev, fmt.Sprintf("run starts for the release of %s", clip(ev.RefName())))
	case Workflow:
		if ok, why := wantsWorkflow(p.On.Workflow, ev); !ok {
			return false, false, why
		}
		return whole(p, ev, fmt.Sprintf("run starts for %s on %s, which workflow %s found good", clip7(ev.Commit), clip(ev.RefName()), clip(ev.Workflow)))
	case Manual:
		return true, false, "run starts by hand" // asked for by name: no if counts
	case Scheduled, Chained:
		return whole(p, ev, "run starts: "+ev.Why)
	}
	t := p.On.Push
	if ok, why := wantsRef(t, ev); !ok {
		return false, false, why
	}
	if ev.Commit == "" {
		return true, true, fmt.Sprintf("run starts for %s on %s, once its commit is known", clip7(ev.After), clip(ev.RefName()))
	}
	paths := (len(t.Paths) > 0 || len(t.PathsIgnore) > 0) && ev.Tag == ""
	asks := p.If != nil && p.If.UsesChanged()
	if ev.PathsCut && (paths || asks) {
		return true, true, fmt.Sprintf("run starts for %s on %s; the payload does not list every path, so the diff decides", clip7(ev.Commit), clip(ev.RefName()))
	}
	if ok, why := Deferred(p, ev, ev.Paths); !ok {
		return false, false, why
	}
	return true, false, fmt.Sprintf("run starts for %s on %s", clip7(ev.Commit), clip(ev.RefName()))
}

// whole is a decision that the pipeline's if makes, now or, where it asks for
// the changed paths of a commit, once the diff is known.
func whole(p *Pipeline, ev *Event, why string) (run, deferred bool, _ string) {
	if p.If != nil && p.If.UsesChanged() && p.Repository == ev.Repository && ev.Ref != "" {
		return true, true, why + "; its if needs the diff"
	}
	if ok, not := holds(p.If, ev, nil); !ok {
		return false, false, not
	}
	return true, false, why
}

// wantsWorkflow applies the filters of on.workflow_run.
func wantsWorkflow(t *WorkflowTrigger, ev *Event) (bool, string) {
	if len(t.Workflows) > 0 && !MatchList(t.Workflows, ev.Workflow) {
		return false, "wants workflow " + strings.Join(t.Workflows, ", ")
	}
	if len(t.Branches) == 0 {
		return true, ""
	}
	return wantsName(ev.Branch, "branch", t.Branches, nil, true, false)
}

// Deferred is the half of a decision that needs the changed paths: path
// filters and the pipeline's if.
func Deferred(p *Pipeline, ev *Event, changed []string) (run bool, why string) {
	if p.On.Push != nil && ev.Kind == Push && ev.Tag == "" && !PathsMatch(p.On.Push, changed) {
		return false, "no changed path is one that it wants"
	}
	return holds(p.If, ev, changed)
}

// holds evaluates an if of a pipeline; nil is true.
func holds(e *Expr, ev *Event, changed []string) (bool, string) {
	if e == nil {
		return true, ""
	}
	ok, why := e.Eval(&Scope{Event: ev, SHA: ev.Commit, Changed: func(glob string) bool {
		for _, path := range changed {
			if MatchList([]string{glob}, path) {
				return true
			}
		}
		return false
	}})
	switch {
	case ok:
		return true, ""
	case why != "":
		return false, "its if is false: " + why
	}
	if missing := e.missing(ev); missing != "" {
		return false, fmt.Sprintf("its if is false: %s; there is no %s", clip(e.Source()), missing)
	}
	return false, "its if is false: " + clip(e.Source())
}

// wantsRef applies the filters of branches and tags.
func wantsRef(t *PushTrigger, ev *Event) (bool, string) {
	branches := len(t.Branches)+len(t.BranchesIgnore) > 0
	tags := len(t.Tags)+len(t.TagsIgnore) > 0
	if ev.Tag != "" {
		return wantsName(ev.Tag, "tag", t.Tags, t.TagsIgnore, tags, branches)
	}
	return wantsName(ev.Branch, "branch", t.Branches, t.BranchesIgnore, branches, tags)
}

func wantsName(name, kind string, want, ignore []string, filtered, otherFiltered bool) (bool, string) {
	switch {
	case name == "":
		return false, "it wants branches and tags only"
	case !filtered && otherFiltered:
		return false, fmt.Sprintf("wants no %s", plural(kind))
	case len(want) > 0 && !MatchList(want, name):
		return false, "wants " + strings.Join(want, ", ")
	case len(ignore) > 0 && MatchList(ignore, name):
		return false, fmt.Sprintf("ignores %s", strings.Join(ignore, ", "))
	}
	return true, ""
}

func plural(kind string) string {
	if kind == "branch" {
		return "branches"
	}
	return kind + "s"
}

// PathsMatch says whether a push with these changed paths is wanted: with
// paths, one of them must match; with paths_ignore, one of them must not.
func PathsMatch(t *PushTrigger, paths []string) bool {
	if len(t.Paths) == 0 && len(t.PathsIgnore) == 0 {
		return true
	}
	for _, p := range paths {
		if len(t.Paths) > 0 && !MatchList(t.Paths, p) || len(t.PathsIgnore) > 0 && MatchList(t.PathsIgnore, p) {
			continue
		}
		return true
	}
	return false
}

// NewRunOf makes the run that a pipeline and an event come to.
func NewRunOf(cfg *Config, p *Pipeline, ev *Event) NewRun {
	r := NewRun{
		Pipeline: p.Name, Config: cfg.Digest, Event: ev.Kind, Hook: ev.Hook, Repository: p.Repository,
		Actor: ev.Actor, Message: Cut(ev.Message, messageBytes), Inputs: ev.Inputs, Queue: p.Queue, Why: ev.Why,
	}
	if p.Repository != "" && (ev.Kind != Chained || p.Repository == ev.Repository) {
		r.Ref, r.Before, r.Commit = ev.Ref, ev.Before, cmp.Or(ev.Commit, ev.After)
		r.Forced = goesBack(ev)
	}
	if ev.Kind == Chained && p.Repository != ev.Repository {
		r.Message = "" // it is of another commit
	}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		n := NewJob{
			Name: j.Name, Needs: j.Needs, Hosts: j.Hosts, Deploys: j.Deploys(), Group: j.Group,
			Ready: len(j.Needs) == 0 && j.If == nil,
		}
		if j.Deploys() {
			n.Path = j.Release.Path
		}
		r.Jobs = append(r.Jobs, n)
	}
	return r
}

// answer is the sentence that the sender reads.
func answer(ev *Event, d *Decision, others bool) string {
	what := ev.words()
	var started, not []string
	for _, v := range d.Why {
		if v.Run {
			started = append(started, v.Pipeline+": "+v.Why)
		} else if !ev.ofForge() || !strings.HasPrefix(v.Why, "its repository is ") {
			not = append(not, v.Pipeline+" "+v.Why)
		}
	}
	var s string
	switch {
	case len(started) > 0:
		s = strings.Join(started, "; ")
	case len(d.Why) == 0 && ev.Kind == Payload:
		s = fmt.Sprintf("no pipeline has on.hook with the name %s", ev.Hook)
	case len(d.Why) == 0 && ev.Kind == Push:
		s = fmt.Sprintf("no pipeline wants pushes that come through hook %s", ev.Hook)
	case len(d.Why) == 0 && ev.Kind == ReleaseEvent:
		s = fmt.Sprintf("no pipeline wants releases that come through hook %s", ev.Hook)
	case len(d.Why) == 0 && ev.Kind == Workflow:
		s = fmt.Sprintf("no pipeline wants workflow runs that come through hook %s", ev.Hook)
	case len(d.Why) == 0:
		s = fmt.Sprintf("no pipeline wants %s of %s", what, ev.Pipeline)
	case others:
		s = fmt.Sprintf("no pipeline has repository %s", clip(orNone(ev.Repository)))
	default:
		s = fmt.Sprintf("no pipeline wants %s: %s", what, strings.Join(not, "; "))
	}
	return shorten(s, answerBytes)
}

// goesBack says whether an event may be about a ref that was set back on
// purpose. A workflow run does not say what its ref was before.
func goesBack(ev *Event) bool {
	switch ev.Kind {
	case Push, Workflow:
		return ev.Forced || ev.Created || !known(ev.Before)
	case Chained:
		return ev.Forced
	}
	return false
}

// words names an event for a sentence.
func (e *Event) words() string {
	switch e.Kind {
	case Push:
		return clip(e.RefName())
	case ReleaseEvent:
		return "the release of " + clip(e.RefName())
	case Workflow:
		return fmt.Sprintf("workflow %s on %s", clip(e.Workflow), clip(e.RefName()))
	case Payload:
		return "payload"
	case Chained:
		return "the success"
	}
	return "a " + string(e.Kind)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// clip makes an outsider's word fit into a sentence: short, on one line, and
// without control characters.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	return shorten(s, nameBytes)
}

// shorten cuts a sentence, and shows that it did.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return Cut(s, n) + "…"
}

func clip7(commit string) string { return clip(commit[:min(7, len(commit))]) }

// Cut shortens s to at most n bytes, on the border of a character.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
