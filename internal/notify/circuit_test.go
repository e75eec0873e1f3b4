package notify

import (
	"testing"
	"time"
)

func TestCircuitOpensAfterFailuresAndClosesAfterAnAnswer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var c circuit
	for i := range failuresMost - 1 {
		if c.failed(now, 0); c.open() || c.rests(now) {
			t.Fatalf("it is open after %d failures", i+1)
		}
	}
	for i := range 20 {
		c.failed(now, 0)
		rest := c.until.Sub(now)
		if !c.open() || !c.rests(now) || rest < restLeast/2 || rest > restMost {
			t.Fatalf("after %d failures it rests %v", failuresMost+i, rest)
		}
		now = c.until
	}
	c.succeeded(time.Millisecond)
	if c.open() || c.rests(now) || !c.proven {
		t.Errorf("after an answer it is %+v", c)
	}
	if c.succeeded(quick); c.proven {
		t.Error("a slow one is proven")
	}
	c.failed(now, 12*time.Hour)
	if rest := c.until.Sub(now); rest != time.Hour {
		t.Errorf("after Retry-After of 12h it rests %v", rest)
	}
}
