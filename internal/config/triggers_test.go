package config

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

func TestTriggersAreReadAsWritten(t *testing.T) {
	f := parsed(t, hooksPart+`pipelines:
  build:
    repository: github.com/acme/shop
    on:
      release:
      workflow-run: { workflows: [CI, "deploy *"], branches: main }
      schedule:
        - cron: "0 2 * * MON-FRI"
          timezone: Europe/Berlin
        - cron: "@hourly"
      manual:
        inputs:
          target: { description: where to, type: choice, options: [staging, production], required: true }
          count: { type: number, default: 3 }
          dry: { type: boolean, default: false }
          note: {}
    jobs: { j: { steps: [ { run: x } ] } }
  next:
    on: { pipeline: { name: build } }
    jobs: { j: { steps: [ { run: x } ] } }
  by-hand:
    on: [manual]
    jobs: { j: { steps: [ { run: x } ] } }
`)
	p := f.Deploy.Pipeline("build")
	on := p.On
	if !on.Release || p.Hook != "github" || on.Workflow == nil || !slices.Equal(on.Workflow.Workflows, []string{"CI", "deploy *"}) || !slices.Equal(on.Workflow.Branches, []string{"main"}) {
		t.Errorf("of the forge: %+v through %q", on, p.Hook)
	}
	if len(on.Schedules) != 2 || on.Schedules[0].Cron.String() != "0 2 * * MON-FRI Europe/Berlin" || on.Schedules[1].Cron.String() != "@hourly" {
		t.Errorf("schedules: %+v", on.Schedules)
	}
	var inputs []string
	for _, in := range on.Inputs {
		inputs = append(inputs, inputText(in))
	}
	if want := []string{"target (staging or production; required) where to", `count (number; default "3")`, `dry (boolean; default "false")`, "note (string)"}; !slices.Equal(inputs, want) {
		t.Errorf("inputs: %q, want %q", inputs, want)
	}
	if got := f.Deploy.Pipeline("next").On.Pipeline; got != "build" {
		t.Errorf("next follows %q", got)
	}
	if w := slices.DeleteFunc(warningsOf(f), func(w string) bool { return strings.Contains(w, "the daemon's own user") }); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	var b bytes.Buffer
	Describe(&b, f)
	for _, want := range []string{
		"releases that are published through hook github (default), or workflow CI, deploy * on branches main that succeeds through hook github (default), or schedule 0 2 * * MON-FRI Europe/Berlin, or schedule @hourly",
		"success of pipeline build", "by hand only: deployhook trigger by-hand", "target (staging or production; required) where to",
	} {
		if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) { // it is wrapped
			t.Errorf("check does not say %q:\n%s", want, &b)
		}
	}
}

func TestPipelinesThatStartEachOtherAreRefused(t *testing.T) {
	got := problemsOf(t, hooksPart+`pipelines:
  a: { on: { pipeline: { name: c } }, jobs: { j: { steps: [ { run: x } ] } } }
  b: { on: { pipeline: { name: a } }, jobs: { j: { steps: [ { run: x } ] } } }
  c: { on: { pipeline: { name: b } }, jobs: { j: { steps: [ { run: x } ] } } }
  d: { on: { pipeline: { name: c } }, jobs: { j: { steps: [ { run: x } ] } } }
`)
	same(t, got,
		"deploy.yaml:3:32: pipelines.a.on.pipeline.name: these pipelines would start each other for ever: a after c after b after a",
		"deploy.yaml:4:32: pipelines.b.on.pipeline.name: these pipelines would start each other for ever: b after a after c after b",
		"deploy.yaml:5:32: pipelines.c.on.pipeline.name: these pipelines would start each other for ever: c after b after a after c",
	)
	if _, err := Parse("deploy.yaml", []byte(hooksPart+"pipelines:\n"+chainText(10))); err != nil {
		t.Errorf("ten pipelines in a row: %v", err)
	}
}

// A schedule that was stored with a run is read again as it was.
func TestStoredSchedulesAreFoundAgain(t *testing.T) {
	f := parsed(t, pipelineText("on: { schedule: [ { cron: ' 0   2 * * *', timezone: Europe/Berlin }, { cron: '0 2 * * *', timezone: UTC } ] }\n"))
	got := f.Deploy.Clocks()
	want := []deploy.Clock{{Pipeline: "p", Schedule: "0 2 * * * Europe/Berlin"}, {Pipeline: "p", Schedule: "0 2 * * *"}}
	if !slices.Equal(got, want) {
		t.Errorf("the clocks are %+v, want %+v", got, want)
	}
}
