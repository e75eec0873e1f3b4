package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// agentsTime bounds asking all agents about themselves, and agentsAtOnce how
// many are asked side by side.
const (
	agentsTime   = 20 * time.Second
	agentsAtOnce = 16
)

// Agents opens an agent of each kind here, and one on every host over SSH, and
// says what came of it: whether jobs could run now, as whom, and whether the
// deploy jobs' paths can be written.
func (e *Engine) Agents(ctx context.Context) []deploy.AgentReport {
	ctx, cancel := context.WithTimeout(ctx, agentsTime)
	defer cancel()
	var reports []deploy.AgentReport
	for _, kind := range deploy.AgentKinds {
		reports = append(reports, deploy.AgentReport{Host: deploy.Local, Kind: kind, Socket: e.Hosts.Socket(kind), Paths: []deploy.Room{}})
	}
	for _, h := range e.Config().Hosts {
		// Over SSH jobs of both kinds run as one user.
		reports = append(reports, deploy.AgentReport{Host: h.Name, Kind: deploy.DeployAgent, Paths: []deploy.Room{}})
	}
	var all sync.WaitGroup
	turns := make(chan struct{}, agentsAtOnce)
	for i := range reports {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := e.askAgent(ctx, &reports[i]); err != nil {
				reports[i].Error = err.Error()
				var key *host.HostKeyError
				if errors.As(err, &key) {
					reports[i].HostKey, _ = strings.CutPrefix(key.Line, "host_key: ")
				}
			}
		})
	}
	all.Wait()
	return reports
}

func (e *Engine) askAgent(ctx context.Context, r *deploy.AgentReport) error {
	conn, err := e.openOn(ctx, r.Host, r.Kind, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	facts, err := conn.Facts(ctx)
	if err != nil {
		return err
	}
	r.Version, r.User, r.UID, r.Home = conn.Version(), facts.User, facts.UID, facts.Home
	if r.Host != deploy.Local {
		ahead, err := conn.ClockAhead(ctx)
		if err != nil && !errors.Is(err, host.ErrNoClock) {
			return err
		}
		r.ClockMS = ahead.Milliseconds()
	}
	if r.Kind != deploy.DeployAgent {
		return nil
	}
	asked := map[string]bool{}
	for _, p := range e.Config().Pipelines {
		for _, j := range p.Jobs {
			if !j.Deploys() || !slices.Contains(j.Hosts, r.Host) || asked[j.Release.Path] {
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
