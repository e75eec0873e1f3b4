package pipeline

import (
	"context"
	"fmt"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// openOn opens an agent on a host: by today's config, or, for a host that it
// does not have any more, by that of a run which began there. run may be nil.
func (e *Engine) openOn(ctx context.Context, name string, kind deploy.AgentKind, run *deploy.Run) (*host.Conn, error) {
	return e.openTelling(ctx, name, kind, run, nil)
}

// openTelling is openOn that tells how far the agent's program has come to the
// host where that is copied.
func (e *Engine) openTelling(ctx context.Context, name string, kind deploy.AgentKind, run *deploy.Run, progress host.Progress) (*host.Conn, error) {
	if name == deploy.Local {
		return e.Hosts.Open(ctx, nil, kind)
	}
	far := e.Config().Host(name)
	if far == nil && run != nil {
		cfg, err := e.ConfigOf(ctx, run.Config)
		if err != nil {
			return nil, fmt.Errorf("reading the config of run %d: %w", run.ID, err)
		}
		far = cfg.Host(name)
	}
	if far == nil {
		return nil, fmt.Errorf("host %s: deploy.yaml has no such host any more", name)
	}
	return e.Hosts.OpenTelling(ctx, far, kind, progress)
}
