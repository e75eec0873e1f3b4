package pipeline

import (
	"context"
	"errors"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// enter notes how far the deploy came on a host. Where there are several it is
// written down at once: they come to it one by one, and a crash must not make
// them look alike. That costs nobody the deploy when it cannot be written.
func (p *jobPart) enter(phase deploy.HostPhase) {
	if p.phase == phase {
		return
	}
	p.phase = phase
	p.save(deploy.Running)
}

// save writes down how a host stands among several.
func (p *jobPart) save(state deploy.State) {
	if len(p.parts) == 1 {
		return // it is written with the end of the job
	}
	err := p.engine.Store.SaveHost(context.Background(), p.run.ID, p.key.job, p.attempt, p.stand(state))
	if err != nil {
		p.log.Warn("recording how far a host is", "phase", p.phase, "err", err)
	}
}

func (p *jobPart) stand(state deploy.State) deploy.HostState {
	s := deploy.HostState{Name: p.host, State: state, Phase: p.phase}
	if p.failure != nil {
		s.Error = p.failure.Error()
	}
	return s
}

// fail notes what went wrong on a host itself, the first of it. What a cancel
// cut short has not failed, nor what is tried again.
func (p *jobPart) fail(err error) {
	var c canceled
	switch {
	case err == nil, p.failure != nil, p.whyAway() != nil:
	case errors.Is(err, context.Canceled), errors.As(err, &c), errors.Is(err, errShutdown), errors.Is(err, host.ErrExists):
	default:
		p.failure = err
	}
}

// ended notes how what every host does by itself came out on this one.
func (p *jobPart) ended(out outcome) {
	if out.state == deploy.Failed && out.err != "" {
		p.fail(errors.New(out.err))
	}
	if !p.spec.Deploys() && out.state.Terminal() {
		p.done = out.state
		p.save(out.state)
	}
}

// hostStates are how the job ended on each of its hosts.
func (j *job) hostStates(out outcome) []deploy.HostState {
	if !out.state.Terminal() {
		return nil // it is begun anew
	}
	var list []deploy.HostState
	for _, p := range j.parts {
		list = append(list, p.end(out))
	}
	return list
}

// end is how the job ended on one host.
func (p *jobPart) end(out outcome) deploy.HostState {
	if p.spec.Deploys() {
		if why, ok := out.blocked[deploy.PathLock(p.host, p.spec.Release.Path)]; ok {
			p.failure = errors.New(why)
			return p.stand(deploy.Lost)
		}
	}
	if p.abandoned != nil {
		p.failure = p.abandoned
		return p.stand(deploy.Lost)
	}
	state := deploy.Canceled // it was to go on, and others kept it from that
	switch {
	case out.state == deploy.Succeeded || out.state == deploy.Skipped:
		state, p.failure = out.state, nil
	case len(p.parts) == 1:
		state = out.state
		if p.failure == nil && out.err != "" {
			p.failure = errors.New(out.err)
		}
	case p.failure != nil:
		state = deploy.Failed
	case p.done != "":
		state = p.done
	case p.phase == deploy.PhaseLive:
		state = deploy.Succeeded
	case p.phase == deploy.PhaseSwitching, p.phase == deploy.PhaseSwitched:
		state = out.state // in place it stays so
	case p.phase == "" && p.next == 0:
		state = deploy.Skipped
	case out.state == deploy.Lost && !p.spec.Deploys():
		state = deploy.Lost
	}
	return p.stand(state)
}

// recovered makes what the journal says of the switch the phase of a host.
func (p *jobPart) recovered() {
	switch p.what {
	case deploy.RecoverSuccess:
		p.enter(deploy.PhaseLive)
	case deploy.RecoverProve, deploy.RecoverUndo:
		p.enter(deploy.PhaseSwitched)
	case deploy.RecoverDrop:
		p.enter(deploy.PhasePrepared)
	default:
		if p.phase != deploy.PhaseSwitching && p.phase != deploy.PhaseSwitched {
			return
		}
		if p.back != "" || !p.whole() {
			p.enter(deploy.PhasePutBack) // and it was not written down any more
		} else {
			p.enter(deploy.PhasePrepared)
		}
	}
}
