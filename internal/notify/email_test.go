package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"deployhook/internal/deploy"
)

// mailIsWhole looks at a mail as a mail program does: no header but ours.
func mailIsWhole(t *testing.T, m *Message, n news) (header netmail.Header, body string) {
	t.Helper()
	b, err := mailOf(m, n)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := netmail.ReadMessage(strings.NewReader(string(b)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	ours := map[string]bool{
		"From": true, "To": true, "Subject": true, "Date": true, "Message-Id": true, "In-Reply-To": true, "References": true, "Auto-Submitted": true,
		"User-Agent": true, "X-Mailer": true, "Mime-Version": true, "Content-Type": true, "Content-Transfer-Encoding": true,
	}
	for name, values := range msg.Header {
		if !ours[name] || len(values) != 1 {
			t.Errorf("header %s: %q", name, values)
		}
	}
	for line := range strings.SplitSeq(string(b), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("a line of %d bytes: %.100q", len(line), line)
		}
	}
	text, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil || width(subject) > subjectMost || strings.ContainsAny(subject, "\r\n") {
		t.Errorf("subject %q, %v", subject, err)
	}
	return msg.Header, strings.ReplaceAll(string(text), "\r\n", "\n")
}

// mailServer is a real SMTP server that may refuse.
type mailServer struct {
	address string
	roots   *x509.CertPool
	mu      sync.Mutex
	refuse  map[string]error // by MAIL, RCPT address, DATA or AUTH
	mails   []gotMail
	logins  []string
}

type gotMail struct {
	from string
	to   []string
	text string
	tls  bool
}

func (s *mailServer) refusal(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuse[what]
}

func (s *mailServer) set(refuse map[string]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse, s.mails = refuse, nil
}

func (s *mailServer) got() []gotMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

type mailSession struct {
	*mailServer
	conn *smtp.Conn
	mail gotMail
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mail = gotMail{from: from}
	_, s.mail.tls = s.conn.TLSConnectionState()
	return s.refusal("MAIL")
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.refusal(to); err != nil {
		return err
	}
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.refusal("DATA"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail.text = string(b)
	s.mails = append(s.mails, s.mail)
	return nil
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if err := s.refusal("AUTH"); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logins = append(s.logins, user+":"+password)
		return nil
	}), nil
}

// serveMail starts a server; with implicit, TLS comes before the greeting.
func serveMail(t *testing.T, implicit, offersTLS bool) *mailServer {
	t.Helper()
	web := httptest.NewUnstartedServer(http.NotFoundHandler()) // has a certificate of 127.0.0.1
	web.StartTLS()
	t.Cleanup(web.Close)
	s := &mailServer{roots: x509.NewCertPool()}
	s.roots.AddCert(web.Certificate())
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &mailSession{mailServer: s, conn: c}, nil
	}))
	server.Domain, server.ReadTimeout, server.WriteTimeout, server.MaxMessageBytes = "mail.example", time.Minute, time.Minute, 1<<20
	server.ErrorLog = log.New(io.Discard, "", 0)
	config := &tls.Config{Certificates: web.TLS.Certificates}
	if offersTLS {
		server.TLSConfig = config
	} else {
		server.AllowInsecureAuth = true
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return s
}

func mailDeps(t *testing.T, s *mailServer) Deps {
	d := deps(t)
	d.Roots = s.roots
	return d
}

func mailTo(s *mailServer, security string, to ...string) *deploy.Notify {
	return &deploy.Notify{Kind: deploy.NotifyEmail, Email: &deploy.Email{
		Server: s.address, TLS: security, Username: "deploy", Password: secretOf("a-secret-password"), From: "Deploys <deploy@example.com>", To: to,
	}}
}

