package daemon_test

import (
	"os"
	"strings"
	"testing"
)

// generation is a config whose test job waits for a file, and whose deploy job
// says which generation of the file it comes from.
func (s *site) generation(name string) string {
	return s.config(`
      test: { steps: [ { run: 'touch ` + s.path("testing") + `; while ! test -e ` + s.path("go") + `; do sleep 0.02; done' } ] }
      deploy: { release: ` + s.path("srv") + `, steps: [ { run: "cp index.txt built.txt" }, { run: "echo generation ` + name + `" } ] }
`)
}

func (s *site) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(path), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) testing() {
	s.t.Helper()
	s.until("the test job runs", func() bool { _, err := os.Stat(s.path("testing")); return err == nil })
}

func TestAcceptedRunGoesOnWithItsConfigThroughAReload(t *testing.T) {
	s := newSite(t)
	s.start(s.generation("one"))
	first := s.push("one")
	s.testing()
	s.write("deploy.yaml", s.generation("two"))
	text, err := s.client.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := s.configFile() + " is in force: 1 pipeline, 2 hooks"; text != want {
		t.Errorf("the reload says %q, want %q", text, want)
	}
	// What is worth a word in check is one in the log.
	if !strings.Contains(s.log.String(), "hooks.webhook: no pipeline takes what comes through this hook") {
		t.Errorf("no warning in\n%s", s.log)
	}
	s.write("go", "")
	s.want(first, "succeeded")
	if log := s.logOf(first); !strings.Contains(log, "generation one") || strings.Contains(log, "generation two") {
		t.Errorf("the run that was accepted before the reload:\n%s", log)
	}
	second := s.push("two")
	s.want(second, "succeeded")
	if log := s.logOf(second); !strings.Contains(log, "generation two") {
		t.Errorf("the run after the reload:\n%s", log)
	}
}

// TestAcceptedRunGoesOnWithItsConfigThroughARestart also has the file without
// the pipeline by then.
func TestAcceptedRunGoesOnWithItsConfigThroughARestart(t *testing.T) {
	s := newSite(t)
	s.start(s.generation("one"))
	run := s.push("one")
	s.testing()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.died()
	s.write("go", "")
	text := s.generation("two")
	s.start(strings.Replace(text, "\n  shop:", "\n  other:", 1))
	s.want(run, "succeeded")
	if log := s.logOf(run); !strings.Contains(log, "generation one") || strings.Contains(log, "generation two") {
		t.Errorf("the run that was accepted before the restart:\n%s", log)
	}
}

// TestReloadSaysAllThatIsWrongAndKeepsTheOld has errors of form, of names and
// of secrets, each at its place.
func TestReloadSaysAllThatIsWrongAndKeepsTheOld(t *testing.T) {
	s := newSite(t)
	s.start(s.config(""))
	for text, want := range map[string]string{
		"":                       "deploy.yaml: the file is empty",
		"\x7fELF\x00":            "deploy.yaml: this is not a text file in UTF-8",
		"hooks:\n\tgithub: {}\n": "deploy.yaml:2:1: a tab indents this line",
		"hoks: 1\nenvironments: {}\nserver: { workers: 0 }\n":                                              "deploy.yaml:1:1: hoks: unknown key; did you mean \"hooks\"?\ndeploy.yaml:2:1: environments: not available in this version\ndeploy.yaml:3:20: server.workers: a whole number from 1 to 1000",
		strings.Replace(s.config(""), "environment: TEST_SECRET } }\n", "environment: NOT_THERE } }\n", 1): "deploy.yaml:4:41: hooks.github.secret: there is no variable NOT_THERE",
	} {
		s.write("deploy.yaml", text)
		answer, err := s.client.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the config in force stays:\n"+want) {
			t.Errorf("%.40q: %q, %v; want %s", text, answer, err, want)
		}
	}
	if err := os.Remove(s.configFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "deploy.yaml is not there") {
		t.Errorf("without the file: %v", err)
	}
	s.want(s.push("one"), "succeeded")
}
