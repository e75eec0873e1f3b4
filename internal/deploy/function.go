package deploy

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// joinedBytes bounds a string that an expression puts together: a few + could
// make gigabytes of one long message.
const joinedBytes = 1 << 20

// functions stand for the library's of the same names, which know neither null
// nor the path that was wrong. Null gives null. left is the argument's path.
var functions = map[string]func(v any, left string) (any, error){
	"len": func(v any, left string) (any, error) {
		switch v := v.(type) {
		case nil:
			return nil, nil
		case string:
			return utf8.RuneCountInString(v), nil
		case map[string]any:
			return len(v), nil
		}
		if list, ok := listOf(v); ok {
			return len(list), nil
		}
		return nil, badOperand("%s is %s: len takes a string, a list or an object", left, kindOf(v))
	},
	"lower":  ofString("lower", strings.ToLower),
	"upper":  ofString("upper", strings.ToUpper),
	"trim":   ofString("trim", strings.TrimSpace),
	"string": asString,
	"int": func(v any, left string) (any, error) {
		f, err := asNumber("int", v, left)
		switch f := f.(type) {
		case float64:
			if f != f || math.Abs(f) >= 1<<63 {
				return nil, badOperand("%s is over 64 bits: int takes less", left)
			}
			return int(f), err
		}
		return f, err
	},
	"float": func(v any, left string) (any, error) {
		f, err := asNumber("float", v, left)
		if i, ok := f.(int); ok {
			return float64(i), err
		}
		return f, err
	},
}

func ofString(name string, fn func(string) string) func(v any, left string) (any, error) {
	return func(v any, left string) (any, error) {
		switch v := v.(type) {
		case nil:
			return nil, nil
		case string:
			return fn(v), nil
		}
		return nil, badOperand("%s is %s: %s takes a string", left, kindOf(v), name)
	}
}

func asString(v any, left string) (any, error) {
	s, err := text(v, joinedBytes)
	if err != nil {
		return nil, badOperand("%s: %v", left, err)
	}
	return s, nil
}

// asNumber is an int, a float64 or nil.
func asNumber(name string, v any, left string) (any, error) {
	switch v := v.(type) {
	case nil, int, float64:
		return v, nil
	case string:
		if i, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
			return i, nil
		}
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
			return f, nil
		}
		return nil, badOperand("%s is no number: %s takes one", left, name)
	}
	return nil, badOperand("%s is %s: %s takes a number", left, kindOf(v), name)
}

// add joins two strings or adds two numbers.
func add(a, b any, left, right string) (any, error) {
	x, okX := a.(string)
	y, okY := b.(string)
	if okX && okY {
		if len(x)+len(y) > joinedBytes {
			return nil, badOperand("%s + %s is over %d MiB", left, right, joinedBytes>>20)
		}
		return x + y, nil
	}
	i, okI := a.(int)
	j, okJ := b.(int)
	if okI && okJ {
		return i + j, nil
	}
	f, okF := float(a)
	g, okG := float(b)
	if okF && okG {
		return f + g, nil
	}
	return nil, badOperand("%s is %s and %s is %s: + takes two numbers or two strings", left, kindOf(a), right, kindOf(b))
}

// text gives a value as ${{ }} writes it: null is empty, lists and objects are
// JSON. It has at most so many bytes.
func text(v any, most int) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return strconv.FormatInt(int64(v), 10), nil
		}
	}
	// Weighed first: a value may hold the same part many times over.
	if left := most; !weigh(v, &left) {
		return "", fmt.Errorf("it is over %d KiB", most>>10)
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// weigh takes the least that a value needs as JSON off left, and says whether
// it was enough.
func weigh(v any, left *int) bool {
	*left--
	switch v := v.(type) {
	case string:
		*left -= len(v)
	case []any:
		for _, m := range v {
			if !weigh(m, left) {
				return false
			}
		}
	case map[string]any:
		for k, m := range v {
			*left -= len(k)
			if !weigh(m, left) {
				return false
			}
		}
	}
	return *left >= 0
}
