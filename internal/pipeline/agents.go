package pipeline

import (
	"context"
	"sync"
	"time"

	"deployhook/internal/deploy"
)

// agentsTime bounds asking all agents about themselves.
const agentsTime = 20 * time.Second

// Agents opens an agent of each kind and says what came of it: whether jobs
// could run now, as whom, and whether the deploy jobs' paths can be written.
func (e *Engine) Agents(ctx context.Context) []deploy.AgentReport {
	ctx, cancel := context.WithTimeout(ctx, agentsTime)
	defer cancel()
	reports := make([]deploy.AgentReport, len(deploy.AgentKinds))
	var all sync.WaitGroup
	for i, kind := range deploy.AgentKinds {
		reports[i] = deploy.AgentReport{Kind: kind, Socket: e.Hosts.Socket(kind), Paths: []deploy.Room{}}
		all.Go(func() {
			if err := e.askAgent(ctx, &reports[i]); err != nil {
				reports[i].Error = err.Error()
			}
		})
	}
	all.Wait()
	return reports
}

func (e *Engine) askAgent(ctx context.Context, r *deploy.AgentReport) error {
	conn, err := e.openOn(ctx, deploy.Local, r.Kind)
	if err != nil {
		return err
	}
	defer conn.Close()
	facts, err := conn.Facts(ctx)
	if err != nil {
		return err
	}
	r.Version, r.User, r.UID, r.Home = conn.Version(), facts.User, facts.UID, facts.Home
	if r.Kind != deploy.DeployAgent {
		return nil
	}
	asked := map[string]bool{}
	for _, p := range e.Config().Pipelines {
		for _, j := range p.Jobs {
			if !j.Deploys() || asked[j.Release.Path] {
				continue
			}
			asked[j.Release.Path] = true
			room, err := conn.Room(ctx, j.Release.Path, j.Release.InPlace)
			if err != nil {
				return err
			}
			r.Paths = append(r.Paths, room)
		}
	}
	return nil
}
