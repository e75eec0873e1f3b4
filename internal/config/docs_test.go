package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

const top = "../.."

func TestExampleIsWholeAndGood(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(top, "deploy.yaml.example"))
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(b), "\n"); first != "# yaml-language-server: $schema=./deploy.schema.json" {
		t.Errorf("its first line does not name the schema: %s", first)
	}
	f := parsed(t, string(b))
	for _, w := range warningsOf(f) {
		if !strings.Contains(w, "run as the same user") { // always so in this version
			t.Errorf("it has a warning: %s", w)
		}
	}
	if p := againstSchema(t, string(b)); len(p) > 0 {
		t.Errorf("the schema refuses it:\n%s", strings.Join(p, "\n"))
	}
	// Every section of this version stands in it, and what it calls a default is one.
	for _, section := range []string{"server", "secrets", "hooks", "hosts", "env", "defaults", "pipelines"} {
		if f.written[section] == nil {
			t.Errorf("it has no %s", section)
		}
	}
	d := parsed(t, "{}").Server
	d.Workers = f.Server.Workers // its default depends on the machine
	if !reflect.DeepEqual(f.Server, d) {
		t.Errorf("its server section is not the default: %+v, %+v", f.Server, d)
	}
	for i, line := range strings.Split(string(b), "\n") {
		if len(line) > 96 {
			t.Errorf("line %d has %d characters", i+1, len(line))
		}
	}
}

func TestReferenceIsThePageInDocs(t *testing.T) {
	path := filepath.Join(top, "docs", "configuration.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, Reference(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, Reference()) {
		t.Errorf("%s is not what the table says: go test ./internal/config -update", path)
	}
	for _, k := range table {
		if n := bytes.Count(b, []byte("| `"+written(k.path)+"` |")); n != 1 {
			t.Errorf("%s stands %d times in the reference", k.path, n)
		}
	}
}

func TestReferenceHasEveryWordOfExpressions(t *testing.T) {
	has := map[string]bool{}
	for _, w := range expressionWords {
		name, _, call := strings.Cut(w.name, "(")
		name, _, _ = strings.Cut(name, ".")
		has[name] = true
		src := w.name
		if !call {
			src += " == nil"
		}
		if _, err := deploy.CompileExpr(src); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
	names, functions := deploy.Words()
	for _, name := range append(names, functions...) {
		if !has[name] {
			t.Errorf("the reference has no %s", name)
		}
	}
	if want := len(names) + len(functions); len(has) != want {
		t.Errorf("the reference has %d words, and expressions %d", len(has), want)
	}
}

// TestReferenceHasEveryVariableOfSteps looks at where they are made.
func TestReferenceHasEveryVariableOfSteps(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(top, "internal", "pipeline", "steps.go"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{"PAYLOAD_FILE": bytes.Contains(b, []byte(`"DEPLOYHOOK_PAYLOAD_FILE"`))}
	for _, m := range regexp.MustCompile(`\badd\("([A-Z_]+)"`).FindAllSubmatch(b, -1) {
		made[string(m[1])] = true
	}
	for _, w := range stepVariables {
		if !made[w.name] {
			t.Errorf("steps have no DEPLOYHOOK_%s", w.name)
		}
		delete(made, w.name)
	}
	for name := range made {
		t.Errorf("the reference has no DEPLOYHOOK_%s", name)
	}
}

func TestTableIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range table {
		if seen[k.path] {
			t.Errorf("%s is in the table twice", k.path)
		}
		seen[k.path] = true
		if !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: its sentence has no end: %q", k.path, k.doc)
		}
		if len(k.allowed) > 0 && k.def != "" && !slices.Contains(k.allowed, k.def) {
			t.Errorf("%s: its default %q is not allowed", k.path, k.def)
		}
	}
	for _, k := range table {
		parent, _, nested := cutLast(k.path)
		parent = strings.TrimSuffix(parent, "[]")
		if nested && !seen[parent] {
			t.Errorf("%s: there is no %s in the table", k.path, parent)
		}
	}
}

