package deploy

import (
	"encoding/json"
	"strings"
	"testing"
)

func scopeOf(t testing.TB, payload string) *Scope {
	var p any
	if err := json.Unmarshal([]byte(payload), &p); err != nil {
		t.Fatal(err)
	}
	return &Scope{
		Event: &Event{Kind: Push, Branch: "main", Ref: "refs/heads/main", Message: "fix: x", Actor: "alice", Payload: func() any { return p }},
		SHA:   "abc", Env: map[string]string{"MODE": "prod"},
		Needs:   map[string]NeedResult{"my-job": {Result: Succeeded}, "test": {Result: Failed}},
		Changed: func(glob string) bool { return glob == "docs/**" },
	}
}

func TestIfIsTrueOrFalseAndSaysWhy(t *testing.T) {
	payload := `{"type":"payment.approved","n":3,"a":"text","list":[1,{"b":"c"}],"null":null}`
	for _, tt := range []struct {
		src  string
		want bool
		why  string
	}{
		{`branch == "main"`, true, ""},
		{`branch == "docs"`, false, ""},
		{`event == "push" && sha == "abc"`, true, ""},
		{`payload.type == "payment.approved"`, true, ""},
		{`payload.missing.deep.er == "x"`, false, ""},
		{`payload.missing == nil`, true, ""},
		{`payload.a.b == "x"`, false, "payload.a is a string, not an object: there is no payload.a.b"},
		{`payload.list[1].b == "c"`, true, ""},
		{`payload.list[9] == nil`, true, ""},
		{`payload.list.b == "c"`, false, "payload.list is a list: its members are numbers"},
		{`message startsWith "fix:"`, true, ""},
		{`message contains "x" and not (actor == "bob")`, true, ""},
		{`message matches "^fix"`, true, ""},
		{`needs["my-job"].result == "succeeded"`, true, ""},
		{`needs.test.result == "failed"`, true, ""},
		{`env.MODE == "prod"`, true, ""},
		{`env.HOME == nil`, true, ""},
		{`changed("docs/**")`, true, ""},
		{`changed("src/**")`, false, ""},
		{`success()`, true, ""},
		{`failure() || canceled()`, false, ""},
		{`always()`, true, ""},
		{`len(payload.list) == 2`, true, ""},
		{`payload.n / 0 > 1`, false, "payload.n / 0 divides by zero"},
		{`payload.n % 0 == 1`, false, "payload.n % 0 divides by zero"},
		{`1 / payload.none > 1`, false, "1 is a number and payload.none is null: / takes two numbers"},
		{`7 / 2 == 3.5 && 7 % 2 == 1 && 2 ** 3 == 8 && 7 - 4 == 3 && 6 * 7 == 42 && 4 / 2 == 2`, true, ""},
		{`10 ** 400 > 1`, false, "10 ** 400 is no number any more"},
		{`payload.a % 2 == 0`, false, "payload.a is a string and 2 is a number: % takes two whole numbers"},
		{`payload.type in ["payment.approved", "payment.refunded"]`, true, ""},
		{`payload.type not in ["payment.approved"]`, false, ""},
		{`["a", "b"] contains payload.type`, false, ""},
		{`payload.n in [1, 2, 3]`, true, ""},
		{`"a" in payload && !("z" in payload)`, true, ""},
		{`1 in payload.a`, false, "payload.a is a string: in looks into a list or an object"},
		{`payload.list == payload.list && payload.list != payload.none && payload != payload.list`, true, ""},
		{`payload.n == "3" || payload.n != 3`, false, ""},
		{`payload.a contains "ex"`, true, ""},
		{`payload.list contains 1`, true, ""},
		{`payload.list contains 2`, false, ""},
		{`payload.list contains "1"`, false, ""},
		{`payload.none contains "x"`, false, ""},
		{`payload.n startsWith "x"`, false, "payload.n is a number: startsWith compares strings"},
		{`"x" contains payload.n`, false, "payload.n is a number: contains compares strings"},
		{`message matches payload.n`, false, "matches takes a pattern in quotes, and payload.n is a number"},
		{`payload.n > 2 && payload.n >= 3 && payload.n < 4 && payload.n <= 3`, true, ""},
		{`payload.a > "tex"`, true, ""},
		{`payload.none > 5`, false, ""},
		{`5 >= payload.none`, false, ""},
		{`payload.n && branch == "main"`, true, ""},
		{`payload.none && true`, false, ""},
		{`payload.none || payload.a`, true, ""},
		{`!payload.none`, true, ""},
		{`not payload.a`, false, ""},
		{`payload.a ? branch == "main" : false`, true, ""},
		{`(payload.none ?? "x") == "x"`, true, ""},
		{`payload.a * 2 > 1`, false, "payload.a is a string and 2 is a number: * takes two numbers"},
		{`payload.none + 1 == 2`, false, "payload.none is null and 1 is a number: + takes two numbers or two strings"},
		{`payload.n + 1 == 4 && payload.a + "s" == "texts" && 1 + 1 == 2`, true, ""},
		{`payload.n - payload.a > 1`, false, "payload.n is a number and payload.a is a string: - takes two numbers"},
		{`len(payload.none) > 2`, false, ""},
		{`len(payload.n) > 2`, false, "payload.n is a number: len takes a string, a list or an object"},
		{`len(payload.a) == 4 && len(payload) == 5`, true, ""},
		{`lower(payload.none) == nil && upper(payload.a) == "TEXT" && trim(" x ") == "x"`, true, ""},
		{`upper(payload.n) == "3"`, false, "payload.n is a number: upper takes a string"},
		{`int("12") == 12 && float("1.5") == 1.5 && int(payload.n) == 3 && int(payload.none) == nil`, true, ""},
		{`int(payload.a) == 1`, false, "payload.a is no number: int takes one"},
		{`int(1e300) == 1`, false, "1e+300 is over 64 bits"},
		{`string(payload.n) == "3" && string(payload.list[1]) == '{"b":"c"}'`, true, ""},
		{`1 in payload.list`, true, ""},
		{`1 in payload.none`, false, ""},
		{`payload.a > 1`, false, "payload.a is a string and 1 is a number: > compares two numbers or two strings"},
	} {
		e, err := CompileExpr(tt.src)
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		got, why := e.Eval(scopeOf(t, payload))
		if got != tt.want || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
			t.Errorf("%s = %v, %q; want %v, %q", tt.src, got, why, tt.want, tt.why)
		}
	}
}

