package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"deployhook/internal/config"
	"deployhook/internal/web"
)

// defaultSocket is what server.socket is without a word about it.
const defaultSocket = "/run/deployhook/control.sock"

// systemConfig is the config of the machine's own daemon.
const systemConfig = "/etc/deployhook/deploy.yaml"

// client talks to the daemon whose config this is.
func (a *app) client() (*web.Client, error) {
	if socket := os.Getenv("DEPLOYHOOK_SERVER_SOCKET"); socket != "" {
		return web.Dial(socket), nil
	}
	path := config.Find(a.config)
	f, err := config.Load(path, nil)
	if err == nil {
		return web.Dial(f.Server.Socket), nil
	}
	text, readErr := os.ReadFile(path)
	switch {
	case errors.Is(readErr, fs.ErrPermission) && path == systemConfig:
		// Who may use the socket need not be able to read the file.
		return web.Dial(defaultSocket), nil
	case errors.As(err, new(config.Problems)) && readErr == nil:
		// The daemon runs on an earlier text: a file that is being changed must
		// keep nobody from canceling or rolling back.
		fmt.Fprintf(a.err, "deployhook: warning: %s has errors now: deployhook check lists them\n", path)
		socket := socketIn(text)
		if !filepath.IsAbs(socket) {
			socket = filepath.Join(filepath.Dir(path), socket) // as when the file was good
		}
		return web.Dial(socket), nil
	}
	return nil, hinted{fmt.Errorf("finding the control socket: %w", err), "name the config of the running daemon with --config, or its socket with DEPLOYHOOK_SERVER_SOCKET"}
}

// socketIn finds server.socket in a file that cannot be read as a whole.
func socketIn(text []byte) string {
	inside := false
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, " #")
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		rest, server := strings.CutPrefix(line, "server:")
		switch {
		case server:
			inside, line = true, rest
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
			continue
		case !indented:
			inside = false
		}
		if !inside {
			continue
		}
		for part := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "{}"), ",") {
			if value, ok := strings.CutPrefix(strings.TrimSpace(part), "socket:"); ok {
				if value = strings.Trim(strings.TrimSpace(value), `"'`); value != "" {
					return value
				}
			}
		}
	}
	return defaultSocket
}
