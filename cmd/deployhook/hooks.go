package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/config"
	"deployhook/internal/deploy"
)

func (a *app) hooksCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "hooks [COMMAND]",
		Short: "List the hooks: where they are, and who may send",
		Long: "List the hooks of deploy.yaml: the address to enter at the sender, how a\n" +
			"delivery is verified, who may send, with the age of published lists of\n" +
			"networks, and the pipelines that listen. The daemon need not run.",
		Example: "  deployhook hooks",
		Args: func(c *cobra.Command, words []string) error {
			if len(words) > 0 {
				var names []string
				for _, sub := range c.Commands() {
					names = append(names, sub.Name())
				}
				return misuse{fmt.Errorf("%q is not a word of hooks%s", words[0], deploy.DidYouMean(words[0], names))}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			f, err := config.Load(config.Find(a.config), nil)
			if err != nil {
				return err
			}
			list, err := hookViews(f)
			if asJSON {
				return cmp.Or(a.json(list), err)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.err, "there are no hooks")
				return nil
			}
			a.printHooks(list)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(a.hooksRangesCommand(), a.hooksTestCommand(), a.hooksSetupCommand())
	return c
}

// hookView is a hook as hooks --json prints it.
type hookView struct {
	Name      string      `json:"name"`
	Provider  string      `json:"provider"`
	URL       string      `json:"url"`
	Verified  []string    `json:"verified"`
	Allow     []string    `json:"allow"`
	Ranges    []rangeView `json:"ranges"`
	Pipelines []string    `json:"pipelines"`
}

// rangeView is a published list that a hook names.
type rangeView struct {
	Name     string     `json:"name"`
	Networks int        `json:"networks"`
	Fetched  *time.Time `json:"fetched"`
}

// hookViews reads the hooks of a file. Its error says which published lists
// are missing; the list is whole all the same.
func hookViews(f *config.File) ([]hookView, error) {
	list := []hookView{}
	var ranges config.Ranges
	var missing error
	if names := config.RangesOf(f.Deploy); len(names) > 0 {
		var err error
		ranges, err = config.ReadRanges(f.Server.Data)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			missing = err
		}
		for _, name := range names {
			if err == nil && len(ranges[name].Networks) == 0 || errors.Is(err, fs.ErrNotExist) {
				missing = hinted{fmt.Errorf("the networks of %s are not here yet: the daemon does not start without them", name), "deployhook hooks ranges"}
			}
		}
	}
	for i := range f.Deploy.Hooks {
		h := &f.Deploy.Hooks[i]
		v := hookView{
			Name: h.Name, Provider: h.Provider, URL: hookURL(f, h), Verified: verification(h), Allow: []string{}, Ranges: []rangeView{},
			Pipelines: f.Deploy.Listening(h),
		}
		for _, p := range h.Allow {
			v.Allow = append(v.Allow, p.String())
		}
		for _, name := range h.Ranges {
			r := rangeView{Name: name, Networks: len(ranges[name].Networks)}
			if r.Networks > 0 {
				r.Fetched = orNull(ranges[name].Fetched)
			}
			v.Ranges = append(v.Ranges, r)
		}
		list = append(list, v)
	}
	return list, missing
}

// hookURL is the address of a hook for its sender. A token in it is theirs to add.
func hookURL(f *config.File, h *deploy.Hook) string {
	base := f.Server.URL
	if base == "" {
		base = "http://" + f.Server.Listen
		if f.Server.TLS.On() {
			base = "https://" + f.Server.Listen
		}
	}
	return strings.TrimSuffix(base, "/") + "/hooks/" + h.Name
}

// verification says how a delivery proves where it comes from; all of it is
// needed.
func verification(h *deploy.Hook) []string {
	list := []string{}
	if len(h.Secrets) > 0 {
		text := map[string]string{
			"github": "HMAC-SHA256 in X-Hub-Signature-256", "gitea": "HMAC-SHA256 in X-Gitea-Signature", "forgejo": "HMAC-SHA256 in X-Gitea-Signature",
			"gogs": "HMAC-SHA256 in X-Gogs-Signature", "bitbucket": "HMAC-SHA256 in X-Hub-Signature", "azure": "user and password",
			"standard": "Standard Webhooks in webhook-signature", "stripe": "Stripe's in Stripe-Signature",
			"generic": "HMAC-" + strings.ToUpper(h.Signature.Algorithm) + " in " + h.Signature.Header,
		}[h.Provider]
		list = append(list, text+oneOf(len(h.Secrets)))
	}
	if len(h.Tokens) > 0 {
		text := "token"
		if h.Provider == "gitlab" {
			text = "token in X-Gitlab-Token"
		}
		list = append(list, text+oneOf(len(h.Tokens)))
	}
	return list
}

func oneOf(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(", one of %d secrets", n)
}

// printHooks prints hooks below each other: an address does not fit into a table.
func (a *app) printHooks(list []hookView) {
	for i, h := range list {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s (%s)\n", h.Name, h.Provider)
		fmt.Fprintf(a.out, "  address   %s\n", h.URL)
		fmt.Fprintf(a.out, "  verified  %s\n", strings.Join(h.Verified, "; "))
		var allowed []string
		for _, r := range h.Ranges {
			text := r.Name + " (not fetched yet)"
			if r.Fetched != nil {
				text = fmt.Sprintf("%s (%s, fetched %s)", r.Name, counted(r.Networks, "network"), ago(*r.Fetched, time.Now()))
				if config.RangesOld(*r.Fetched, time.Now()) {
					text += ": fetch them anew with deployhook hooks ranges"
				}
			}
			allowed = append(allowed, text)
		}
		if allowed = append(allowed, h.Allow...); len(allowed) == 0 {
			allowed = []string{"everybody"}
		}
		fmt.Fprintf(a.out, "  allowed   %s\n", strings.Join(allowed, ", "))
		fmt.Fprintf(a.out, "  starts    %s\n", cmp.Or(strings.Join(h.Pipelines, ", "), "nothing"))
	}
}