func TestBadExpressionsSayWhatToWrite(t *testing.T) {
	for src, want := range map[string]string{
		`contains(message, "x")`:             "contains is an operator: write a contains b, not contains(a, b)",
		`startsWith(branch, "x")`:            "startsWith is an operator",
		`needs.my-job.result == "succeeded"`: `write needs["my-job"]`,
		`brnch == "main"`:                    `unknown name "brnch"; did you mean "branch"?`,
		`github.ref == "x"`:                  `unknown name "github"; names stand alone here, like branch, ref, sha, actor and event`,
		`cancelled()`:                        `unknown name "cancelled"; did you mean "canceled"?`,
		`Branch == "main"`:                   `unknown name "Branch"; did you mean "branch"?`,
		`now()`:                              `unknown name "now"; text stands in quotes`,
		`branch == main`:                     `unknown name "main"; text stands in quotes`,
		`toJSON(payload)`:                    `unknown name "toJSON"; the functions are success, failure,`,
		`ref_name == "main"`:                 "write branch or tag",
		`failure`:                            "failure is a function: write failure()",
		`always || branch == "main"`:         "always is a function: write always()",
		`not (success() and failure)`:        "failure is a function: write failure()",
		`changed`:                            `changed is a function: write changed("src/**")`,
		`success(1)`:                         "success() takes nothing between its brackets",
		`changed()`:                          `changed takes one pattern, like changed("src/**")`,
		`changed("a", "b")`:                  "changed takes one pattern",
		`changed("[")`:                       `changed: pattern "[": [ has no ]`,
		`branch.name == "x"`:                 "branch is text and has no members",
		`event.action == "x"`:                `event is text, like "push"; what was sent is payload`,
		`event["action"] == "x"`:             "what was sent is payload",
		`branch = "main"`:                    "= does not compare: write ==",
		`branch == "a" b`:                    "\"b\" is not expected there",
		`1 in 1..100000000`:                  "ranges are not part of expressions",
		`secrets.TOKEN == "x"`:               "secrets are not part of expressions",
		`branch ==`:                          "the expression breaks off: something is missing at its end",
		`${{ branch }}`:                      "leave out ${{ and }}",
		``:                                   "the expression is empty",
		`branch == "` + strings.Repeat("x", 5000): "at most 4096",
		strings.Repeat("!", 2000) + "true":        "exceeds maximum",
		`map(payload.items, # * 2)`:               `unknown name "map"`,
		`branch matches "("`:                      "error parsing regexp",
		`changed(1)`:                              "changed takes a pattern in quotes",
		`changed(message)`:                        "changed takes a pattern in quotes", // only patterns of deploy.yaml
		`changed(lower(message))`:                 "changed takes a pattern in quotes",
		`changed("a" + message)`:                  "changed takes a pattern in quotes",
		`changed("docs/[")`:                       "changed: pattern",
		`__get(payload, "a", "b")`:                "unknown name",
	} {
		_, err := CompileExpr(src)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", src, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60s: the error has several lines: %q", src, err)
		}
	}
}

