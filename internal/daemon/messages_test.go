package daemon_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// services stand for a chat, a bot and a forge: they keep what comes, by path.
type services struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string][]string
}

func newServices(t *testing.T) *services {
	v := &services{got: map[string][]string{}}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return // the daemon ended
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.got[r.URL.Path] = append(v.got[r.URL.Path], string(b))
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(v.Close)
	return v
}

// at is everything that came to a path, line by line.
func (v *services) at(path string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.got[path], "\n")
}

// TestFailedRunIsToldToChatsAndForge has a whole daemon: a push whose job
// fails, and what then arrives in a chat, through a bot and on a forge.
func TestFailedRunIsToldToChatsAndForge(t *testing.T) {
	t.Parallel()
	v := newServices(t)
	s := newSite(t)
	file := func(name, value string) string {
		t.Helper()
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	jobs := `
      deploy:
        release: ` + s.path("srv") + `
        secrets: { KEY: { file: "` + file("key", "hidden-in-the-log") + `" } }
        steps: [ { name: migrate, run: "echo \"last words, $KEY <b>\"; exit 3" } ]
`
	s.start(strings.Replace(s.config(jobs), "shutdown_grace", "url: https://ci.example.com, shutdown_grace", 1) + `    notify:
      - slack: { file: "` + file("slack", v.URL+"/chat-secretpath") + `" }
        allow_private: true
      - telegram: { token: { file: "` + file("bot", "1:secretbot") + `" }, chat: "-100", server: "` + v.URL + `" }
        if: change == "failed" && state == "failed" && run > 0 && needs.deploy.result != "succeeded"
        text: "${{ pipeline }} ${{ change }}: ${{ error }} <${{ branch }}>"
      - status: { token: { file: "` + file("forge", "secretforge") + `" }, forge: gitea, server: "` + v.URL + `" }
`)
	id := s.push("bad")
	s.want(id, "failed")
	const bot = "/bot1:secretbot/sendMessage"
	statuses := func() string {
		v.mu.Lock()
		defer v.mu.Unlock()
		for path, bodies := range v.got {
			if strings.Contains(path, "/statuses/"+s.last) {
				return strings.Join(bodies, "\n")
			}
		}
		return ""
	}
	s.until("all is told", func() bool {
		return v.at("/chat-secretpath") != "" && v.at(bot) != "" && strings.Count(statuses(), "\n") == 2 // queued, running, failed
	})
	chat := v.at("/chat-secretpath")
	for _, want := range []string{
		fmt.Sprintf(`{"text":"shop: run %d failed","blocks":[`, id), "commit " + s.last[:7], "\\njob deploy on local: step migrate: exit status 3\"",
		"```\\nlast words, *** &lt;b&gt;\\n", "`deployhook rollback shop`", fmt.Sprintf("`deployhook logs %d --job ", id), fmt.Sprintf("`deployhook retry %d`", id),
		fmt.Sprintf("https://ci.example.com/runs/%d", id),
	} {
		if !strings.Contains(chat, want) {
			t.Errorf("the chat is not told %q:\n%s", want, chat)
		}
	}
	if got := v.at(bot); !strings.Contains(got, `"chat_id":"-100","text":"shop failed: `) || !strings.Contains(got, "&lt;main&gt;") {
		t.Errorf("through the bot came\n%s", got)
	}
	if got := statuses(); !strings.HasPrefix(got, `{"context":"deployhook/shop",`) || !strings.HasSuffix(got, fmt.Sprintf(`,"state":"failure","target_url":"https://ci.example.com/runs/%d"}`, id)) {
		t.Errorf("the forge was told\n%s", got)
	}
	if log := s.log.String(); strings.Contains(log, "secretpath") || strings.Contains(log, "secretbot") || strings.Contains(log, "secretforge") {
		t.Errorf("a secret stands in the log:\n%s", log)
	}
}
