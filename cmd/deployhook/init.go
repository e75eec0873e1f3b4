package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"deployhook/internal/setup"
	"deployhook/systemd"
)

// initFlags are what init was started with.
type initFlags struct {
	answers setup.Answers
	admin   string
	dryRun  bool
	remove  bool
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "Set this server up: users, secrets, units, a first deploy.yaml",
		Long: "Make all that a server needs: users and directories, a webhook secret and a\n" +
			"deploy key, the line for sudo, units, and a first deploy.yaml; start the\n" +
			"daemon, and print what to type into GitHub's forms. At a terminal it asks\n" +
			"for what the flags do not say. What is there already stays as it is: it may\n" +
			"be run again, after a change of deploy.yaml too. --remove takes it back.",
		Example: "  sudo deployhook init\n" +
			"  deployhook init --dry-run --repository github.com/acme/shop\n" +
			"  sudo deployhook init --remove",
		Args:              args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return a.setUp(c.Context(), c, &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.answers.Repository, "repository", "", "repository, like github.com/acme/shop")
	flags.StringVar(&f.answers.Branch, "branch", "", "branch whose pushes are deployed (default main)")
	flags.BoolVar(&f.answers.Public, "public", false, "the repository needs no deploy key")
	flags.StringVar(&f.answers.Name, "name", "", "name of the pipeline (default the repository's)")
	flags.StringVar(&f.answers.Path, "path", "", "where releases go (default /srv/NAME)")
	flags.StringVar(&f.answers.Test, "test", "", "command of the test job (default no test job)")
	flags.StringVar(&f.answers.Build, "build", "", "command in the new release, before it is live")
	flags.StringVar(&f.answers.Restart, "restart", "", "command after the switch to the new release")
	flags.StringVar(&f.answers.URL, "url", "", "address of this server, like https://deploy.example.com")
	flags.StringVar(&f.admin, "admin", os.Getenv("SUDO_USER"), "user who may use the command line (default who uses sudo)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show every file and command, and change nothing")
	flags.BoolVar(&f.remove, "remove", false, "take back what init has made, and say what stays")
	flags.Lookup("admin").DefValue = ""
	c.MarkFlagsMutuallyExclusive("remove", "repository")
	return c
}

// setUp carries init out.
func (a *app) setUp(ctx context.Context, c *cobra.Command, f *initFlags) error {
	if a.config != "" && a.config != setup.Config {
		return misuse{fmt.Errorf("init makes %s, which the units name: --config has no meaning here", setup.Config)}
	}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	m := &setup.Machine{Binary: self, Units: systemd.Units, Run: setup.Exec}
	if !f.dryRun {
		if err := able(m); err != nil {
			return err
		}
	}
	if f.remove {
		return a.takeBack(ctx, m, f.dryRun)
	}
	plan, err := a.planned(ctx, c, m, f)
	if err != nil {
		return err
	}
	if f.dryRun {
		a.showPlan(plan)
		if !m.HasSystemd() {
			fmt.Fprintln(a.err, "deployhook: this machine is not run by systemd: here init could only show this")
		}
		return nil
	}
	if plan.Lacks != nil {
		return hinted{plan.Lacks, "then deployhook init again; nothing was changed"}
	}
	if err := plan.Do(ctx, func(x setup.Action) { fmt.Fprintln(a.out, x.Text) }); err != nil {
		return hinted{err, "what was made until here stays; deployhook init goes on from there, deployhook init --remove takes it back"}
	}
	if err := a.afterSetUp(plan); err != nil {
		return err
	}
	a.config = setup.Config // not a deploy.yaml that stands where init was typed
	a.lookAfter(ctx)
	return nil
}

// able says why init cannot change this machine.
func able(m *setup.Machine) error {
	switch {
	case !m.HasSystemd():
		return hinted{errors.New("this machine is not run by systemd, which init sets deployhook up for"),
			"let what runs services here run: deployhook serve --config deploy.yaml; deployhook init --dry-run shows what init would make"}
	case os.Geteuid() != 0:
		return hinted{errors.New("init makes users and units, and only root may"), "sudo deployhook init; deployhook init --dry-run shows what it would do"}
	}
	return nil
}

