package receiver

import (
	"bytes"
	"encoding/json"
	"net/url"
)

// hidden stands where a secret stood.
const hidden = "***"

// hide takes the values of a hook's secret and token out of a payload, before
// anything of it is read or kept: GitHub's ping tells the address that it was
// sent to, with the token in it. Values too short to be secret stay.
func hide(payload []byte, values []string) []byte {
	for _, v := range values {
		if len(v) < secretLeast || !bytes.Contains(payload, plainest(v)) {
			continue
		}
		for _, form := range forms(v) {
			if bytes.Contains(payload, form) {
				payload = bytes.ReplaceAll(payload, form, []byte(hidden))
			}
		}
	}
	return payload
}

// plainest is the longest part of a value that is written the same in all its
// forms: where that is not, none of them is.
func plainest(value string) (longest []byte) {
	for part := range bytes.FieldsFuncSeq([]byte(value), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}

// forms are how a value may stand in JSON: as it is or in an address, each
// escaped as JSON has it.
func forms(value string) [][]byte {
	list := [][]byte{}
	add := func(form []byte) {
		for _, have := range list {
			if bytes.Equal(have, form) {
				return
			}
		}
		list = append(list, form)
	}
	for _, text := range []string{value, url.QueryEscape(value), url.PathEscape(value)} {
		add([]byte(text))
		for _, html := range []bool{false, true} {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(html)
			if enc.Encode(text) == nil {
				add(bytes.Trim(bytes.TrimSpace(b.Bytes()), `"`))
			}
		}
	}
	return list
}
