package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"deployhook/internal/deploy"
	"deployhook/internal/web"
)

func (a *app) notificationsCommand() *cobra.Command {
	var q web.Query
	var asJSON, failed bool
	c := &cobra.Command{
		Use:   "notifications [NOTIFICATION]",
		Short: "List what is told to others, or show one with its tries",
		Long: "List what is told to others: what waits, what has arrived and what could not be\n" +
			"sent. With a number, show that one with each try, the status and the first KiB\n" +
			"of the answer.",
		Example:           "  deployhook notifications --failed\n  deployhook notifications 17",
		Args:              args("[NOTIFICATION]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showNotification(c, args[0], asJSON)
			}
			if err := checkPage(c, q); err != nil {
				return err
			}
			if failed {
				q.State = string(deploy.Failed)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			list, err := cl.Notifications(c.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(a.err, "there are no such notifications")
				return nil
			}
			rows := [][]string{{"ID", "TARGET", "TYPE", "STATE", "TRIES", "WHEN", "ERROR"}}
			for i := range list {
				n := &list[i]
				rows = append(rows, []string{fmt.Sprint(n.ID), plain(&n.Target), plain(&n.Type), n.State, fmt.Sprint(n.Attempts), ago(n.Created, time.Now()), plain(n.Error)})
			}
			table(a.out, a.state, rows)
			if last := list[len(list)-1].ID; len(list) == q.Limit && last > 1 {
				a.older(last)
			}
			return nil
		},
	}
	listFlags(c, &q, &asJSON)
	c.Flags().BoolVar(&failed, "failed", false, "only what could not be sent")
	c.Flags().StringVar(&q.Target, "target", "", "only to this target: PIPELINE/NAME, or targets//NAME")
	completes(c, "target", cobra.NoFileCompletions)
	c.AddCommand(a.resendCommand())
	return c
}

func (a *app) showNotification(c *cobra.Command, arg string, asJSON bool) error {
	cl, id, err := a.clientFor(arg)
	if err != nil {
		return err
	}
	n, err := cl.Notification(c.Context(), id)
	if err != nil {
		return err
	}
	if asJSON {
		return a.json(n)
	}
	about := "an event"
	switch {
	case n.Run != nil:
		about = fmt.Sprintf("run %d", *n.Run)
	case n.Event != nil:
		about = fmt.Sprintf("event %d", *n.Event)
	}
	fmt.Fprintf(a.out, "notification %d to %s: %s\n", n.ID, plain(&n.Target), a.state(n.State))
	fmt.Fprintf(a.out, "  about    %s, %s\n", about, plain(&n.Type))
	fmt.Fprintf(a.out, "  id       %s\n", n.Key)
	fmt.Fprintf(a.out, "  created  %s\n", moment(n.Created))
	if n.Next != nil && n.State == string(deploy.Waiting) {
		fmt.Fprintf(a.out, "  next     %s\n", moment(*n.Next))
	}
	if n.Error != nil {
		fmt.Fprintf(a.out, "  error    %s\n", plain(n.Error))
	}
	for i := range n.Tries {
		t := &n.Tries[i]
		result := plain(&t.Error)
		if result == "" {
			result = fmt.Sprintf("answered %d", t.Status)
		}
		fmt.Fprintf(a.out, "  try      %s, %v: %s\n", moment(t.At), time.Duration(t.TookMS)*time.Millisecond, result)
		for line := range strings.Lines(t.Answer) {
			fmt.Fprintf(a.out, "           %s\n", plain(&line))
		}
	}
	return nil
}

func (a *app) resendCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "resend NOTIFICATION",
		Short: "Send a notification again, now",
		Long: "Send a notification again, now: one that waits before its time, one that could\n" +
			"not be sent for three days more. It keeps its id, by which a receiver that has\n" +
			"it already drops it.",
		Example:           "  deployhook notifications resend 17",
		Args:              args("NOTIFICATION"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			text, err := cl.Resend(c.Context(), n)
			if err == nil {
				fmt.Fprintln(a.out, text)
			}
			return err
		},
	}
	return c
}
