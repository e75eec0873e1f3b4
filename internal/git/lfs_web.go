package git

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

const (
	lfsAnswerMost = 8 << 20 // bytes of an answer about one batch
	lfsAtOnce     = 4       // contents that are fetched side by side
	redirectsMost = 5
	headersMost   = 64 // that a server wants with a request
	lfsMediaType  = "application/vnd.git-lfs+json"
)

// lfsWeb is a server of the batch API.
//
// Source: git-lfs docs/api/batch.md and basic-transfers.md.
type lfsWeb struct {
	base       *url.URL
	user, pass string            // empty: none
	header     map[string]string // that the server gave for all requests to it
}

// lfs gives the LFS server beside a repository, or the one at set, which must
// be on the same host.
func (w web) lfs(set string) (lfsSource, error) {
	u := &url.URL{Scheme: w.ep.Protocol, Host: w.ep.Host, Path: lfsPath(w.ep.Path)}
	if w.ep.Port != 0 {
		u.Host = net.JoinHostPort(strings.Trim(w.ep.Host, "[]"), strconv.Itoa(w.ep.Port))
	}
	l := &lfsWeb{base: u, user: w.user, pass: w.password}
	if set == "" {
		return l, nil
	}
	at, err := url.Parse(set)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" {
		return nil, &lfsWrong{"lfs.url in .lfsconfig is no address of an LFS server: https://… is wanted"}
	}
	if !sameOrigin(at, u) {
		return nil, &lfsWrong{fmt.Sprintf("lfs.url in .lfsconfig leads to another host, %s, where nothing is fetched from: only what is beside the repository is", cut(at.Host))}
	}
	l.base = &url.URL{Scheme: at.Scheme, Host: at.Host, Path: strings.TrimSuffix(at.Path, "/")}
	return l, nil
}

func lfsPath(path string) string {
	path = strings.TrimRight(path, "/")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if !strings.HasSuffix(path, ".git") {
		path += ".git"
	}
	return path + "/info/lfs"
}

// sameOrigin says whether two addresses have scheme, host and port in common:
// only there does a login go.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443", "ssh": "22"}[u.Scheme]
}

// lfsClient sends what a server wants with a request to no other one.
var lfsClient = &http.Client{Transport: webTransport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	req.Header.Del("Referer") // addresses of storages have keys in them
	same := sameOrigin(req.URL, first.URL)
	switch {
	case len(via) > redirectsMost:
		return &lfsWrong{fmt.Sprintf("the server redirects more than %d times", redirectsMost)}
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return &lfsWrong{"the server redirects from https to http"}
	case first.Method == http.MethodPost && !same:
		return &lfsWrong{fmt.Sprintf("the server redirects to %s, where the login is not sent: if that is right, write that address as clone_url", cut(req.URL.Host))}
	case first.Method != req.Method:
		return &lfsWrong{"the server redirects in a way that loses what it was asked"}
	}
	if !same {
		for name := range first.Header {
			if name != "Accept-Encoding" {
				req.Header.Del(name)
			}
		}
	}
	return nil
}}

// lfsAction is how one content is got.
type lfsAction struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

// lfsAnswer is what a server says to a batch.
type lfsAnswer struct {
	Transfer string `json:"transfer"`
	Objects  []struct {
		Oid     string `json:"oid"`
		Size    int64  `json:"size"`
		Actions struct {
			Download *lfsAction `json:"download"`
		} `json:"actions"`
		Error *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	} `json:"objects"`
}

func (l *lfsWeb) fetch(ctx context.Context, want []lfsWant, keep func(pointer, io.Reader) error) error {
	actions, err := l.batch(ctx, want)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	next := make(chan int)
	for range min(lfsAtOnce, len(want)) {
		wait.Go(func() {
			for i := range next {
				if err := l.download(ctx, actions[i], want[i].pointer, keep); err != nil {
					cancel(lfsOf(want[i], err))
				}
			}
		})
	}
	for i := range want {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wait.Wait()
	return context.Cause(ctx)
}

// batch asks where contents are.
func (l *lfsWeb) batch(ctx context.Context, want []lfsWant) ([]*lfsAction, error) {
	type object struct {
		Oid  string `json:"oid"`
		Size int64  `json:"size"`
	}
	ask := struct {
		Operation string   `json:"operation"`
		Transfers []string `json:"transfers"`
		Objects   []object `json:"objects"`
		Hash      string   `json:"hash_algo"`
	}{"download", []string{"basic"}, nil, "sha256"}
	for _, p := range want {
		ask.Objects = append(ask.Objects, object{p.oid, p.size})
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.base.JoinPath("objects", "batch").String(), bytes.NewReader(body))
	if err != nil {
		return nil, &lfsWrong{"the address of the LFS server cannot be read"}
	}
	req.Header.Set("Accept", lfsMediaType)
	req.Header.Set("Content-Type", lfsMediaType)
	l.login(req)
	res, err := lfsClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, lfsStatus(res.StatusCode, "there is no LFS server beside the repository (404): LFS is not switched on there, or the login may not see it")
	}
	var answer lfsAnswer
	in := &io.LimitedReader{R: res.Body, N: lfsAnswerMost}
	if err := json.NewDecoder(in).Decode(&answer); err != nil {
		if in.N == 0 {
			return nil, &lfsWrong{fmt.Sprintf("the LFS server's answer is longer than %d bytes", lfsAnswerMost)}
		}
		return nil, &lfsWrong{"the LFS server's answer is not what the batch API says"}
	}
	return l.actions(&answer, want)
}

