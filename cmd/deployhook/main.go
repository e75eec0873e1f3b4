// Command deployhook deploys to your own servers from signed webhooks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitMisused     = 2
	exitInterrupted = 130
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// misuse is a command that cannot mean anything as it was given.
type misuse struct{ err error }

func (m misuse) Error() string { return m.err.Error() }

// hinted is an error with what to do about it.
type hinted struct {
	err  error
	hint string
}

func (h hinted) Error() string { return h.err.Error() }
func (h hinted) Unwrap() error { return h.err }

// errSilent is a failure whose words are out already.
var errSilent = errors.New("")

// app is what all commands share.
type app struct {
	config string
	out    io.Writer
	err    io.Writer
	root   *cobra.Command
}

// run carries out a command line and gives its exit code: the one place where
// errors become one.
func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second ctrl-C ends everything at once
	results := &results{w: out}
	a := &app{out: results, err: errOut}
	a.root = a.rootCommand()
	a.root.SetArgs(args)
	a.root.SetOut(results)
	a.root.SetErr(errOut)
	used, err := a.root.ExecuteContextC(ctx)
	if werr := results.failed(); werr != nil {
		err = werr
	}
	if err == nil {
		return exitDone
	}
	code := exitFailed
	if errors.As(err, new(misuse)) || errors.Is(err, deploy.ErrMisuse) {
		code = exitMisused
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if errors.Is(err, errSilent) {
		return code
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(errOut, "deployhook: %s\n", plain(&line))
	}
	if h := hint(err); h != "" {
		fmt.Fprintf(errOut, "deployhook: hint: %s\n", plain(&h))
	} else if code == exitMisused && used == a.root {
		fmt.Fprintln(errOut, "deployhook: hint: deployhook help lists the commands")
	} else if code == exitMisused {
		fmt.Fprintf(errOut, "deployhook: hint: %s --help shows how it is used\n", used.CommandPath())
	}
	return code
}

// hint says what to do about an error; empty when nothing is known.
func hint(err error) string {
	var h hinted
	var gone *web.Unreachable
	var answered *web.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &gone):
		return gone.Hint
	case errors.As(err, &answered):
		return answered.Hint
	}
	return ""
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "deployhook",
		Short: "Deploys to your own servers from signed webhooks",
		Long: "deployhook takes a signed webhook, runs a test job on exactly the pushed\n" +
			"commit, and only then a deploy job that publishes it and restarts the\n" +
			"application.",
		Example:       "  deployhook check\n  deployhook serve\n  deployhook runs",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return a.noCommand(args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&a.config, "config", "", "deploy.yaml (default: $DEPLOYHOOK_CONFIG, ./deploy.yaml, /etc/deployhook/deploy.yaml)")
	completes(root, "config", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{err} })
	root.SetUsageTemplate(usage)
	root.CompletionOptions.DisableDefaultCmd = true
	help := a.helpCommand()
	root.SetHelpCommand(help)
	root.AddCommand(
		a.initCommand(), a.serveCommand(), a.agentCommand(), a.checkCommand(), a.doctorCommand(), a.reloadCommand(), a.schemaCommand(), a.versionCommand(), a.completionCommand(), help,
		a.triggerCommand(), a.runsCommand(), a.runCommand(), a.logsCommand(), a.cancelCommand(), a.retryCommand(),
		a.releasesCommand(), a.rollbackCommand(), a.holdCommand(), a.unholdCommand(), a.lockCommand(), a.unlockCommand(),
		a.deliveriesCommand(), a.deliveryCommand(), a.replayCommand(), a.explainCommand(), a.adoptCommand(), a.cacheCommand(), a.hooksCommand(),
		a.tokenCommand(),
	)
	grouped(root)
	return root
}
