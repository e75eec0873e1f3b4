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

	"deployhook/internal/config"
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
	a := &app{out: out, err: errOut}
	a.root = a.rootCommand()
	a.root.SetArgs(args)
	a.root.SetOut(out)
	a.root.SetErr(errOut)
	err := a.root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var m misuse
	var daemon *web.Error
	if errors.As(err, &m) || errors.As(err, &daemon) && daemon.Misuse {
		code = exitMisused
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if errors.Is(err, errSilent) {
		return code
	}
	for line := range strings.Lines(trimWords(err.Error())) {
		fmt.Fprintf(errOut, "deployhook: %s\n", strings.TrimRight(line, "\n"))
	}
	var h hinted
	var gone *web.Unreachable
	switch {
	case errors.As(err, &h):
		fmt.Fprintf(errOut, "deployhook: hint: %s\n", h.hint)
	case errors.As(err, &gone):
		fmt.Fprintln(errOut, "deployhook: hint: is it running? systemctl status deployhook, or: deployhook serve")
	case code == exitMisused:
		fmt.Fprintln(errOut, "deployhook: hint: deployhook help lists the commands; --help after one shows how it is used")
	}
	return code
}

// trimWords leaves out the words by which the parts tell errors apart.
func trimWords(s string) string {
	for _, w := range []string{"misuse: ", "refused: ", "locked: "} {
		s = strings.Replace(s, w, "", 1)
	}
	return s
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "deployhook",
		Short:         "Deploys to your own servers from signed webhooks",
		Long:          "deployhook takes a signed webhook, runs a test job on exactly the pushed commit, and\nonly then a deploy job that publishes it and restarts the application.",
		Example:       "  deployhook check\n  deployhook serve\n  deployhook runs",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse{fmt.Errorf("there is no command %q", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&a.config, "config", "", "deploy.yaml (default: $DEPLOYHOOK_CONFIG, ./deploy.yaml, /etc/deployhook/deploy.yaml)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		a.serveCommand(), a.agentCommand(), a.checkCommand(), a.reloadCommand(), a.schemaCommand(), a.versionCommand(),
		a.triggerCommand(), a.runsCommand(), a.runCommand(), a.logsCommand(), a.cancelCommand(), a.retryCommand(),
		a.releasesCommand(), a.rollbackCommand(), a.holdCommand(), a.unholdCommand(), a.lockCommand(), a.unlockCommand(),
		a.deliveriesCommand(), a.deliveryCommand(), a.replayCommand(), a.explainCommand(),
	)
	return root
}

// args is a number of arguments, by their names in the message.
func args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return misuse{fmt.Errorf("%s is missing", names[len(args)])}
		}
		if len(args) > len(names) {
			return misuse{fmt.Errorf("%q is one word too many", args[len(names)])}
		}
		return nil
	}
}

// client talks to the daemon whose config this is.
func (a *app) client() (*web.Client, error) {
	socket := os.Getenv("DEPLOYHOOK_SERVER_SOCKET")
	if socket == "" {
		path := config.Find(a.config)
		f, err := config.Load(path, nil)
		if err != nil {
			return nil, hinted{fmt.Errorf("finding the control socket in %s: %w", path, err), "name the config of the running daemon with --config"}
		}
		socket = f.Server.Socket
	}
	return web.Dial(socket), nil
}
