package pipeline

import (
	"context"
	"fmt"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// openOn opens an agent on a host that today's config has.
func (e *Engine) openOn(ctx context.Context, name string, kind deploy.AgentKind) (*host.Conn, error) {
	if name == deploy.Local {
		return e.Hosts.Open(ctx, nil, kind)
	}
	far := e.Config().Host(name)
	if far == nil {
		return nil, fmt.Errorf("host %s: deploy.yaml has no such host any more", name)
	}
	return e.Hosts.Open(ctx, far, kind)
}
