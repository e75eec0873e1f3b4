package doctor

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Memory, in bytes.
const (
	memoryLeast = 64 << 20  // available: under it, what is started is killed
	memoryFew   = 256 << 20 // available
	memorySmall = 1 << 30   // of a machine that needs swap
)

// makeSwap makes 1 GiB of swap, for good.
const makeSwap = "sudo fallocate -l 1G /swapfile && sudo chmod 0600 /swapfile\nsudo mkswap /swapfile && sudo swapon /swapfile\n" +
	"echo '/swapfile none swap sw 0 0' | sudo tee -a /etc/fstab"

// checkMemory looks at memory and swap: npm ci alone may take 500 MB.
func (e *exam) checkMemory(context.Context) (found []Check) {
	b, err := os.ReadFile(e.path("/proc/meminfo"))
	if err != nil {
		return warn("how much memory there is cannot be read: "+rootCause(err).Error(), "")
	}
	m := meminfo(string(b))
	total, available, swap, swapFree := m["MemTotal"], m["MemAvailable"], m["SwapTotal"], m["SwapFree"]
	if total == 0 {
		return warn("how much memory there is cannot be read", "")
	}
	fix := ""
	if swap == 0 {
		fix = makeSwap
	}
	switch {
	case available+swapFree < memoryLeast:
		found = append(found, fail(fmt.Sprintf("%s of memory and swap are available: what is started now is killed", mebibytes(available+swapFree)), "ps aux --sort=-rss | head\n"+fix)...)
	case available < memoryFew:
		found = append(found, warn(fmt.Sprintf("%s of %s memory are available, few for tests or a build", mebibytes(available), mebibytes(total)), strings.TrimSuffix("ps aux --sort=-rss | head\n"+fix, "\n"))...)
	case total < memorySmall && swap == 0:
		found = append(found, warn(mebibytes(total)+" of memory and no swap: a build may be killed", makeSwap)...)
	}
	return unlessAny(found, "%s of %s available, swap %s", mebibytes(available), mebibytes(total), mebibytes(swap))
}

// meminfo reads /proc/meminfo, in bytes.
//
// Source: proc_meminfo(5).
func meminfo(text string) map[string]int64 {
	m := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(line, ":")
		f := strings.Fields(value)
		if !ok || len(f) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil && n < 1<<50 {
			m[name] = n << 10
		}
	}
	return m
}

// kernelClock asks the kernel whether somebody keeps its clock right.
//
// Source: adjtimex(2).
func kernelClock() (bool, error) {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return t.Status&unix.STA_UNSYNC == 0, err
}

// clockOff is how far a clock may be off before it is said.
const clockOff = time.Minute

// checkClock looks whether the clock is kept right: certificates, signatures
// with a time and schedules go by it.
func (e *exam) checkClock(ctx context.Context) []Check {
	right, err := e.clock()
	if err != nil { // in some containers
		if out, code, terr := e.Command(ctx, "timedatectl", "show", "-p", "NTPSynchronized", "--value"); terr == nil && code == 0 {
			right, err = strings.TrimSpace(out) == "yes", nil
		}
	}
	switch {
	case err != nil:
		return warn("whether the clock is kept right cannot be found out: "+err.Error(), "timedatectl")
	case !right:
		return warn("nobody keeps the clock right (it may be the machine's host who does)", "sudo timedatectl set-ntp true\ntimedatectl")
	}
	return ok("synchronized")
}

// wrongClock compares the clock with that of a server that answered.
func (e *exam) wrongClock(res *http.Response, who string) []Check {
	at, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return nil
	}
	off := e.now().Sub(at).Round(time.Second)
	if off.Abs() <= clockOff {
		return nil
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return []Check{{Name: "clock", State: Failure, Text: fmt.Sprintf("the clock is %v %s that of %s", off.Abs(), way, who), Fix: "sudo timedatectl set-ntp true\ntimedatectl"}}
}
