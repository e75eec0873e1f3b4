package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCacheIsReadAndItsMistakesAreOneSentence(t *testing.T) {
	const repo = "repository: github.com/acme/shop\n"
	f := parsed(t, pipelineText(repo+"cache: [node_modules/, ./a/b]\n"))
	if got := f.Deploy.Pipelines[0].Cache; !slices.Equal(got, []string{"node_modules", "a/b"}) {
		t.Errorf("the cache is %q", got)
	}
	var b bytes.Buffer
	Describe(&b, f)
	if !strings.Contains(b.String(), "\n  cache     node_modules, a/b\n") {
		t.Errorf("check does not show the cache:\n%s", &b)
	}
	if got := parsed(t, pipelineText(repo+"cache: node_modules\n")).Deploy.Pipelines[0].Cache; !slices.Equal(got, []string{"node_modules"}) {
		t.Errorf("the cache is %q", got)
	}
	var many []string
	for i := range 21 {
		many = append(many, fmt.Sprint("d", i))
	}
	for _, tt := range []struct{ name, text, want string }{
		{"home", pipelineText(repo + "cache: [~/.npm]\n"), `5:13: pipelines.p.cache: a directory of the workspace is wanted here, not "~/.npm": have the tool keep its files there`},
		{"absolute", pipelineText(repo + "cache: [/root/.npm]\n"), `a directory of the workspace is wanted here, not "/root/.npm"`},
		{"variable", pipelineText(repo + "cache: [$HOME/.npm]\n"), `a directory of the workspace is wanted here, not "$HOME/.npm"`},
		{"out of it", pipelineText(repo + "cache: [a/../../b]\n"), `a directory below the workspace is wanted here, like node_modules, not "a/../../b"`},
		{"the workspace", pipelineText(repo + "cache: [.]\n"), `a directory below the workspace is wanted here, like node_modules, not "."`},
		{"a glob", pipelineText(repo + "cache: ['packages/*/node_modules']\n"), "no globs are known here"},
		{"control characters", pipelineText(repo + "cache: [\"a\\nb\"]\n"), "a path without control characters is wanted here"},
		{"twice", pipelineText(repo + "cache: [a, a/]\n"), "pipelines.p.cache: a stands here twice"},
		{"within", pipelineText(repo + "cache: [a/b, a]\n"), "a/b and a are kept: one is within the other"},
		{"long", pipelineText(repo + "cache: [" + strings.Repeat("a", 1001) + "]\n"), "at most 1000 bytes are wanted here"},
		{"many", pipelineText(repo + "cache: [" + strings.Join(many, ", ") + "]\n"), "there are 21 directories, and 20 are the most"},
		{"a section", pipelineText(repo + "cache: { paths: [a] }\n"), "pipelines.p.cache: a text or a list of texts is wanted here, not a section"},
		{"no repository", pipelineText("cache: [a]\n"), "a cache is kept for a branch, and for other refs: repository is missing"},
		{"expression", pipelineText(repo + "cache: ['${{ branch }}']\n"), "${{ }} has no meaning here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := problemsOf(t, tt.text); len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	w := warningsOf(parsed(t, hooksPart+"pipelines: { p: { repository: github.com/a/b, cache: [a], on: { push: { branches: [main] } }, jobs: { d: { release: /srv/a } } } }\n"))
	if !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "only test jobs have a cache") }) {
		t.Errorf("the warnings are %q", w)
	}
}
