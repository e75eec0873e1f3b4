package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// printed is what the steps that print have printed, in bytes.
const printed = 1_000_000_000

// printers are steps that print so much: lines as programs print them, and
// letters of which none is a newline.
var printers = []struct{ name, what, command string }{
	{"fold", "lines of 80 letters from fold", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x | fold", printed)},
	{"lines", "lines of 76 letters from base64", fmt.Sprintf("head -c %d /dev/zero | base64", printed/4*3)},
	{"letters", "letters without a newline from tr", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", printed)},
}

// output measures steps that print 1 GB, with secrets to mask in it, next to
// the same through cat > /dev/null.
func (b *bench) output() error {
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "output")
	var config strings.Builder
	fmt.Fprintf(&config, `server: { listen: "%s", data: %s/data, socket: %s/sock, log: { level: error } }
secrets:
  one: { environment: BENCH_SECRET }
  two: { environment: BENCH_OTHER }
hooks:
`, addr, dir, dir)
	for _, p := range printers {
		fmt.Fprintf(&config, "  %s: { provider: generic, token: { environment: BENCH_SECRET } }\n", p.name)
	}
	config.WriteString("pipelines:\n")
	for _, p := range printers {
		fmt.Fprintf(&config, `  %s:
    on: { hook: { name: %s } }
    jobs: { print: { secrets: { ONE: one, TWO: two }, steps: [ { run: %q } ] } }
`, p.name, p.name, p.command)
	}
	d, err := b.serve("output", addr, config.String())
	if err != nil {
		return err
	}
	defer d.end()
	var agents float64 // the most that one of them held, in MB
	for _, p := range printers {
		var ours, cat []time.Duration
		for range 3 {
			cmd := exec.Command("bash", "-eo", "pipefail", "-c", p.command+" | cat > /dev/null")
			began := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s through cat: %w", p.name, err)
			}
			cat = append(cat, time.Since(began))
			took, agent, err := b.printedBy(d, p.name)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			ours, agents = append(ours, took), max(agents, agent)
		}
		o, c := percentile(ours, 50), percentile(cat, 50)
		b.row("1 GB printed by a step, "+p.what+", against the same through `cat > /dev/null`", fmt.Sprintf("%.2f s", o.Seconds()),
			fmt.Sprintf("(%.2f s)", c.Seconds()), fmt.Sprintf("%.2f×", o.Seconds()/c.Seconds()), "≤ 1.3×")
	}
	_, peak := d.memory()
	b.row("the same: daemon's peak memory", fmt.Sprintf("%.1f MB", peak), "", "", "≤ 60 MB")
	b.row("the same: agent's peak memory", fmt.Sprintf("%.1f MB", agents), "", "", "≤ 30 MB")
	return nil
}

// printedBy runs the pipeline of a printer and gives the run's time from its
// acceptance to its end, and the most that an agent held, in MB.
func (b *bench) printedBy(d *process, name string) (took time.Duration, agent float64, err error) {
	res, err := http.Post("http://"+d.addr+"/hooks/"+name+"?token="+secret, "application/json", strings.NewReader(fmt.Sprintf(`{"at":%d}`, time.Now().UnixNano())))
	if err != nil {
		return 0, 0, err
	}
	var answer struct{ Runs []int64 }
	err = json.NewDecoder(res.Body).Decode(&answer)
	res.Body.Close()
	if err != nil {
		return 0, 0, err
	}
	if len(answer.Runs) != 1 {
		return 0, 0, fmt.Errorf("the hook answered %s and started %d runs", res.Status, len(answer.Runs))
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		agent = max(agent, d.childMemory())
		out, err := b.command("output", "run", strconv.FormatInt(answer.Runs[0], 10), "--json")
		if err != nil {
			return 0, 0, err
		}
		var r struct {
			State          string
			Created, Ended time.Time
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return 0, 0, err
		}
		switch r.State {
		case "succeeded":
			return r.Ended.Sub(r.Created), agent, nil
		case "queued", "running":
		default:
			return 0, 0, fmt.Errorf("the run is %s", r.State)
		}
	}
	return 0, 0, errors.New("the run did not end")
}

// childMemory is the most that a child of a process held at most, in MB.
func (p *process) childMemory() (most float64) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			_, peak := memoryOf(pid)
			most = max(most, peak)
		}
	}
	return most
}
