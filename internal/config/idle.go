package config

// idle warns of what stands in the file and does nothing.
func (b *builder) idle(top *node) {
	if len(b.cfg.Pipelines) == 0 {
		b.warnings = append(b.warnings, Problem{File: b.file, Message: "there are no pipelines: nothing can run"})
		return
	}
	if hooks := top.get("hooks"); hooks != nil {
		for _, name := range hooks.order {
			if !b.takes(name) {
				b.warn(hooks.keys[name], "no pipeline takes what comes through this hook")
			}
		}
	}
	b.idleHosts()
	if secrets := top.get("secrets"); secrets != nil {
		for _, name := range secrets.order {
			if !b.used[name] {
				b.warn(secrets.keys[name], "this secret is used nowhere")
			}
		}
	}
}

// takes says whether a pipeline may be started through a hook.
func (b *builder) takes(hook string) bool {
	for _, p := range b.cfg.Pipelines {
		if p.On.Forge() && p.Hook == hook || p.On.Hook != nil && p.On.Hook.Name == hook {
			return true
		}
	}
	return false
}
