package web

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deployhook/internal/deploy"
)

func TestLinesComeOutOfAPartAsTheyWentIn(t *testing.T) {
	at := time.Date(2026, 4, 1, 10, 15, 0, 5e6, time.FixedZone("CEST", 2*3600))
	c := deploy.LogChunk{ID: 9, At: deploy.StepAt{Run: 7, Job: "deploy", Attempt: 2, Host: "web-1"}, StepName: "make\tall", Lines: []deploy.LogLine{
		{Time: at, Stream: 0, Text: []byte("deployhook: note")},
		{Time: at.Add(-time.Hour), Stream: 1, Text: []byte("a clock that jumped <back> & forth")},
		{Time: at, Stream: 1, Text: nil},
		{Time: at, Stream: 2, Text: []byte("Password: "), Open: true},
		{Time: at, Stream: 2, Text: []byte("\x1b[31mred\xff"), Open: true},
		{Time: at.Add(time.Second), Stream: 2, Text: nil},
	}}
	b, err := json.Marshal(partOf(&c))
	if err != nil {
		t.Fatal(err)
	}
	var p logPart
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	got, err := p.lines()
	if err != nil {
		t.Fatal(err)
	}
	var want []Line
	for i, text := range []string{"deployhook: note", "a clock that jumped <back> & forth", "", "Password: ", "\x1b[31mred\ufffd", ""} {
		l := c.Lines[i]
		want = append(want, Line{
			Time: l.Time.UTC(), Job: "deploy", Attempt: 2, Host: "web-1", Step: "make\tall", Stream: streams[l.Stream], Text: text, Open: l.Open,
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if p.After != 9 {
		t.Errorf("the mark is %d, want 9", p.After)
	}
}

func TestPartThatDoesNotFitTogetherIsAnError(t *testing.T) {
	for _, p := range []logPart{
		{Times: []int64{1}}, {Kinds: "1"}, {Times: []int64{1}, Kinds: "1", Text: "a\nb"}, {Times: []int64{1, 2}, Kinds: "11", Text: "a"},
		{Times: []int64{1}, Kinds: "9", Text: "a"}, {Times: []int64{1}, Kinds: "/", Text: "a"},
	} {
		if lines, err := p.lines(); !errors.Is(err, errPart) {
			t.Errorf("%+v gives %v, %v, want an error", p, lines, err)
		}
	}
	// The place of a sentence about what was left out may have none yet.
	if lines, err := (&logPart{After: 3}).lines(); err != nil || lines != nil {
		t.Errorf("a part without lines gives %v, %v", lines, err)
	}
}