// designKeys are the keys that the product promises, section by section.
const designKeys = `
server: listen dashboard metrics socket agent url data database workers log tls trusted_proxies limits retention shutdown_grace
server.agent: test deploy
server.log: level format
server.tls: certificate key
server.limits: body_memory
secrets.*: environment file credential command
hooks.*: provider secret token signature allow
hooks.*.signature: header algorithm encoding prefix
hosts.*: address user port identity_file jump host_key known_hosts ssh_config keepalive labels
environments.*: url branches reviewers prevent_self_review wait_timer approval_timeout windows
environments.*.windows[]: kind schedule duration timezone reason
defaults: shell timeout working_dir path
pipelines.*: repository clone_url auth hook on branch depth if env cache concurrency reconcile notify jobs
pipelines.*.auth: ssh_key known_hosts token username
pipelines.*.concurrency: group queue cancel_in_progress
pipelines.*.on: push schedule manual hook workflow_run release pipeline
pipelines.*.on.push: branches branches_ignore tags tags_ignore paths paths_ignore
pipelines.*.on.schedule[]: cron timezone
pipelines.*.on.manual: inputs
pipelines.*.on.manual.inputs.*: description required default type options
pipelines.*.on.hook: name if
pipelines.*.on.workflow_run: workflows branches
pipelines.*.on.pipeline: name
pipelines.*.jobs.*: name needs if host hosts env secrets timeout shell working_dir environment concurrency on_crash limits artifacts steps release restart healthcheck rollout before after on_rollback
pipelines.*.jobs.*.concurrency: group
pipelines.*.jobs.*.limits: memory cpu pids
pipelines.*.jobs.*.steps[]: name run env if timeout retry continue_on_error once working_dir shell detach
pipelines.*.jobs.*.steps[].retry: limit delay factor
pipelines.*.jobs.*.release: path strategy subdir overwrite keep keep_failed shared copy
pipelines.*.jobs.*.release.shared: dirs files
pipelines.*.jobs.*.healthcheck: http expect run tcp unit start_period interval timeout retries
pipelines.*.jobs.*.healthcheck.expect: status body
pipelines.*.jobs.*.rollout: parallelism delay monitor failure_action
notify[]: name webhook slack discord telegram email status on if text secret retry allow_private
notify[].retry: limit delay factor
pipelines.*.notify[]: name webhook slack discord telegram email status on if text secret retry allow_private
targets.*: url events secret
`

// laterKeys are those whose part is not in this version.
const laterKeys = `
server.dashboard server.metrics server.retention environments notify targets
pipelines.*.concurrency.group pipelines.*.concurrency.cancel_in_progress pipelines.*.reconcile pipelines.*.notify pipelines.*.jobs.*.environment
pipelines.*.jobs.*.artifacts pipelines.*.jobs.*.healthcheck pipelines.*.jobs.*.rollout pipelines.*.jobs.*.before
pipelines.*.jobs.*.after pipelines.*.jobs.*.on_rollback
pipelines.*.jobs.*.release.copy pipelines.*.jobs.*.steps[].once pipelines.*.jobs.*.steps[].detach
`

func TestTableHasEveryPromisedKey(t *testing.T) {
	has := map[string]key{}
	for _, k := range table {
		has[k.path] = k
	}
	want := map[string]bool{"server": true, "secrets": true, "hooks": true, "hosts": true, "environments": true, "env": true, "defaults": true, "pipelines": true, "notify": true, "targets": true}
	for line := range strings.Lines(strings.TrimSpace(designKeys)) {
		section, keys, _ := strings.Cut(strings.TrimSpace(line), ": ")
		for _, k := range strings.Fields(keys) {
			want[section+"."+k] = true
		}
	}
	for path := range want {
		if _, ok := has[path]; !ok {
			t.Errorf("the table has no %s", path)
		}
	}
	later := strings.Fields(laterKeys)
	for _, k := range table {
		below := slices.ContainsFunc(later, func(l string) bool {
			return k.path == l || strings.HasPrefix(k.path, l+".") || strings.HasPrefix(k.path, l+"[")
		})
		if k.later != below {
			t.Errorf("%s: not in this version is %v, want %v", k.path, k.later, below)
		}
		if _, ok := ranges[k.path]; ok == k.later || k.kind == number && !ok && !k.later {
			if k.kind == number {
				t.Errorf("%s: a whole number has its bounds when its part is there", k.path)
			}
		}
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^( *)```ya?ml\n(.*?)^ *```")

// TestYAMLInDocsIsGood reads every block of YAML in the pages that begins with
// a section of deploy.yaml.
func TestYAMLInDocsIsGood(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(top, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) == 0 {
		t.Fatal("there are no pages in docs")
	}
	if readme := filepath.Join(top, "README.md"); exists(readme) {
		pages = append(pages, readme)
	}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range yamlBlock.FindAllSubmatchIndex(b, -1) {
			by, text := string(b[m[2]:m[3]]), string(b[m[4]:m[5]])
			text = strings.ReplaceAll("\n"+text, "\n"+by, "\n")[1:]
			line := bytes.Count(b[:m[0]], []byte("\n")) + 1
			if !isSection(text) {
				continue
			}
			if _, err := Parse("block", []byte(text)); err != nil {
				t.Errorf("%s:%d:\n%v", page, line, err)
			} else if p := againstSchema(t, text); len(p) > 0 {
				t.Errorf("%s:%d: the schema refuses it:\n%s", page, line, strings.Join(p, "\n"))
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isSection says whether a text begins with a section of deploy.yaml.
func isSection(text string) bool {
	v, err := parseTree([]byte(text))
	if err != nil {
		return true // Parse says what is wrong
	}
	return v.isMap && root.children[v.entries[0].name] != nil
}
