package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"deployhook/internal/deploy"
)

// Bounds of mail.
const (
	subjectMost = 150      // UTF-16 units
	mailMost    = 64 << 10 // UTF-16 units of its text
	sayMost     = 64 << 10 // bytes that a mail server may say, TLS included
)

// email sends mail over SMTP.
type email struct{ Deps }

func newEmail(d Deps) Sender { return email{d} }

func (e email) Send(ctx context.Context, m *Message) (Answer, error) {
	n, err := newsOf(m)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	body, err := mailOf(m, n)
	if err != nil {
		return Answer{Permanent: true}, err
	}
	password := ""
	if p := m.Spec.Email.Password; p != nil {
		if password, err = e.Secret(ctx, *p); err != nil {
			return Answer{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, SendTime)
	defer cancel()
	a, err := e.deliver(ctx, m.Spec.Email, password, body)
	a.Body = Hide(a.Body, password)
	if err != nil {
		// A server may say the password back.
		err = errors.New(strings.TrimSpace(string(Hide([]byte(err.Error()), password))))
		return a, fmt.Errorf("%s: %w", m.Spec.Email.Server, err)
	}
	return a, nil
}

// mailOf is the mail. All mails of a run have one subject and refer to one id,
// by which programs put them into one thread; that of a mail is the
// notification's own, so that a repeated one is known.
//
// Source: RFC 5322, section 3.6.4; RFC 3834, section 5.
func mailOf(m *Message, n news) ([]byte, error) {
	spec := m.Spec.Email
	msg := mail.NewMsg(mail.WithCharset(mail.CharsetUTF8), mail.WithEncoding(mail.EncodingQP))
	if err := msg.From(spec.From); err != nil {
		return nil, errors.New("from is not the address of a mailbox")
	}
	if err := msg.To(spec.To...); err != nil {
		return nil, errors.New("to is not the address of a mailbox")
	}
	msg.Subject(subjectOf(m.Run))
	msg.SetDateWithValue(m.Created)
	domain := domainOf(spec.From)
	msg.SetMessageIDWithValue(idPart(m.Key) + "@" + domain)
	thread := fmt.Sprintf("<run-%d.%s@%s>", m.Run.ID, idPart(m.Target), domain)
	msg.SetGenHeaderPreformatted("In-Reply-To", thread)
	msg.SetGenHeaderPreformatted("References", thread)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetUserAgent(UserAgent)
	msg.SetBodyString(mail.TypeTextPlain, n.write(plain(mailMost))+"\n")
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("making the mail: %w", err)
	}
	return b.Bytes(), nil
}

// subjectOf is the same for every mail of a run.
func subjectOf(r *deploy.Run) string {
	s := fmt.Sprintf("%s: run %d", r.Pipeline, r.ID)
	if title, _, _ := strings.Cut(strings.TrimSpace(r.Message), "\n"); title != "" {
		s += ": " + title
	}
	return cut(printable(s), subjectMost)
}

// domainOf is what follows the @ of an address.
func domainOf(from string) string {
	a, err := netmail.ParseAddress(from)
	if err != nil {
		return "deployhook.invalid"
	}
	return idPart(a.Address[strings.LastIndexByte(a.Address, '@')+1:])
}

// idPart leaves of a text what may stand in a part of a Message-ID.
func idPart(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x7f && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '-'
	}, s)
}

// bounded is a connection whose other end may say so much and no more: lines
// of SMTP have no bound of their own.
type bounded struct {
	net.Conn
	left int
}

var errSaysTooMuch = errors.New("the server says too much")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errSaysTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// deliver brings a mail to a server.
func (e email) deliver(ctx context.Context, spec *deploy.Email, password string, body []byte) (Answer, error) {
	host, _, err := net.SplitHostPort(spec.Server)
	if err != nil {
		return Answer{Permanent: true}, errors.New("this is not the address of a mail server")
	}
	dialer := &net.Dialer{Timeout: dialTime}
	tcp, err := dialer.DialContext(ctx, "tcp", spec.Server)
	if err != nil {
		return Answer{}, mailReason("connecting", err)
	}
	defer tcp.Close()
	// The end of ctx ends what is read and written.
	defer context.AfterFunc(ctx, func() { tcp.SetDeadline(time.Unix(1, 0)) })()
	var conn net.Conn = &bounded{tcp, sayMost}
	config := &tls.Config{ServerName: host, RootCAs: e.Roots, MinVersion: tls.VersionTLS12}
	if spec.TLS == "tls" {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return Answer{}, mailReason("TLS", err)
		}
		conn = secure
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return refused("the greeting", err)
	}
	defer c.Close()
	if err := c.Hello(localName()); err != nil {
		return refused("HELO", err)
	}
	if spec.TLS == "starttls" {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return Answer{Permanent: true}, errors.New("it offers no STARTTLS, and nothing goes there in the clear: write tls: tls for port 465")
		}
		if err := c.StartTLS(config); err != nil {
			return refused("STARTTLS", err)
		}
	}
	if spec.Username != "" {
		auth, err := authOf(c, spec, password, host)
		if err != nil {
			return Answer{Permanent: true}, err
		}
		if err := c.Auth(auth); err != nil {
			return refused("the login of "+spec.Username, err)
		}
	}
	return e.hand(c, spec, body)
}

