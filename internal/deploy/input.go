package deploy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// InputType is what the value of an input must be.
type InputType string

// The types of inputs.
const (
	StringInput  InputType = "string"
	BooleanInput InputType = "boolean" // true or false
	NumberInput  InputType = "number"
	ChoiceInput  InputType = "choice" // one of the options
)

// InputTypes are all types.
var InputTypes = []InputType{StringInput, BooleanInput, NumberInput, ChoiceInput}

// inputBytes bounds the value of an input: it becomes a variable of steps.
const inputBytes = 64 << 10

// Input is what a start by hand may be given, or must be.
type Input struct {
	Name        string
	Description string
	Type        InputType
	Required    bool
	Default     *string // nil = none
	Options     []string
}

// Check says in one sentence, without the input's name before it, what is
// wrong with a value; nil = nothing is.
func (in *Input) Check(value string) error {
	switch {
	case len(value) > inputBytes:
		return fmt.Errorf("is over %d KiB", inputBytes>>10)
	case strings.IndexByte(value, 0) >= 0:
		return errors.New("has a NUL byte, which a variable cannot hold")
	case in.Type == BooleanInput && value != "true" && value != "false":
		return fmt.Errorf("is true or false, not %q", clip(value))
	case in.Type == NumberInput && typed(in.Type, value) == nil:
		return fmt.Errorf("is a number, not %q", clip(value))
	case in.Type == ChoiceInput && !slices.Contains(in.Options, value):
		return fmt.Errorf("is one of %s, not %q", strings.Join(in.Options, ", "), clip(value))
	}
	return nil
}

// typed gives a value as expressions have it; nil when it is not of the type.
func typed(t InputType, value string) any {
	switch t {
	case BooleanInput:
		return value == "true"
	case NumberInput:
		if i, err := strconv.Atoi(value); err == nil {
			return i
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || strings.ContainsAny(value, "_xX") {
			return nil
		}
		return f
	}
	return value
}

// CheckInputs gives the inputs of a start by hand, with the defaults of those
// that were not given. [ErrMisuse]: one is not declared, is missing, or is not
// of its type.
func CheckInputs(p *Pipeline, given map[string]string) (map[string]string, error) {
	var names []string
	for _, in := range p.On.Inputs {
		names = append(names, in.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch {
		case len(names) == 0:
			return nil, fmt.Errorf("%w: %s declares no inputs", ErrMisuse, p.Name)
		case !slices.Contains(names, name):
			return nil, fmt.Errorf("%w: %s declares no input %q: it has %s", ErrMisuse, p.Name, clip(name), strings.Join(names, ", "))
		}
	}
	inputs := map[string]string{}
	for i := range p.On.Inputs {
		in := &p.On.Inputs[i]
		value, ok := given[in.Name]
		switch {
		case ok:
			if err := in.Check(value); err != nil {
				return nil, fmt.Errorf("%w: input %s %w", ErrMisuse, in.Name, err)
			}
			inputs[in.Name] = value
		case in.Default != nil:
			inputs[in.Name] = *in.Default
		case in.Required:
			return nil, fmt.Errorf("%w: input %s of %s is missing", ErrMisuse, in.Name, p.Name)
		}
	}
	return inputs, nil
}

// TypedInputs are the inputs of a run as expressions have them: numbers and
// booleans are such, where they are declared so.
func TypedInputs(p *Pipeline, inputs map[string]string) map[string]any {
	all := map[string]any{}
	for name, value := range inputs {
		all[name] = value
	}
	for _, in := range p.On.Inputs {
		value, ok := inputs[in.Name]
		if !ok {
			continue
		}
		if v := typed(in.Type, value); v != nil {
			all[in.Name] = v
		}
	}
	return all
}