// planned makes the plan, and asks for what it needs where somebody can answer.
func (a *app) planned(ctx context.Context, c *cobra.Command, m *setup.Machine, f *initFlags) (*setup.Plan, error) {
	given := ""
	for _, name := range []string{"repository", "branch", "public", "name", "path", "test", "build", "restart", "url"} {
		if c.Flags().Changed(name) {
			given = "--" + name
		}
	}
	o := setup.Options{Admin: f.admin}
	if given != "" {
		o.Answers = &f.answers
	}
	plan, err := m.Plan(ctx, o)
	if errors.Is(err, setup.ErrNoRepository) && terminal(os.Stdin) && terminal(a.err) {
		if err := a.ask(os.Stdin, &f.answers); err != nil {
			return nil, err
		}
		o.Answers = &f.answers
		plan, err = m.Plan(ctx, o)
	}
	if errors.Is(err, setup.ErrNoRepository) {
		return nil, misuse{errors.New("which repository is to be deployed? give --repository github.com/OWNER/NAME, and what else deployhook init --help names")}
	}
	if err != nil {
		return nil, err
	}
	if plan.Kept && given != "" {
		fmt.Fprintf(a.err, "deployhook: %s is there and stays as it is: %s and its like have no effect\n", setup.Config, given)
	}
	return plan, nil
}

// ask asks for the answers that no flag has given. An empty line is the answer
// in brackets.
func (a *app) ask(r io.Reader, to *setup.Answers) error {
	in := bufio.NewReader(io.LimitReader(r, 64<<10))
	q := func(question, def string, answer *string) error {
		if *answer != "" {
			return nil
		}
		fmt.Fprintf(a.err, "%s", question)
		if def != "" {
			fmt.Fprintf(a.err, " [%s]", def)
		}
		fmt.Fprint(a.err, ": ")
		line, err := in.ReadString('\n')
		if err != nil {
			fmt.Fprintln(a.err)
			return errors.New("no answer: nothing was changed")
		}
		if *answer = strings.TrimSpace(line); *answer == "" {
			*answer = def
		}
		return nil
	}
	private := ""
	if to.Public {
		private = "no"
	}
	for to.Repository == "" {
		if err := q("Repository (github.com/OWNER/NAME)", "", &to.Repository); err != nil {
			return err
		}
	}
	err := errors.Join(q("Is it private? (it gets a deploy key then)", "yes", &private))
	to.Public = strings.HasPrefix(strings.ToLower(private), "n")
	name := strings.TrimSuffix(to.Repository[strings.LastIndexAny(to.Repository, "/:")+1:], ".git")
	for _, x := range []struct {
		question, def string
		answer        *string
	}{
		{"Branch whose pushes are deployed", "main", &to.Branch},
		{"Where releases go", "/srv/" + name, &to.Path},
		{"Command that tests it (empty: none)", "", &to.Test},
		{"Command that prepares a new release (empty: none)", "", &to.Build},
		{"Command that restarts it, like sudo systemctl restart " + name + " (empty: none)", "", &to.Restart},
		{"Address of this server, like https://deploy.example.com (empty: not yet)", "", &to.URL},
	} {
		if err == nil {
			err = q(x.question, x.def, x.answer)
		}
	}
	return err
}

// showPlan prints every file and command of a plan.
func (a *app) showPlan(plan *setup.Plan) {
	for _, x := range plan.Actions {
		if x.Done {
			fmt.Fprintf(a.out, "%s   is there\n", x.Text)
			continue
		}
		fmt.Fprintln(a.out, x.Text)
		for _, l := range x.Shown {
			fmt.Fprintf(a.out, "  | %s\n", l)
		}
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(a.err, "note:", n)
	}
	if plan.Lacks != nil {
		fmt.Fprintln(a.err, "note:", plan.Lacks)
	}
	fmt.Fprintf(a.err, "deployhook: %s to do; nothing was changed\n", counted(plan.Todo(), "thing"))
}

// afterSetUp prints what a person has to do now.
func (a *app) afterSetUp(plan *setup.Plan) error {
	if plan.Todo() == 0 {
		fmt.Fprintln(a.out, "Everything is there already; nothing was changed.")
	}
	fmt.Fprintln(a.out)
	for _, l := range plan.Forge(terminal(a.out)) {
		fmt.Fprintln(a.out, strings.TrimRight(l, " "))
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(a.out, "Note:", n)
	}
	if first := plan.First(); first != "" {
		fmt.Fprintln(a.out, "A first deploy, before the first push:", first)
	}
	return nil
}

// takeBack carries init --remove out.
func (a *app) takeBack(ctx context.Context, m *setup.Machine, dryRun bool) error {
	r, err := m.Removal()
	if err != nil {
		return err
	}
	if dryRun {
		for _, x := range r.Actions {
			fmt.Fprintln(a.out, x.Text)
		}
	} else {
		err = r.Do(ctx, func(x setup.Action) { fmt.Fprintln(a.out, x.Text) })
	}
	for _, l := range r.Leaves {
		fmt.Fprintln(a.out, "leaves    ", l)
	}
	if dryRun {
		fmt.Fprintln(a.err, "deployhook: nothing was changed")
	}
	return err
}