// authOf is the best way to log in that server and client have.
func authOf(c *smtp.Client, spec *deploy.Email, password, host string) (smtp.Auth, error) {
	_, offered := c.Extension("AUTH")
	ways := strings.Fields(offered)
	clear := spec.TLS == "none" // then the server is this machine: check says so
	switch {
	case slices.Contains(ways, "SCRAM-SHA-256"):
		return smtp.ScramSHA256Auth(spec.Username, password), nil
	case slices.Contains(ways, "PLAIN"):
		return smtp.PlainAuth("", spec.Username, password, host, clear), nil
	case slices.Contains(ways, "LOGIN"):
		return smtp.LoginAuth(spec.Username, password, host, clear), nil
	}
	return nil, errors.New("it takes no login that is known here (SCRAM-SHA-256, PLAIN, LOGIN): leave out username and password, or name another server")
}

// hand gives a mail over. A receiver that is refused for good is left out, as
// long as another is not.
func (e email) hand(c *smtp.Client, spec *deploy.Email, body []byte) (Answer, error) {
	from, err := netmail.ParseAddress(spec.From)
	if err != nil {
		return Answer{Permanent: true}, errors.New("from is not the address of a mailbox")
	}
	if err := c.Mail(from.Address); err != nil {
		return refused("the sender "+from.Address, err)
	}
	var left []string
	var last error
	for _, to := range spec.To {
		a, err := netmail.ParseAddress(to)
		if err != nil {
			return Answer{Permanent: true}, errors.New("to is not the address of a mailbox")
		}
		if err := c.Rcpt(a.Address); err != nil {
			said, _ := refused("", err)
			if !said.Permanent {
				return refused("the receiver "+a.Address, err)
			}
			left, last = append(left, a.Address), err
		}
	}
	if len(left) == len(spec.To) {
		return refused("the receiver "+strings.Join(left, ", "), last)
	}
	w, err := c.Data()
	if err != nil {
		return refused("the mail", err)
	}
	if _, err := w.Write(body); err != nil {
		return refused("the mail", err)
	}
	if err := w.Close(); err != nil {
		return refused("the mail", err)
	}
	a := Answer{Status: 250, Body: []byte("250 taken")}
	if len(left) > 0 {
		why, _ := refused("", last)
		a.Body = Hide([]byte("250 taken, but not for " + strings.Join(left, ", ") + ": " + string(why.Body)))
		e.Log.Warn("a mail server refused some receivers", "server", spec.Server, "receivers", strings.Join(left, ", "))
	}
	// The mail is the server's now: how it says goodbye changes nothing.
	_ = c.Quit()
	return a, nil
}

// refused says what a server did not take. What it refuses with 5xx it refuses
// for good.
//
// Source: RFC 5321, section 4.2.1.
func refused(what string, err error) (Answer, error) {
	var said *textproto.Error
	if !errors.As(err, &said) {
		return Answer{}, mailReason(what, err)
	}
	text := oneLine(fmt.Sprintf("%d %s", said.Code, said.Msg))
	a := Answer{Status: said.Code, Body: Hide([]byte(text)), Permanent: said.Code >= 500}
	return a, fmt.Errorf("it refused %s: %s", what, text)
}

// oneLine makes a stranger's words one short line.
func oneLine(s string) string {
	return cut(strings.Join(strings.Fields(printable(s)), " "), errorMost)
}

// mailReason says why there was no answer.
func mailReason(what string, err error) error {
	var cert *tls.CertificateVerificationError
	var name *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &cert):
		return fmt.Errorf("its certificate cannot be verified: %s", oneLine(cert.Err.Error()))
	case errors.As(err, &name) && name.IsNotFound:
		return errors.New("there is no such name")
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, errSaysTooMuch):
		return errSaysTooMuch
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer in time (%s)", what)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection was closed without an answer (%s)", what)
	case errors.As(err, &op):
		return fmt.Errorf("%s: %s", what, oneLine(op.Err.Error()))
	}
	return fmt.Errorf("%s: %s", what, oneLine(err.Error()))
}

// localName is how a mail server is greeted.
func localName() string {
	name, err := os.Hostname()
	if name = idPart(name); err != nil || strings.Trim(name, "-.") == "" {
		return "localhost"
	}
	return name
}
