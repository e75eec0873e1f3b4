package host

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"deployhook/internal/agent/wire"
	"deployhook/internal/deploy"
)

// A step may have taken its agent over: what an agent says is matched against
// the forms that it can have, and what people read of it is one line.
const (
	textMost    = 4 << 10 // bytes of a sentence
	currentMost = 4 << 10 // bytes of what current points to
	linesMost   = 1000    // lines of a journal
)

// line makes a text one line without control characters, of at most so many bytes.
func line(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	return deploy.Cut(s, most)
}

// found checks what an agent says of a release path.
func found(f wire.Found, err error) (*deploy.Found, error) {
	switch {
	case err != nil:
		return nil, err
	case len(f.Lines) > linesMost:
		return nil, fmt.Errorf("the agent tells of %d changes of releases; %d are the most", len(f.Lines), linesMost)
	case len(f.Current) > currentMost:
		return nil, errors.New("the agent names a current release that is none")
	}
	for i := range f.Lines {
		if !f.Lines[i].Valid() {
			return nil, errors.New("the agent tells of a release that is none")
		}
	}
	return &deploy.Found{Intent: f.Intent, Foreign: line(f.Foreign, textMost), Current: f.Current, Lines: f.Lines}, nil
}

// releases checks names of releases.
func releases(ids []string) error {
	if len(ids) > linesMost {
		return fmt.Errorf("the agent names %d releases", len(ids))
	}
	for _, id := range ids {
		if !deploy.ValidReleaseName(id) {
			return errors.New("the agent names a release that is none")
		}
	}
	return nil
}

var signalForm = regexp.MustCompile(`^SIG[A-Z0-9+]{1,16}$`)

// result checks how an agent says that a step ended.
func result(w wire.Result) (StepResult, error) {
	if w.ExitCode != nil && (*w.ExitCode < 0 || *w.ExitCode > 255) || w.Signal != "" && !signalForm.MatchString(w.Signal) {
		return StepResult{}, lie("its result of the step is not one")
	}
	if len(w.LeftOver) > wire.LeftOverMost {
		w.LeftOver = w.LeftOver[:wire.LeftOverMost]
	}
	for i, name := range w.LeftOver {
		w.LeftOver[i] = line(name, 100)
	}
	w.Error, w.OutputError = line(w.Error, textMost), line(w.OutputError, textMost)
	return StepResult(w), nil
}
