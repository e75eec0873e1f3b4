package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Bounds of what the steps of a job write for later jobs, of all hosts together.
const (
	OutputsMost    = 64       // names
	OutputsBytes   = 64 << 10 // bytes of names and values
	outputNameMost = 128      // bytes
)

// OutputVariable has the path of the file that a step writes its outputs to.
const OutputVariable = "DEPLOYHOOK_OUTPUT"

// ParseOutputs reads what a step wrote to its file of outputs: lines KEY=value,
// and blocks of lines that KEY<<WORD begins and a line WORD ends. Empty lines
// between them mean nothing; of a name that comes twice the last counts. The
// error is one sentence, with the line and nothing of what stands in it: that
// may be a secret.
//
// Source: GitHub docs, "Workflow commands", sections "Setting an output
// parameter" and "Multiline strings".
func ParseOutputs(text []byte) (map[string]string, error) {
	switch {
	case len(text) > OutputsBytes:
		return nil, outputsTooLarge()
	case !utf8.Valid(text):
		return nil, errors.New("$" + OutputVariable + " is not UTF-8")
	case bytes.IndexByte(text, 0) >= 0:
		return nil, errors.New("$" + OutputVariable + " has a NUL byte, which a variable cannot hold")
	}
	outputs := map[string]string{}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	for i := 0; i < len(lines); i++ {
		line, at := lines[i], i+1
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		equals, block := bytes.IndexByte(line, '='), bytes.Index(line, []byte("<<"))
		name, value := "", ""
		switch {
		case block >= 0 && (equals < 0 || block < equals):
			end := i + 1
			word := line[block+2:]
			for end < len(lines) && !bytes.Equal(lines[end], word) {
				end++
			}
			if len(word) == 0 {
				return nil, badOutput(at, "begins a block and has no word behind <<")
			}
			if end == len(lines) {
				return nil, badOutput(at, "begins a block that no line ends: the word behind << stands alone on its last line")
			}
			name, value = string(line[:block]), string(bytes.Join(lines[i+1:end], []byte("\n")))
			i = end
		case equals >= 0:
			name, value = string(line[:equals]), string(line[equals+1:])
		default:
			return nil, badOutput(at, "is not KEY=value")
		}
		if !validOutput(name) {
			return nil, badOutput(at, fmt.Sprintf("is not KEY=value: a name begins with a letter or _ and has at most %d letters, digits, _ and -", outputNameMost))
		}
		outputs[name] = value
	}
	if len(outputs) > OutputsMost {
		return nil, tooManyOutputs()
	}
	return outputs, nil
}

func badOutput(line int, what string) error {
	return fmt.Errorf("line %d of $%s %s", line, OutputVariable, what)
}

func outputsTooLarge() error {
	return fmt.Errorf("$%s: the outputs of a job are over %d KiB: keep what is large in a file, and its place in an output", OutputVariable, OutputsBytes>>10)
}

func tooManyOutputs() error {
	return fmt.Errorf("$%s: the job has more than %d outputs", OutputVariable, OutputsMost)
}

func validOutput(name string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= outputNameMost
}

// OutputSizes is the room that the outputs of a job have taken, by name: of
// several hosts the largest counts.
type OutputSizes map[string]int

// Add takes the room for more outputs; the error says that there is none.
func (s OutputSizes) Add(outputs map[string]string) error {
	for name, value := range outputs {
		s[name] = max(s[name], len(name)+len(value))
	}
	total := 0
	for _, n := range s {
		total += n
	}
	switch {
	case len(s) > OutputsMost:
		return tooManyOutputs()
	case total > OutputsBytes:
		return outputsTooLarge()
	}
	return nil
}

// MergeOutputs gives the outputs of a job: of several hosts that wrote a name,
// the first of the job's list counts, whichever ended last.
func MergeOutputs(hosts []string, of map[string]map[string]string) map[string]string {
	var all map[string]string
	for _, h := range hosts {
		for name, value := range of[h] {
			if _, there := all[name]; there {
				continue
			}
			if all == nil {
				all = map[string]string{}
			}
			all[name] = value
		}
	}
	return all
}