func TestTemplateExpands(t *testing.T) {
	payload := `{"id":12,"f":1.5,"s":"a b","o":{"k":[1]},"nul":"a\u0000b","big":"` + strings.Repeat("x", 70_000) + `"}`
	for src, want := range map[string]string{
		"plain 1.10":                       "plain 1.10",
		"${{ branch }}":                    "main",
		"v-${{ payload.id }}-${{ sha }}-x": "v-12-abc-x",
		"${{ payload.f }}":                 "1.5",
		"${{ payload.none.deep }}":         "",
		"${{ payload.o }}":                 `{"k":[1]}`,
		"${{ payload.s }}":                 "a b",
		`${{ "}}" }}${{ '\'}}' }}`:         "}}'}}",
		"${{ {\"a\": 1}.a }}":              "1",
	} {
		tmpl, err := CompileTemplate(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := tmpl.Expand(scopeOf(t, payload)); got != want || err != nil {
			t.Errorf("%s = %q, %v; want %q", src, got, err, want)
		}
	}
	for src, want := range map[string]string{"${{ payload.nul }}": "NUL", "${{ payload.big }}": "over 64 KiB", "${{ payload.s.x }}": "payload.s is a string"} {
		tmpl, err := CompileTemplate(src)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tmpl.Expand(scopeOf(t, payload)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", src, err, want)
		}
	}
	for src, want := range map[string]string{"${{ branch": "has no }}", "${{ nope }}": "unknown name", "${{ 'x }}": "within ${{ }} a quote has no end", "${{ failure() }}": "only in an if"} {
		if _, err := CompileTemplate(src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", src, err, want)
		}
	}
}

func TestExpressionsAreBoundedInMemory(t *testing.T) {
	scope := scopeOf(t, `{"s":"`+strings.Repeat("s", 600_000)+`","list":[`+strings.Repeat(`"sss",`, 300_000)+`1]}`)
	for src, want := range map[string]string{
		"payload.s + payload.s":      "payload.s + payload.s is over 1 MiB",
		"len(payload.s) == 600000":   "",
		"string(payload) == ''":      "payload: it is over 1024 KiB",
		"payload.list contains 1":    "",
		`let x = 1; x + x == 2`:      "",
		`len(payload.list) > 299999`: "",
	} {
		e, err := CompileExpr(src)
		if strings.HasPrefix(src, "let") {
			// Names of its own could double a value with each word.
			if err == nil || !strings.Contains(err.Error(), `unknown name "x"`) {
				t.Errorf("%s: %v", src, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if ok, why := e.Eval(scope); ok != (want == "") || !strings.Contains(why, want) || (why == "") != (want == "") {
			t.Errorf("%s = %v, %q; want %q", src, ok, why, want)
		}
	}
	tmpl, err := CompileTemplate("${{ payload.list }}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpl.Expand(scope); err == nil || !strings.Contains(err.Error(), "payload.list: it is over 64 KiB") {
		t.Errorf("a list of a megabyte: %v", err)
	}
}

func FuzzExpressionsNeverPanic(f *testing.F) {
	for _, s := range []string{`payload.a.b`, `needs["x"].result == "failed"`, `1..100000`, `payload[0][1]`, `a ?? b`, `{"a": 1}.a`, `len("x") > 0 ? 1 : 2`, `let x = 1; x`,
		`payload.n > 1 && !payload.a || message matches payload.re`, `payload.list contains 1`, `payload.a * 2 ** payload.b`, `changed("docs/**")`, `1 in payload.b`} {
		f.Add(s, `{"a":{"b":[1,2]}}`)
	}
	f.Fuzz(func(t *testing.T, src, payload string) {
		e, err := CompileExpr(src)
		if err != nil {
			return
		}
		var p any
		_ = json.Unmarshal([]byte(payload), &p)
		if ok, why := e.Eval(&Scope{Event: &Event{Payload: func() any { return p }}}); ok && why != "" {
			t.Errorf("%q is true and has a reason why not: %s", src, why)
		}
	})
}

func FuzzTemplatesNeverPanic(f *testing.F) {
	for _, s := range []string{"plain", "${{ branch }}", "a ${{ payload.a }} b ${{payload.b[0]}}", "${{", "${{ }}", "${{ '}}' }}", "$${{ branch }}", "${{ ${{ }}"} {
		f.Add(s, `{"a":{"b":[1,2]},"b":["x"]}`)
	}
	f.Fuzz(func(t *testing.T, src, payload string) {
		tmpl, err := CompileTemplate(src)
		if err != nil {
			return
		}
		var p any
		_ = json.Unmarshal([]byte(payload), &p)
		got, err := tmpl.Expand(&Scope{Event: &Event{Branch: "main", Payload: func() any { return p }}})
		if lit, ok := tmpl.Literal(); ok && (err != nil || got != lit || strings.Contains(src, "${{")) {
			t.Errorf("%q expands to %q, %v", src, got, err)
		}
		if err == nil && len(got) > templateBytes+len(src) {
			t.Errorf("%q expands to %d bytes", src, len(got))
		}
	})
}
