package config

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Scalar writes a text so that YAML reads it back as it is: in one line, also
// within brackets, and without quotes where it needs none.
func Scalar(s string) string {
	if plainScalar(s) {
		return s
	}
	return strconv.Quote(s) // YAML reads all that Go escapes
}

// plainScalar says whether a text needs no quotes.
func plainScalar(s string) bool {
	if s == "" || strings.ContainsAny(s[:1], "-?:,[]{}#&*!|>'\"%@` 0123456789.+~=<") || strings.HasSuffix(s, " ") {
		return false
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		return false
	}
	odd := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	// Within brackets a colon alone makes a key of what is before it.
	return !strings.ContainsAny(strings.ReplaceAll(s, "://", ""), ":,[]{}\\\"'#") && !strings.ContainsFunc(s, odd)
}
