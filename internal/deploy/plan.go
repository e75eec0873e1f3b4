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
		if ev.Kind == Push && p.Repository != ev.Repository {
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
	switch ev.Kind {
	case Push:
		return p.On.Push != nil && (p.Hook == "" || p.Hook == ev.Hook)
	case Payload:
		return p.On.Hook != nil && p.On.Hook.Name == ev.Hook
	}
	return false
}

// nothing gives the sentence for events that never start anything.
func nothing(ev *Event) string {
	ref := clip(ev.RefName())
	switch {
	case ev.Kind == Payload:
		return ""
	case ev.Name == "ping":
		return "pong: the hook works, pushes will be answered here"
	case strings.HasPrefix(ev.Name, "pull_request") || strings.HasPrefix(ev.Name, "merge_request"):
		return "pull requests start nothing: code of strangers does not run beside production"
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
	if ev.Kind == Payload {
		if ok, why := holds(p.On.Hook.If, ev, nil); !ok {
			return false, false, why
		}
		if ok, why := holds(p.If, ev, nil); !ok {
			return false, false, why
		}
		return true, false, fmt.Sprintf("run starts for a payload of hook %s", ev.Hook)
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
		Actor: ev.Actor, Message: Cut(ev.Message, messageBytes), Inputs: ev.Inputs, Queue: p.Queue,
	}
	if p.Repository != "" {
		r.Ref, r.Before, r.Commit = ev.Ref, ev.Before, cmp.Or(ev.Commit, ev.After)
		r.Forced = ev.Kind == Push && (ev.Forced || ev.Created || !known(ev.Before))
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
	what := "payload"
	if ev.Kind == Push {
		what = clip(ev.RefName())
	}
	var started, not []string
	for _, v := range d.Why {
		if v.Run {
			started = append(started, v.Pipeline+": "+v.Why)
		} else if ev.Kind != Push || !strings.HasPrefix(v.Why, "its repository is ") {
			not = append(not, v.Pipeline+" "+v.Why)
		}
	}
	var s string
	switch {
	case len(started) > 0:
		s = strings.Join(started, "; ")
	case len(d.Why) == 0 && ev.Kind == Payload:
		s = fmt.Sprintf("no pipeline has on.hook with the name %s", ev.Hook)
	case len(d.Why) == 0:
		s = fmt.Sprintf("no pipeline wants pushes that come through hook %s", ev.Hook)
	case others:
		s = fmt.Sprintf("no pipeline has repository %s", clip(orNone(ev.Repository)))
	default:
		s = fmt.Sprintf("no pipeline wants %s: %s", what, strings.Join(not, "; "))
	}
	return shorten(s, answerBytes)
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
