package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// tokenWords are what token takes as its first word.
var tokenWords = []string{"create", "list", "revoke"}

func (a *app) tokenCommand() *cobra.Command {
	var pipelines, actions []string
	var expires string
	var asJSON bool
	c := &cobra.Command{
		Use:   "token create NAME | list | revoke NAME",
		Short: "Make, list or revoke tokens of the API",
		Long: "Tokens let programs use the API on the public address: start and read runs, and\n" +
			"hand in events of an application. token create prints the value, once: what is\n" +
			"kept is its hash. Without --pipeline the token is for all pipelines, without\n" +
			"--action it starts runs. token list shows what each is for and when it was last\n" +
			"used; token revoke ends one at once, by its name or its number.",
		Example: "  deployhook token create ci --pipeline shop --action run --expires 90d\n" +
			"  deployhook token list\n  deployhook token revoke ci",
		Args: func(c *cobra.Command, words []string) error { return tokenArgs(c, words) },
		RunE: func(c *cobra.Command, words []string) error {
			q := web.TokenCommand{Pipelines: pipelines}
			for _, s := range actions {
				q.Actions = append(q.Actions, deploy.Action(s))
			}
			life, err := lifetime(expires)
			if err != nil {
				return misuse{err}
			}
			q.Expires = int64(life / time.Second)
			cl, err := a.client()
			if err != nil {
				return err
			}
			switch words[0] {
			case "create":
				q.Name = words[1]
				return a.createToken(c.Context(), cl, q, asJSON)
			case "revoke":
				text, err := cl.RevokeToken(c.Context(), words[1])
				if err == nil {
					fmt.Fprintln(a.err, text)
				}
				return err
			}
			list, err := cl.Tokens(c.Context())
			if err != nil {
				return err
			}
			return a.printTokens(list, asJSON)
		},
	}
	c.ValidArgsFunction = func(c *cobra.Command, words []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, func(ctx context.Context) (names []cobra.Completion) {
			switch {
			case len(words) == 0:
				return tokenWords
			case words[0] != "revoke" || len(words) > 1:
				return nil
			}
			cl, err := a.client()
			if err != nil {
				return nil
			}
			list, _ := cl.Tokens(ctx)
			for _, t := range list {
				if t.Revoked.IsZero() {
					names = append(names, cobra.CompletionWithDesc(t.Name, tokenUse(t)))
				}
			}
			return names
		})
	}
	c.Flags().StringArrayVar(&pipelines, "pipeline", nil, "create: only for this pipeline, as often as needed")
	c.Flags().StringArrayVar(&actions, "action", []string{string(deploy.ActionRun)}, "create: what it may do: "+strings.Join(deploy.Actions, ", ")+"; as often as needed")
	c.Flags().StringVar(&expires, "expires", "", "create: when it ends: 90d, 12h (default: never)")
	c.Flags().BoolVar(&asJSON, "json", false, "create, list: print JSON")
	a.completeFromConfig(c, "pipeline", pipelineNames)
	completes(c, "action", cobra.FixedCompletions(deploy.Actions, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// tokenArgs checks which words and flags go together.
func tokenArgs(c *cobra.Command, words []string) error {
	if len(words) == 0 {
		return misuse{errors.New("create, list or revoke is missing")}
	}
	names := []string{words[0], "NAME"}
	switch words[0] {
	case "create":
	case "list":
		names = names[:1]
	case "revoke":
		if c.Flags().Changed("json") {
			return misuse{errors.New("--json goes with token create and token list")}
		}
	default:
		return misuse{fmt.Errorf("%q is not a word of token%s", words[0], deploy.DidYouMean(words[0], tokenWords))}
	}
	for _, f := range []string{"pipeline", "action", "expires"} {
		if words[0] != "create" && c.Flags().Changed(f) {
			return misuse{fmt.Errorf("--%s goes with token create", f)}
		}
	}
	return args(names...)(c, words)
}

// lifetime reads how long a token counts: days as 90d, else a duration. Empty
// is 0, for ever.
func lifetime(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("--expires wants a time like 90d or 12h, not %q", s)
	}
	return d, nil
}

func (a *app) createToken(ctx context.Context, cl *web.Client, q web.TokenCommand, asJSON bool) error {
	t, err := cl.CreateToken(ctx, q)
	if err != nil {
		return err
	}
	if asJSON {
		err = a.json(t)
	} else {
		_, err = fmt.Fprintln(a.out, t.Value)
	}
	a.say(fmt.Sprintf("token %s (%d), %s: this is the only time that its value is shown", t.Name, t.ID, tokenUse(t.Token)))
	return err
}

// tokenUse says what a token is for.
func tokenUse(t deploy.Token) string {
	var actions []string
	for _, a := range t.Actions {
		actions = append(actions, string(a))
	}
	return strings.Join(actions, ", ") + " of " + tokenPipelines(t)
}

func tokenPipelines(t deploy.Token) string {
	if len(t.Pipelines) == 0 {
		return "all pipelines"
	}
	return strings.Join(t.Pipelines, ", ")
}

func (a *app) printTokens(list []deploy.Token, asJSON bool) error {
	if asJSON {
		return a.json(list)
	}
	if len(list) == 0 {
		fmt.Fprintln(a.err, "there are no tokens; deployhook token create NAME makes one")
		return nil
	}
	now := time.Now()
	rows := [][]string{{"ID", "NAME", "LAST USED", "ENDS", "BY", "FOR"}}
	for _, t := range list {
		used := "never"
		if !t.Used.IsZero() {
			used = ago(t.Used, now)
		}
		rows = append(rows, []string{fmt.Sprint(t.ID), t.Name, used, tokenEnd(t, now), plain(&t.Actor), tokenUse(t)})
	}
	table(a.out, func(s string) string { return s }, rows)
	return nil
}

// tokenEnd says until when a token counts, or why it does not.
func tokenEnd(t deploy.Token, now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked"
	case t.Expires.IsZero():
		return "never"
	case !t.Valid(now):
		return "expired"
	}
	return t.Expires.UTC().Format("2006-01-02")
}
