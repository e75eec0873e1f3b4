package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// dialError says why there is no connection to a host.
func (p *hop) dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return unreachable(fmt.Sprintf("the name %s is not known: correct %s, or DNS", p.host, p.place))
	case errors.As(err, &dns):
		return unreachable(fmt.Sprintf("the name %s cannot be looked up: %s", p.host, line(dns.Err, textMost)))
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreachable(fmt.Sprintf("%s refuses the connection: is the machine up, and does sshd listen on port %d?", p.addr(), p.port))
	case errors.As(err, &timeout) && timeout.Timeout():
		return unreachable(fmt.Sprintf("%s does not answer: is the machine up, and does a firewall let port %d through?", p.addr(), p.port))
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return unreachable(fmt.Sprintf("%s cannot be reached: %s", p.addr(), line(err.Error(), textMost)))
}

// forwardError says why a jump host does not lead on.
func (p *hop) forwardError(ctx context.Context, from *hop, err error) error {
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		return fmt.Errorf("the jump host %s may not lead to %s: its sshd needs AllowTcpForwarding yes, and PermitOpen for it", from.name, p.addr())
	case errors.As(err, &refused):
		return unreachable(fmt.Sprintf("the jump host %s cannot reach %s: %s", from.name, p.addr(), line(refused.Message, textMost)))
	}
	return p.lostError(ctx, err)
}

// lostError is a connection that ended while something was waited for.
func (p *hop) lostError(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil:
		return unreachable(fmt.Sprintf("%s took over %v to let deployhook in", p.addr(), loginTime))
	}
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, cut) {
			return unreachable(fmt.Sprintf("%s ended the connection before it let deployhook in: the log of its sshd says why", p.addr()))
		}
	}
	return unreachable(fmt.Sprintf("%s: %s", p.addr(), line(err.Error(), textMost)))
}

// shakeError says why a host does not let deployhook in, or is not trusted.
func (p *hop) shakeError(ctx context.Context, login *login, err error) error {
	var key *HostKeyError
	var algorithm *ssh.AlgorithmNegotiationError
	text := err.Error()
	switch {
	case errors.As(err, &key):
		return key
	case errors.As(err, &algorithm):
		return fmt.Errorf("%s and deployhook have no algorithm in common (%s): its sshd is too old, or allows too few", p.addr(), line(algorithm.What, textMost))
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "Too many authentication failures"):
		return login.refused(p, strings.Contains(text, "Too many"))
	}
	return p.lostError(ctx, err)
}
