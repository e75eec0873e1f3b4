package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"golang.org/x/crypto/ssh"
)

// lfs asks the server of a repository over SSH where its LFS files are.
//
// Source: git-lfs docs/api/authentication.md, "SSH".
func (s *secure) lfs(ctx context.Context, set string) (lfsSource, error) {
	const most = 64 << 10 // bytes
	if set != "" {
		host, _, err := net.SplitHostPort(s.addr)
		at, perr := url.Parse(set)
		if err != nil || perr != nil || at.Scheme != "https" || !strings.EqualFold(at.Hostname(), host) {
			return nil, &lfsWrong{"lfs.url in .lfsconfig leads to another host than the repository's, where nothing is fetched from"}
		}
		return &lfsWeb{base: &url.URL{Scheme: at.Scheme, Host: at.Host, Path: strings.TrimSuffix(at.Path, "/")}}, nil
	}
	b, err := s.ask(ctx, "git-lfs-authenticate "+quoted(s.path)+" download", most)
	if err != nil {
		return nil, err
	}
	var a lfsAction
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, &lfsWrong{"what git-lfs-authenticate says over there is not what it should be"}
	}
	u, err := url.Parse(a.Href)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, &lfsWrong{"git-lfs-authenticate names no LFS server over there"}
	}
	if len(a.Header) > headersMost {
		return nil, &lfsWrong{fmt.Sprintf("git-lfs-authenticate wants more than %d headers", headersMost)}
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return &lfsWeb{base: u, header: a.Header}, nil
}

// ask runs a command over there and gives what it prints, most bytes of it.
func (s *secure) ask(ctx context.Context, command string, most int64) ([]byte, error) {
	conn, stop, err := s.reach(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	defer conn.Close()
	c, chans, reqs, err := ssh.NewClientConn(conn, s.addr, s.config)
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	run, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	var said firstLine
	run.Stderr = &said
	out, err := run.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := run.Start(command); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(out, most))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) == most {
		return nil, &lfsWrong{fmt.Sprintf("git-lfs-authenticate says more than %d bytes", most)}
	}
	err = run.Wait()
	if exit := (*ssh.ExitError)(nil); errors.As(err, &exit) {
		if line := said.String(); line != "" {
			return nil, &serverSaid{line}
		}
		return nil, &lfsWrong{fmt.Sprintf("git-lfs-authenticate ended with %d over there: is there Git LFS?", exit.ExitStatus())}
	}
	return b, err
}
