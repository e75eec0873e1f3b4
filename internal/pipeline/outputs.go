package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"deployhook/internal/deploy"
	"deployhook/internal/host"
)

// outputs gives what a step wrote for later jobs, within what a job may have.
// The error is one sentence about what is wrong with it.
func (p *jobPart) outputs(res host.StepResult) (map[string]string, error) {
	if res.OutputError != "" {
		return nil, errors.New(res.OutputError)
	}
	if len(res.Output) == 0 {
		return nil, nil
	}
	outputs, err := deploy.ParseOutputs(res.Output)
	if err != nil {
		return nil, err
	}
	if err := publicOutputs(newMasks(p.learn()), outputs); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sizes == nil {
		p.sizes = deploy.OutputSizes{}
	}
	if err := p.sizes.Add(outputs); err != nil {
		return nil, err
	}
	return outputs, nil
}

// publicOutputs refuses outputs that hold a secret. Masked they would be wrong,
// and the job that uses them would find out in production.
func publicOutputs(m *masks, outputs map[string]string) error {
	for name, value := range outputs {
		switch {
		case m.hides(name):
			return fmt.Errorf("the name of an output in $%s holds a secret", deploy.OutputVariable)
		case m.hides(value):
			return fmt.Errorf("the output %s holds a secret, and outputs are stored and shown: give the later job the secret itself (secrets: {VARIABLE: name})", name)
		}
	}
	return nil
}

// hides says whether something of a text would be masked.
func (m *masks) hides(text string) bool {
	r := redactor{masks: m}
	shown := slices.Clone(r.write([]byte(text)))
	return !bytes.Equal(append(shown, r.flush()...), []byte(text))
}

// dropOutputs forgets what an earlier attempt at the steps wrote: they run
// again, and may not write it.
func (p *jobPart) dropOutputs(ctx context.Context) error {
	if p.attempt == 1 {
		return nil
	}
	if err := p.engine.Store.DropOutputs(context.WithoutCancel(ctx), p.at(0)); err != nil {
		return fmt.Errorf("forgetting the outputs of an earlier attempt: %w", err)
	}
	return nil
}

// readOutputs reads what the jobs before this one wrote. It is not read for the
// first job of a run: there is none.
func (j *job) readOutputs(ctx context.Context) error {
	if !slices.ContainsFunc(j.run.Jobs, func(rj deploy.RunJob) bool { return rj.State.Terminal() }) {
		return nil
	}
	var err error
	if j.needed, err = j.engine.Store.Outputs(ctx, j.run.ID); err != nil {
		return fmt.Errorf("reading the outputs of run %d: %w", j.run.ID, err)
	}
	return nil
}
