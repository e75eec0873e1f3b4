// Command course-platform is an example: a small application that sells courses,
// a payment service that tells of payments as Stripe does, and deployhook
// between them.
//
//	course-platform demo     all of it, on loopback, with what goes wrong too
//	course-platform serve    the application
//	course-platform apply    what the pipeline's step runs: enables or disables a course
//	course-platform pay      what the payment service sends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "course-platform:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("say what to do: demo, serve, apply or pay")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	file := flags.String("db", os.Getenv("COURSES_DB"), "the application's database")
	switch args[0] {
	case "demo":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return demo(ctx, out)
	case "serve":
		listen := flags.String("listen", "127.0.0.1:8485", "address of the application")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return serve(ctx, *file, *listen, os.Getenv("COURSES_TOLD_SECRET"), out)
	case "apply":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return apply(ctx, *file, out)
	case "pay":
		to := flags.String("to", "http://127.0.0.1:8484/hooks/payments", "where events go")
		student := flags.String("student", "ann", "who pays")
		course := flags.String("course", "go-101", "for what")
		refund := flags.Bool("refund", false, "the money goes back")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		ev := newPayment(*student, *course, *refund, time.Now())
		status, answer, err := ev.send(ctx, *to, os.Getenv("STRIPE_WEBHOOK_SECRET"), time.Now())
		if err == nil {
			fmt.Fprintf(out, "%d %s\n", status, answer)
		}
		return err
	}
	return fmt.Errorf("%q is nothing that it does: demo, serve, apply or pay", args[0])
}
