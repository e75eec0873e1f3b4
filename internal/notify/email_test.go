package notify

import (
	"io"
	"mime"
	netmail "net/mail"
	"strings"
	"testing"

	"mime/quotedprintable"
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
