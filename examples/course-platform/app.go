package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	_ "modernc.org/sqlite"
)

// schema is the application's. Whoever changes an enrollment writes down the
// event that it comes from, in the same transaction: one that comes twice, or
// late, then changes nothing.
const schema = `
CREATE TABLE IF NOT EXISTS courses (id TEXT PRIMARY KEY, title TEXT NOT NULL);
INSERT OR IGNORE INTO courses (id, title) VALUES ('go-101', 'Go from the ground up'), ('sql-201', 'SQL for those who know some');
CREATE TABLE IF NOT EXISTS enrollments (
	student TEXT NOT NULL,
	course  TEXT NOT NULL REFERENCES courses (id),
	state   TEXT NOT NULL CHECK (state IN ('waits for the payment', 'enabled', 'disabled')),
	event   INTEGER NOT NULL DEFAULT 0, -- when the event happened that the state comes from, in s
	run     INTEGER NOT NULL DEFAULT 0, -- of deployhook
	told    INTEGER NOT NULL DEFAULT 0, -- that the run has succeeded
	changes INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (student, course)
);
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY);
`

// open opens the application's database.
func open(ctx context.Context, file string) (*sql.DB, error) {
	if file == "" {
		return nil, errors.New("no database: --db, or the variable COURSES_DB")
	}
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", file, err), db.Close())
	}
	return db, nil
}

// apply is the pipeline's step. What the payment service says comes in
// variables, which are data: nothing of it is ever a part of a command.
func apply(ctx context.Context, file string, out io.Writer) error {
	event, kind, student, course := os.Getenv("EVENT"), os.Getenv("KIND"), os.Getenv("STUDENT"), os.Getenv("COURSE")
	created, err := strconv.ParseInt(os.Getenv("CREATED"), 10, 64)
	if err != nil || event == "" || student == "" || course == "" {
		return fmt.Errorf("event %q of %q for %q at %q is not whole", event, student, course, os.Getenv("CREATED"))
	}
	run, _ := strconv.ParseInt(os.Getenv("DEPLOYHOOK_RUN_ID"), 10, 64)
	state := map[string]string{"payment_intent.succeeded": "enabled", "charge.refunded": "disabled"}[kind]
	if state == "" {
		return fmt.Errorf("events of type %q mean nothing here", kind)
	}
	db, err := open(ctx, file)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if n, err := changed(tx.ExecContext(ctx, `INSERT OR IGNORE INTO events (id) VALUES (?)`, event)); err != nil || n == 0 {
		if err == nil {
			fmt.Fprintf(out, "event %s came before: nothing changes\n", event)
		}
		return err
	}
	// Money that went back in the second of the payment went back after it.
	n, err := changed(tx.ExecContext(ctx, `INSERT INTO enrollments (student, course, state, event, run, changes) VALUES (?, ?, ?, ?, ?, 1)
		ON CONFLICT (student, course) DO UPDATE SET state = excluded.state, event = excluded.event, run = excluded.run, told = 0, changes = changes + 1
		WHERE excluded.event > event OR excluded.event = event AND excluded.state = 'disabled'`, student, course, state, created, run))
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintf(out, "event %s is older than what is known of %s and %s: nothing changes\n", event, student, course)
		return nil
	}
	fmt.Fprintf(out, "%s is %s for %s\n", course, state, student)
	return nil
}

func changed(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Courses</title>
<h1>Courses for {{.Student}}</h1>
<ul>{{range .Courses}}
<li><b>{{.Title}}</b>: {{if .State}}{{.State}}{{if .Told}} (run {{.Run}} of deployhook says so){{end}}{{else}}not bought{{end}}
<form method="post" action="/buy"><input type="hidden" name="student" value="{{$.Student}}"><input type="hidden" name="course" value="{{.ID}}"><button>Buy</button></form>{{end}}
</ul></html>
`))

// enrollment is a line of the page.
type enrollment struct {
	ID, Title, State   string
	Run, Told, Changes int64
}

// app is the application.
type app struct {
	db   *sql.DB
	told *standardwebhooks.Webhook
}

// serve is the application: a page, a button, and the address at which it is
// told what became of a payment.
func serve(ctx context.Context, file, listen, secret string, out io.Writer) error {
	told, err := standardwebhooks.NewWebhook(secret)
	if err != nil || secret == "" {
		return errors.New("COURSES_TOLD_SECRET must be whsec_ and a key in base64")
	}
	db, err := open(ctx, file)
	if err != nil {
		return err
	}
	defer db.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	a := &app{db, told}
	srv := &http.Server{Handler: a.routes(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	fmt.Fprintf(out, "listening on http://%s\n", l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *app) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		student := r.FormValue("student")
		if student == "" {
			student = "ann"
		}
		list, err := a.courses(r.Context(), student)
		if err == nil {
			err = page.Execute(w, map[string]any{"Student": student, "Courses": list})
		}
		fail(w, err)
	})
	m.HandleFunc("GET /courses.json", func(w http.ResponseWriter, r *http.Request) {
		list, err := a.courses(r.Context(), r.FormValue("student"))
		if err == nil {
			w.Header().Set("Content-Type", "application/json")
			err = json.NewEncoder(w).Encode(list)
		}
		fail(w, err)
	})
	// A real shop would send the student on to the payment service's page.
	m.HandleFunc("POST /buy", func(w http.ResponseWriter, r *http.Request) {
		_, err := a.db.ExecContext(r.Context(), `INSERT OR IGNORE INTO enrollments (student, course, state) VALUES (?, ?, 'waits for the payment')`, r.FormValue("student"), r.FormValue("course"))
		if err != nil {
			fail(w, err)
			return
		}
		http.Redirect(w, r, "/?student="+template.URLQueryEscaper(r.FormValue("student")), http.StatusSeeOther)
	})
	m.HandleFunc("POST /told", a.hear)
	return m
}

// hear takes what deployhook says of a run. It may say it twice.
func (a *app) hear(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil {
		err = a.told.Verify(body, r.Header)
	}
	if err != nil {
		http.Error(w, "this is not from deployhook", http.StatusUnauthorized)
		return
	}
	var m struct {
		Type string `json:"type"`
		Data struct {
			ID int64 `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		http.Error(w, "this is no run", http.StatusBadRequest)
		return
	}
	if m.Type == "run.succeeded" {
		_, err = a.db.ExecContext(r.Context(), `UPDATE enrollments SET told = 1 WHERE run = ?`, m.Data.ID)
	}
	fail(w, err)
}

func fail(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (a *app) courses(ctx context.Context, student string) (list []enrollment, err error) {
	rows, err := a.db.QueryContext(ctx, `SELECT id, title, coalesce(state, ''), coalesce(run, 0), coalesce(told, 0), coalesce(changes, 0)
		FROM courses LEFT JOIN enrollments ON course = id AND student = ? ORDER BY id`, student)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e enrollment
		if err := rows.Scan(&e.ID, &e.Title, &e.State, &e.Run, &e.Told, &e.Changes); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}
