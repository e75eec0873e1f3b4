package web

import (
	"encoding/json"
	"errors"
	"testing"

	"deployhook/internal/deploy"
)

func FuzzParseEvent(f *testing.F) {
	for _, b := range []string{
		`{"type":"payment.approved","data":{"order":42}}`, `{"type":"x","data":null}`, `{"type":"x"}`, `{}`, ``, `[]`, `{"type":"x","data":1}{}`,
		`{"type":"x","data":1,"more":2}`, `{"type":"a b","data":1}`, "{\"type\":\"x\",\"data\":\"\xff\"}", `{"type":"x","data":[[[[[[]]]]]]}`,
	} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err != nil {
			if !errors.Is(err, deploy.ErrMisuse) {
				t.Errorf("parseEvent(%q) = %v", b, err)
			}
			return
		}
		if !validEventType(e.Type) || !json.Valid(e.Data) || len(e.Data) > len(b) {
			t.Errorf("parseEvent(%q) = %+v", b, e)
		}
	})
}
