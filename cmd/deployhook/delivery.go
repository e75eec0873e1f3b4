package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) deliveryCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:               "delivery DELIVERY",
		Short:             "Show one webhook delivery",
		Example:           "  deployhook delivery 17",
		Args:              args("DELIVERY"),
		ValidArgsFunction: a.completeDeliveries,
		RunE: func(c *cobra.Command, args []string) error {
			cl, n, err := a.clientFor(args[0])
			if err != nil {
				return err
			}
			d, err := cl.Delivery(c.Context(), n)
			if err != nil {
				return err
			}
			if asJSON {
				return a.json(d)
			}
			fmt.Fprintf(a.out, "delivery %d of hook %s\n", d.ID, d.Hook)
			fmt.Fprintf(a.out, "  event     %s\n", plain(&d.Event))
			if d.Delivery != nil {
				fmt.Fprintf(a.out, "  id        %s\n", plain(d.Delivery))
			}
			fmt.Fprintf(a.out, "  received  %s\n", moment(d.Received))
			fmt.Fprintf(a.out, "  runs      %s\n", numbers(d.Runs))
			fmt.Fprintf(a.out, "  answer    %s\n", plain(&d.Message))
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
