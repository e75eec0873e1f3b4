package receiver

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
)

// lazy decodes a payload, which was found to be JSON, when it is first asked
// for: few pipelines ask, and it costs more than all else that a delivery needs.
func lazy(payload []byte) func() any {
	return sync.OnceValue(func() any {
		var v any
		err := json.Unmarshal(payload, &v)
		// That one also fails on a number that is too large for it.
		if longNumbers(payload) {
			v, err = decodeExact(payload)
		}
		if err != nil {
			return nil
		}
		return v
	})
}

// decodeExact reads JSON, which must be valid, without losing a digit of its
// whole numbers: an int where one holds it, else a float64, and where neither
// holds it the text as it stands, a string.
func decodeExact(payload []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return exact(v), nil
}

// exact replaces the numbers of a value in place.
func exact(v any) any {
	switch v := v.(type) {
	case json.Number:
		return exactNumber(string(v))
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = exact(v[k])
		}
	}
	return v
}

func exactNumber(text string) any {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	f, err := strconv.ParseFloat(text, 64)
	// A whole number above 64 bits is an id, never a quantity.
	if err != nil || isDigits(text) {
		return text
	}
	return f
}

func isDigits(s string) bool { return strings.Trim(strings.TrimPrefix(s, "-"), "0123456789") == "" }

// floatDigits is how many characters of a number a float64 holds exactly,
// whatever they are.
const floatDigits = 15

// longNumbers says whether a number of JSON may be more than a float64 holds:
// it is long, or has an exponent.
func longNumbers(b []byte) bool {
	run := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			i, run = closing(b, i+1), 0
		case c >= '0' && c <= '9' || run > 0 && c == '.':
			if run++; run > floatDigits {
				return true
			}
		case run > 0 && (c == 'e' || c == 'E'):
			return true
		default:
			run = 0
		}
	}
	return false
}

// closing is where a string of JSON ends that begins at i: its second quote.
func closing(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		slashes := 0
		for slashes < n && b[i+n-1-slashes] == '\\' {
			slashes++
		}
		i += n
		if slashes%2 == 0 {
			return i
		}
		i++
	}
}
