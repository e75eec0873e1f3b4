package receiver_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"deployhook/internal/deploy"
)

// forgeSecret is what the recorded forge signed with.
const forgeSecret = "a-secret-for-the-real-forge"

// recording is a delivery as a real Gitea sent it: see testdata/gitea.
type recording struct {
	Step    string            `json:"step"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func recordings(t *testing.T) (list []recording) {
	t.Helper()
	b, err := os.ReadFile("testdata/gitea/deliveries.json")
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil || len(list) < 15 {
		t.Fatalf("%d deliveries are recorded: %v", len(list), err)
	}
	return list
}

// What a real Gitea sent for pushes, tags, forced and deleted refs, pull
// requests and redeliveries means the same to the receiver wherever it runs.
func TestRecordedDeliveriesOfGitea(t *testing.T) {
	x := start(t)
	t.Setenv("FORGE_SECRET", forgeSecret)
	const text = `
hooks:
  gitea: { provider: gitea, secret: { environment: FORGE_SECRET } }
  forgejo: { provider: forgejo, secret: { environment: FORGE_SECRET } }
  github: { provider: github, secret: { environment: FORGE_SECRET } }
pipelines:
  shop:
    repository: 127.0.0.1/alice/shop
    hook: gitea
    on: { push: { branches: [main] } }
    jobs: { test: { steps: [ { run: "true" } ] } }
  tags:
    repository: 127.0.0.1/alice/shop
    hook: gitea
    on: { push: { tags: ["v*"] } }
    jobs: { test: { steps: [ { run: "true" } ] } }
`
	x.use(text)
	// The ref of each push that starts a run, by its step.
	starts := map[string]string{
		"the first push": "refs/heads/main", "three commits in one push": "refs/heads/main", "a push that its test refuses": "refs/heads/main",
		"a forced push": "refs/heads/main", "a tag": "refs/tags/v1", "an annotated tag": "refs/tags/v2", "a push as a form": "refs/heads/main",
	}
	first := map[string]reply{} // the answer to each body
	for _, rec := range recordings(t) {
		header := []string{}
		for name, value := range rec.Headers {
			header = append(header, name, value)
		}
		event := rec.Headers["X-Gitea-Event"]
		if r := x.send("/hooks/gitea", []byte(rec.Body+" "), header...); r.status != 401 {
			t.Errorf("%s: %s with another body: %+v", rec.Step, event, r)
		}
		if r := x.send("/hooks/gitea", []byte(rec.Body), append(slices.Clone(header), "X-Gitea-Signature", "")...); r.status != 401 {
			t.Errorf("%s: %s without its signature: %+v", rec.Step, event, r)
		}
		r := x.send("/hooks/gitea", []byte(rec.Body), header...)
		ref := starts[rec.Step]
		var p struct {
			After      string `json:"after"`
			HeadCommit struct {
				ID string `json:"id"`
			} `json:"head_commit"`
		}
		_ = json.Unmarshal([]byte(rec.Body), &p)
		switch before, again := first[rec.Body]; {
		case again:
			if r.status != 200 || r.Delivery != before.Delivery || !slices.Equal(r.Runs, before.Runs) {
				t.Errorf("%s: %s came again: %+v, was %+v", rec.Step, event, r, before)
			}
		case event == "push" && ref != "":
			if r.status != 202 || len(r.Runs) != 1 {
				t.Errorf("%s: %+v", rec.Step, r)
				break
			}
			run := x.run(r.Runs[0])
			if want := p.HeadCommit.ID; run.Ref != ref || rec.Step != "a push as a form" && run.Commit != want || run.Actor != "alice" {
				t.Errorf("%s: the run is %+v, want %s of %s", rec.Step, run, want, ref)
			}
		case r.status != 200 || len(r.Runs) != 0 || r.Message == "":
			t.Errorf("%s: %s starts nothing: %+v", rec.Step, event, r)
		}
		first[rec.Body] = r
		// Forgejo's are of the same form.
		if r := x.send("/hooks/forgejo", []byte(rec.Body), header...); r.status != 200 || len(r.Runs) != 0 {
			t.Errorf("%s: %s to forgejo: %+v", rec.Step, event, r)
		}
	}
	seen, err := x.store.Deliveries(t.Context(), deploy.DeliveryFilter{Hook: "gitea", Limit: 100})
	if err != nil || len(seen) < 15 {
		t.Errorf("%d deliveries are stored: %v", len(seen), err)
	}
	if strings.Contains(x.log.String(), forgeSecret) {
		t.Error("the log has the secret")
	}
}