// actions gives the action of each content that was asked for.
func (l *lfsWeb) actions(answer *lfsAnswer, want []lfsWant) ([]*lfsAction, error) {
	if answer.Transfer != "" && answer.Transfer != "basic" {
		return nil, &lfsWrong{fmt.Sprintf("the LFS server wants the transfer %q, and only basic is spoken here", cut(answer.Transfer))}
	}
	list := make([]*lfsAction, len(want))
	for i, p := range want {
		err := error(&lfsWrong{"the LFS server says nothing of it"})
		for _, o := range answer.Objects {
			if o.Oid != p.oid {
				continue
			}
			switch a := o.Actions.Download; {
			case o.Error != nil && o.Error.Code == http.StatusNotFound:
				err = &lfsWrong{"the LFS server does not have it (404): git lfs push --all, from a clone that has it, brings it there"}
			case o.Error != nil:
				err = &lfsWrong{fmt.Sprintf("the LFS server says (%d): %s", o.Error.Code, cut(o.Error.Message))}
			case o.Size != p.size:
				err = &lfsWrong{fmt.Sprintf("the LFS server has %d bytes of it, and its pointer says %d", o.Size, p.size)}
			case a == nil:
				err = &lfsWrong{"the LFS server does not say where it is"}
			case len(a.Header) > headersMost:
				err = &lfsWrong{fmt.Sprintf("the LFS server wants more than %d headers", headersMost)}
			default:
				list[i], err = a, nil
			}
			break
		}
		if err != nil {
			return nil, lfsOf(p, err)
		}
	}
	return list, nil
}

// download gets one content.
func (l *lfsWeb) download(ctx context.Context, a *lfsAction, p pointer, keep func(pointer, io.Reader) error) error {
	u, err := url.Parse(a.Href)
	if err == nil && !u.IsAbs() {
		u, err = l.base.Parse(a.Href)
	}
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return &lfsWrong{"the LFS server names an address that is none"}
	case l.base.Scheme == "https" && u.Scheme != "https":
		return &lfsWrong{"the LFS server leads from https to http"}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &lfsWrong{"the LFS server names an address that is none"}
	}
	if sameOrigin(u, l.base) {
		l.login(req)
	}
	for name, value := range a.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept-Encoding", "identity")
	res, err := lfsClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return lfsStatus(res.StatusCode, "the server does not have it (404): git lfs push --all, from a clone that has it, brings it there")
	}
	return keep(p, res.Body)
}

// login adds what the server knows the repository's reader by.
func (l *lfsWeb) login(req *http.Request) {
	if l.user != "" || l.pass != "" {
		req.SetBasicAuth(l.user, l.pass)
	}
	for name, value := range l.header {
		req.Header.Set(name, value)
	}
}

// lfsStatus is the error of an answer that is none.
func lfsStatus(code int, notFound string) error {
	switch code {
	case http.StatusUnauthorized:
		return transport.ErrAuthenticationRequired
	case http.StatusForbidden:
		return transport.ErrAuthorizationFailed
	case http.StatusNotFound, http.StatusGone:
		return &lfsWrong{notFound}
	case http.StatusTooManyRequests:
		return &lfsWrong{"the LFS server has been asked too much for now (429)"}
	case http.StatusInsufficientStorage, 509:
		return &lfsWrong{fmt.Sprintf("the LFS server has used up its storage or bandwidth (%d)", code)}
	}
	return &lfsWrong{fmt.Sprintf("the LFS server answered %d", code)}
}
