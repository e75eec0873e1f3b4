package deploy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"deployhook/internal/deploy"
)

func TestTokenIsForItsActionsAndPipelines(t *testing.T) {
	one := deploy.Token{Actions: []deploy.Action{deploy.ActionRun, deploy.ActionEvents}, Pipelines: []string{"shop"}}
	all := deploy.Token{Actions: []deploy.Action{deploy.ActionRead}}
	for _, tt := range []struct {
		token    *deploy.Token
		action   deploy.Action
		pipeline string
		want     bool
	}{
		{&one, deploy.ActionRun, "shop", true},
		{&one, deploy.ActionRun, "Shop", false},
		{&one, deploy.ActionRun, "blog", false},
		{&one, deploy.ActionRead, "shop", false},
		{&one, deploy.ActionEvents, "", true},
		{&all, deploy.ActionRead, "blog", true},
		{&all, deploy.ActionRun, "blog", false},
		{&deploy.Token{}, deploy.ActionRun, "shop", false},
	} {
		if got := tt.token.May(tt.action, tt.pipeline); got != tt.want {
			t.Errorf("%v may %s %q: %v, want %v", tt.token, tt.action, tt.pipeline, got, tt.want)
		}
	}
	now := time.Now()
	for _, tt := range []struct {
		token deploy.Token
		want  bool
	}{
		{deploy.Token{}, true},
		{deploy.Token{Expires: now.Add(time.Second)}, true},
		{deploy.Token{Expires: now}, false},
		{deploy.Token{Revoked: now.Add(-time.Hour), Expires: now.Add(time.Hour)}, false},
	} {
		if got := tt.token.Valid(now); got != tt.want {
			t.Errorf("%+v counts: %v, want %v", tt.token, got, tt.want)
		}
	}
}

func TestTokenThatIsNoneIsRefused(t *testing.T) {
	now := time.Now()
	run := []deploy.Action{deploy.ActionRun}
	good := deploy.Token{Name: "ci-1.x_y", Actions: run, Pipelines: []string{"shop"}, Expires: now.Add(time.Hour)}
	if err := good.Check(now); err != nil {
		t.Error(err)
	}
	for want, token := range map[string]deploy.Token{
		"the name of a token begins with a letter": {Name: "12", Actions: run},
		"at most 64":                   {Name: strings.Repeat("n", 65), Actions: run},
		"has no action":                {Name: "ci"},
		`"rum" is no action`:           {Name: "ci", Actions: []deploy.Action{"rum"}},
		"is named twice":               {Name: "ci", Actions: []deploy.Action{"run", "run"}},
		"events belong to no pipeline": {Name: "ci", Actions: []deploy.Action{"events"}, Pipelines: []string{"shop"}},
		"the token would have expired": {Name: "ci", Actions: run, Expires: now},
	} {
		if err := token.Check(now); !errors.Is(err, deploy.ErrMisuse) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gives %v, want %q", token, err, want)
		}
	}
}