func TestMailComesOverSTARTTLSTLSAndNone(t *testing.T) {
	t.Parallel()
	for _, security := range []string{"starttls", "tls", "none"} {
		s := serveMail(t, security == "tls", security == "starttls")
		m := failedMessage(mailTo(s, security, "ops@example.com", "Bob <bob@example.com>"))
		a, err := newEmail(mailDeps(t, s)).Send(t.Context(), m)
		if err != nil || a.Status != 250 {
			t.Fatalf("%s: %+v, %v", security, a, err)
		}
		got := s.got()
		if len(got) != 1 || got[0].from != "deploy@example.com" || strings.Join(got[0].to, ",") != "ops@example.com,bob@example.com" || got[0].tls != (security != "none") {
			t.Fatalf("%s: %+v", security, got)
		}
		if strings.Join(s.logins, ",") != "deploy:a-secret-password" {
			t.Errorf("%s: logins %q", security, s.logins)
		}
		msg, err := netmail.ReadMessage(strings.NewReader(got[0].text))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"From": `"Deploys" <deploy@example.com>`, "To": `<ops@example.com>, "Bob" <bob@example.com>`,
			"Subject": "shop: run 42: Fix <!channel> & *cart* for @everyone", "Message-Id": "<msg_42_failed@example.com>",
			"In-Reply-To": "<run-42.shop-chat@example.com>", "References": "<run-42.shop-chat@example.com>",
			"Auto-Submitted": "auto-generated", "Date": "Wed, 01 Apr 2026 03:15:00 +0000",
		} {
			if v := msg.Header.Get(name); v != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
		text, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
		if body := strings.ReplaceAll(string(text), "\r\n", "\n"); err != nil || !strings.HasPrefix(body, "shop: run 42 failed\ncommit 3f2c1ab of ") || !strings.HasSuffix(body, "\n\ndeployhook rollback shop\n") && !strings.HasSuffix(body, "\ndeployhook rollback shop\n") {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestMailsOfARunAreOneThread(t *testing.T) {
	t.Parallel()
	headers := func(key string, run int64, change deploy.Change, state deploy.State) netmail.Header {
		m := failedMessage(&deploy.Notify{Email: &deploy.Email{From: "deploy@example.com", To: []string{"ops@example.com"}}})
		m.Key, m.Run.ID, m.Change, m.Run.State = key, run, change, state
		n, err := newsOf(m)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := mailIsWhole(t, m, n)
		return h
	}
	one, two, other := headers("a", 42, "running", deploy.Running), headers("b", 42, "failed", deploy.Failed), headers("c", 43, "failed", deploy.Failed)
	for _, name := range []string{"References", "In-Reply-To", "Subject"} {
		if one.Get(name) != two.Get(name) || one.Get(name) == other.Get(name) {
			t.Errorf("%s: %q and %q of one run, %q of another", name, one.Get(name), two.Get(name), other.Get(name))
		}
	}
	if again := headers("a", 42, "running", deploy.Running); one.Get("Message-Id") == two.Get("Message-Id") || again.Get("Message-Id") != one.Get("Message-Id") {
		t.Errorf("Message-ID %q, of another %q, tried again %q", one.Get("Message-Id"), two.Get("Message-Id"), again.Get("Message-Id"))
	}
}

// TestOutsidersWriteNoHeaders has a commit message, an actor and a branch that
// would be headers.
func TestOutsidersWriteNoHeaders(t *testing.T) {
	t.Parallel()
	m := failedMessage(&deploy.Notify{Email: &deploy.Email{From: "deploy@example.com", To: []string{"ops@example.com"}}})
	m.Run.Message, m.Run.Actor, m.Key, m.Target = "Fix\rBcc: all@evil.example\r\n\r\n.\r\nMAIL", "a\r\nBcc: all@evil.example", "k>\r\nBcc: x@evil.example", "t\r\nBcc: x@evil.example"
	n, err := newsOf(m)
	if err != nil {
		t.Fatal(err)
	}
	header, _ := mailIsWhole(t, m, n)
	if header.Get("Bcc") != "" || strings.ContainsAny(header.Get("Message-Id")+header.Get("References"), " \r\n") {
		t.Errorf("headers %q", header)
	}
}

func TestMailServersRefuseForNowOrForGood(t *testing.T) {
	t.Parallel()
	s := serveMail(t, false, true)
	d := mailDeps(t, s)
	say := func(code int, text string) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.NoEnhancedCode, Message: text}
	}
	for _, tt := range []struct {
		name      string
		refuse    map[string]error
		want      string // of the error; empty = sent
		status    int
		permanent bool
	}{
		{"a full box", map[string]error{"ops@example.com": say(452, "mailbox full")}, "it refused the receiver ops@example.com: 452 mailbox full", 452, false},
		{"the same, and another for good", map[string]error{"bob@example.com": say(550, "no such user"), "ops@example.com": say(450, "later")}, "it refused the receiver ops@example.com: 450 later", 450, false},
		{"everybody", map[string]error{"bob@example.com": say(550, "no such user"), "ops@example.com": say(550, "no such user")}, "it refused the receiver ops@example.com, bob@example.com: 550 no such user", 550, true},
		{"one of two", map[string]error{"bob@example.com": say(550, "no such user")}, "", 250, false},
		{"the sender", map[string]error{"MAIL": say(553, "not yours")}, "it refused the sender deploy@example.com: 553 not yours", 553, true},
		{"the mail", map[string]error{"DATA": say(554, "spam a-secret-password\x1b[31m")}, "it refused the mail: 554 spam ***", 554, true},
		{"the mail for now", map[string]error{"DATA": say(451, "busy")}, "it refused the mail: 451 busy", 451, false},
		{"the login", map[string]error{"AUTH": say(535, "wrong a-secret-password")}, "it refused the login of deploy: 535 wrong ***", 535, true},
	} {
		s.set(tt.refuse)
		a, err := newEmail(d).Send(t.Context(), failedMessage(mailTo(s, "starttls", "ops@example.com", "bob@example.com")))
		if tt.want == "" {
			if err != nil || len(s.got()) != 1 || strings.Join(s.got()[0].to, "") != "ops@example.com" || !strings.Contains(string(a.Body), "not for bob@example.com: 550 no such user") {
				t.Errorf("%s: %v, %s, %+v", tt.name, err, a.Body, s.got())
			}
			continue
		}
		if err == nil || err.Error() != s.address+": "+tt.want || a.Status != tt.status || a.Permanent != tt.permanent {
			t.Errorf("%s: %+v, %v\nwant %s", tt.name, a, err, tt.want)
		}
		if strings.Contains(string(a.Body), "a-secret-password") || len(s.got()) != 0 {
			t.Errorf("%s: %s, %+v", tt.name, a.Body, s.got())
		}
	}
}

func TestMailGoesNowhereWithoutTheTLSThatWasAsked(t *testing.T) {
	t.Parallel()
	clear := serveMail(t, false, false)
	a, err := newEmail(mailDeps(t, clear)).Send(t.Context(), failedMessage(mailTo(clear, "starttls", "ops@example.com")))
	if err == nil || !strings.Contains(err.Error(), "it offers no STARTTLS, and nothing goes there in the clear") || !a.Permanent || len(clear.got())+len(clear.logins) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, security := range []string{"starttls", "tls"} {
		s := serveMail(t, security == "tls", true)
		d := mailDeps(t, s)
		d.Roots = x509.NewCertPool() // another authority
		a, err := newEmail(d).Send(t.Context(), failedMessage(mailTo(s, security, "ops@example.com")))
		if err == nil || !strings.Contains(err.Error(), "its certificate cannot be verified: ") || a.Permanent || len(s.got())+len(s.logins) != 0 {
			t.Errorf("%s with another authority: %+v, %v", security, a, err)
		}
	}
}

// TestBadMailServersAreBounded has one that says nothing, one that says too
// much, one that hangs up and one that is not there.
func TestBadMailServersAreBounded(t *testing.T) {
	t.Parallel()
	d := deps(t)
	for _, tt := range []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"silent", func(c net.Conn) { io.Copy(io.Discard, c) }, "no answer in time"},
		{"endless", func(c net.Conn) {
			for line := []byte(strings.Repeat("220-x", 1000)); ; {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		}, "the server says too much"},
		{"hanging up", func(c net.Conn) {}, "the connection was closed without an answer"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			tt.answer(c)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if tt.name != "silent" {
			ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		}
		s := &mailServer{address: l.Addr().String()}
		a, err := newEmail(d).Send(ctx, failedMessage(mailTo(s, "starttls", "ops@example.com")))
		if err == nil || !strings.Contains(err.Error(), tt.want) || a.Permanent {
			t.Errorf("%s: %+v, %v", tt.name, a, err)
		}
		cancel()
		<-done
		l.Close()
	}
	gone := &mailServer{address: "127.0.0.1:1"}
	if _, err := newEmail(d).Send(t.Context(), failedMessage(mailTo(gone, "starttls", "ops@example.com"))); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("without a server: %v", err)
	}
}
