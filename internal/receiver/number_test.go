package receiver_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"deployhook/internal/deploy"
	"deployhook/internal/receiver"
)

func TestNumbersOfAPayloadKeepTheirDigits(t *testing.T) {
	for in, want := range map[string]string{
		`1`: "1", `-7`: "-7", `0`: "0", `1.5`: "1.5", `1.10`: "1.1", `123456789012345`: "123456789012345",
		`9007199254740993`: "9007199254740993", `-9007199254740993`: "-9007199254740993", `9223372036854775807`: "9223372036854775807",
		`9223372036854775808`: "9223372036854775808", `12345678901234567890123`: "12345678901234567890123",
		`1e400`: "1e400", `-1E+400`: "-1E+400", `1e3`: "1000", `1e-400`: "0", `19.990000000000002`: "19.990000000000002",
		`"9007199254740993"`: "9007199254740993", `"1e400"`: "1e400", `"\\"`: `\`, `"a\""`: `a"`, `"\\\""`: `\"`,
	} {
		// Beside a long number the others are what they are without it.
		for _, beside := range []string{`0`, `9007199254740993`, `1e999`} {
			ev, err := receiver.Read("generic", "hook", []byte(`{"v":`+in+`,"beside":`+beside+`}`))
			if err != nil {
				t.Errorf("%s: %v", in, err)
				continue
			}
			tmpl, err := deploy.CompileTemplate("${{ payload.v }}")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tmpl.Expand(&deploy.Scope{Event: ev}); err != nil || got != want {
				t.Errorf("%s beside %s is %q, %v; want %q", in, beside, got, err, want)
			}
		}
	}
	for src, want := range map[string]bool{
		`payload.id == 9007199254740993`: true, `payload.id == 9007199254740992`: false, `payload.id > 9007199254740992`: true,
		`payload.n == 3 && payload.n < 3.5 && payload.list contains 3`: true, `payload.huge == "1e400"`: true,
	} {
		ev, err := receiver.Read("generic", "hook", []byte(`{"id":9007199254740993,"n":3,"list":[1,3],"huge":1e400}`))
		if err != nil {
			t.Fatal(err)
		}
		e, err := deploy.CompileExpr(src)
		if err != nil {
			t.Fatal(err)
		}
		if got, why := e.Eval(&deploy.Scope{Event: ev}); got != want || why != "" {
			t.Errorf("%s is %t, %q", src, got, why)
		}
	}
	if _, err := receiver.Read("generic", "hook", []byte(`{"v":9007199254740993`)); err == nil {
		t.Error("half of an object is taken")
	}
}

func TestLastOfTwoEqualKeysCounts(t *testing.T) {
	for _, beside := range []string{"1", "9007199254740993"} {
		ev, err := receiver.Read("generic", "hook", []byte(`{"type":"a","n":`+beside+`,"type":"b"}`))
		if err != nil || ev.Payload().(map[string]any)["type"] != "b" {
			t.Errorf("got %+v, %v", ev, err)
		}
	}
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{`1`, `9007199254740993`, `{"a":[1e400,-0,1.5e3,"9007199254740993"]}`, `[12345678901234567890.5]`, `"\"12345678901234567\""`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ev, err := receiver.Read("generic", "hook", body)
		var v any
		if plain := json.Unmarshal(body, &v); plain == nil && err != nil && utf8.Valid(body) && len(body) < 1000 {
			t.Errorf("%q is JSON and refused: %v", body, err)
		}
		if err == nil && !json.Valid(body) {
			t.Errorf("%q is no JSON and taken as %v", body, ev.Payload())
		}
	})
}
