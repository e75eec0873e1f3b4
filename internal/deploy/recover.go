package deploy

import (
	"fmt"
	"slices"
	"strings"
)

// Recovery is what a path needs before anything else may happen there.
type Recovery string

// The recoveries. What on_crash says comes after the first and the third.
const (
	RecoverNothing Recovery = "nothing" // no switch was begun: go on
	RecoverSuccess Recovery = "success" // the job's release is live: record it
	RecoverDrop    Recovery = "drop"    // the switch was announced and not made: drop the intent
	RecoverProve   Recovery = "prove"   // the link points to the new release: restart and check again
	RecoverUndo    Recovery = "undo"    // the release was being put back: go on with that
	RecoverBlocked Recovery = "blocked" // touch nothing: a person must look
)

// Recover reads a path's journal for a job of a run of this daemon, and gives
// what to do; for blocked, with the sentence that says why.
func Recover(f *Found, daemon string, run int64, job string) (Recovery, string) {
	if f.Foreign != "" {
		return RecoverBlocked, "the journal of the last switch cannot be read: " + f.Foreign
	}
	in := f.Intent
	if in == nil {
		for _, l := range f.Lines {
			if l.State == ReleaseLive && l.Run == run && l.Job == job && l.Daemon == daemon {
				return RecoverSuccess, ""
			}
		}
		return RecoverNothing, ""
	}
	switch {
	case in.Format != IntentFormat:
		return RecoverBlocked, fmt.Sprintf("the journal of the last switch has format %d, this deployhook writes %d", in.Format, IntentFormat)
	case in.Daemon != daemon:
		return RecoverBlocked, "another deployhook left an unfinished switch here"
	case !validName(in.To) || in.From != "" && !validName(in.From):
		return RecoverBlocked, "the journal of the last switch names releases that are none"
	case in.Run != run || in.Job != job:
		return RecoverBlocked, fmt.Sprintf("an unfinished switch of run %d job %s is here", in.Run, clip(in.Job))
	case in.Phase == Switching && f.Current == in.From:
		return RecoverDrop, ""
	case (in.Phase == Switching || in.Phase == Proving) && f.Current == in.To:
		return RecoverProve, ""
	case in.Phase == Undoing && (f.Current == in.From || f.Current == in.To):
		return RecoverUndo, ""
	}
	current := f.Current
	if current == "" {
		current = "nothing"
	}
	return RecoverBlocked, fmt.Sprintf("current points to %s, which is not what the switch of run %d left", clip(current), in.Run)
}

// RecoverAll gives what a job does on all of its hosts, from what each of their
// journals asks for. whole says of a host whether the job's release stands
// there, prepared or live, so that it can be switched to.
//
// The first host on which the release is recorded as live decides: by then it
// was restarted everywhere, so it is live on the others too. Before that, one
// host where it is put back, or cannot be switched to, puts it back everywhere.
// Where the switch was made on some hosts and can be made on the rest, it is.
func RecoverAll(each []Recovery, whole func(i int) bool) Recovery {
	for _, r := range []Recovery{RecoverBlocked, RecoverSuccess, RecoverUndo} {
		if slices.Contains(each, r) {
			return r
		}
	}
	if !slices.Contains(each, RecoverProve) {
		if slices.Contains(each, RecoverDrop) {
			return RecoverDrop
		}
		return RecoverNothing
	}
	for i, r := range each {
		if r != RecoverProve && !whole(i) {
			return RecoverUndo
		}
	}
	return RecoverProve
}

// RecoverInPlace is [Recover] for a directory whose files are changed in
// place. A deploy that was cut short is in nobody's way: whatever comes next
// goes over it. RecoverDrop is the job's own, which has to begin anew;
// RecoverProve one whose steps were done.
func RecoverInPlace(f *Found, daemon string, run int64, job string) (Recovery, string) {
	if f.Foreign != "" {
		return RecoverBlocked, "the journal of the last deploy cannot be read: " + f.Foreign
	}
	for _, l := range f.Lines {
		if l.State == ReleaseLive && l.Run == run && l.Job == job && l.Daemon == daemon {
			return RecoverSuccess, ""
		}
	}
	in := f.Intent
	switch {
	case in == nil:
		return RecoverNothing, ""
	case in.Format != IntentFormat:
		return RecoverBlocked, fmt.Sprintf("the journal of the last deploy has format %d, this deployhook writes %d", in.Format, IntentFormat)
	case in.Daemon != daemon:
		return RecoverBlocked, "another deployhook left an unfinished deploy here"
	case !validName(in.To) || in.From != "" && !validName(in.From):
		return RecoverBlocked, "the journal of the last deploy names releases that are none"
	case in.Run != run || in.Job != job:
		return RecoverNothing, ""
	case in.Phase == Proving && f.Current == in.To:
		return RecoverProve, ""
	}
	return RecoverDrop, ""
}

func validName(s string) bool {
	id, ok := strings.CutPrefix(s, "releases/")
	return ok && ValidReleaseName(id)
}
