package git

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// refName is a branch or a tag, and the commit that it leads to.
type refName struct {
	name      string // whole: refs/tags/v1
	commit    plumbing.Hash
	annotated bool
	tagged    int64 // seconds, of an annotated tag; 0 = not known
}

// namesMost is how many names of commits are kept in memory to describe one.
const namesMost = 100_000

// refNames asks the remote for its branches and tags, by name, and for what
// HEAD points to.
func (m *Mirror) refNames(ctx context.Context) (list []refName, head string, err error) {
	remote, err := m.connector()
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	var source *objects // tags can be read
	if path, ok := remote.(local); ok {
		if source, err = path.open(); err == nil {
			defer source.close()
		}
	}
	_, err = m.eachRef(ctx, []string{"HEAD", "refs/heads/", "refs/tags/"}, func(a advertised) error {
		if a.name == "HEAD" {
			head = a.target
			return nil
		}
		if len(list) == namesMost {
			return fmt.Errorf("there are more than %d branches and tags", namesMost)
		}
		r := refName{name: a.name, commit: a.id}
		if !a.peeled.IsZero() {
			r.commit, r.annotated = a.peeled, true
		} else if source != nil && strings.HasPrefix(a.name, "refs/tags/") {
			if tag, err := source.tag(a.id); err == nil && tag.Target != a.id && !tag.Target.IsZero() {
				if c, err := source.peel(a.id); err == nil {
					r.commit, r.annotated, r.tagged = plumbing.NewHash(c), true, tag.Tagger.When.Unix()
				}
			}
		}
		list = append(list, r)
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(list, func(a, b refName) int { return cmp.Compare(a.name, b.name) })
	return list, head, nil
}

// decorated gives the names of a commit as %D has them.
func decorated(list []refName, head string, commit plumbing.Hash) []string {
	var names []string
	for i := len(list) - 1; i >= 0; i-- {
		r := list[i]
		if r.commit != commit {
			continue
		}
		switch tag, ok := strings.CutPrefix(r.name, "refs/tags/"); {
		case ok:
			names = append(names, "tag: "+tag)
		case r.name == head:
			names = append([]string{"HEAD -> " + strings.TrimPrefix(r.name, "refs/heads/")}, names...)
		default:
			names = append(names, strings.TrimPrefix(r.name, "refs/heads/"))
		}
	}
	return names
}

// abbreviate gives as many digits of an id as git would: those asked for, or
// below 0 enough for a repository of this size, and more where others begin alike.
//
// Source: git's repo_find_unique_abbrev_r (object-name.c).
func (o *objects) abbreviate(h plumbing.Hash, digits int) (string, error) {
	id := h.String()
	if digits = min(digits, len(id)); digits < 0 {
		packed := uint64(0)
		for _, p := range o.list {
			packed += uint64(p.n)
		}
		digits = max((bits.Len64(packed)+1)/2, abbreviated)
	}
	var others []plumbing.Hash
	for _, p := range o.list {
		beside, err := p.beside(h)
		if err != nil {
			return "", err
		}
		others = append(others, beside...)
	}
	if o.Storage != nil {
		loose, err := o.HashesWithPrefix(h[:digits/2])
		if err != nil {
			return "", fmt.Errorf("%w: %w", errDamaged, err)
		}
		others = append(others, loose...)
	}
	for _, other := range others {
		s := other.String()
		for other != h && digits < len(id) && s[:digits] == id[:digits] {
			digits++
		}
	}
	return id[:digits], nil
}

// candidatesMost is how many tags git describe compares.
const candidatesMost = 10

// candidate is a tag that a commit may be described by.
type candidate struct {
	name  string
	depth int
	bit   uint
}

// describer names a commit by the nearest tag before it.
//
// Source: git's builtin/describe.c.
type describer struct {
	ctx   context.Context
	o     *objects
	seen  map[plumbing.Hash]uint // bits of the candidates that contain a commit
	queue commitQueue
	count int
}

// describe gives what git describe prints; empty where it finds no tag.
func (o *objects) describe(ctx context.Context, commit plumbing.Hash, list []refName, opts describeOptions) (string, error) {
	tags, err := tagsFor(list, opts)
	if err != nil {
		return "", err
	}
	if r, ok := tags[commit]; ok && (opts.tags || r.annotated) {
		return strings.TrimPrefix(r.name, "refs/tags/"), nil
	}
	d := &describer{ctx: ctx, o: o, seen: map[plumbing.Hash]uint{}}
	if err := d.push(commit, 0); err != nil {
		return "", err
	}
	var found []*candidate
	var gaveUp *queued
	annotated := false
	for d.queue.Len() > 0 {
		c := heap.Pop(&d.queue).(*queued)
		d.count++
		if r, ok := tags[c.hash]; ok && (opts.tags || r.annotated) {
			if len(found) == candidatesMost {
				gaveUp = c
				break
			}
			t := &candidate{strings.TrimPrefix(r.name, "refs/tags/"), d.count - 1, 1 << len(found)}
			found = append(found, t)
			d.seen[c.hash] |= t.bit
			annotated = annotated || r.annotated
		}
		within := d.seen[c.hash]
		best, bestBits := -1, uint(0)
		for _, t := range found {
			if within&t.bit == 0 {
				t.depth++
			}
			switch {
			case best < 0 || t.depth < best:
				best, bestBits = t.depth, t.bit
			case t.depth == best:
				bestBits |= t.bit
			}
		}
		if annotated && d.queue.Len() == 0 && within&bestBits == bestBits {
			break
		}
		if err := d.parents(c, within); err != nil {
			return "", err
		}
	}
	if len(found) == 0 {
		return "", nil
	}
	slices.SortStableFunc(found, func(a, b *candidate) int { return cmp.Compare(a.depth, b.depth) })
	if gaveUp != nil {
		heap.Push(&d.queue, gaveUp)
	}
	best := found[0]
	if err := d.finish(best); err != nil {
		return "", err
	}
	if opts.abbrev == 0 {
		return best.name, nil
	}
	short, err := o.abbreviate(commit, shortest(opts.abbrev))
	return best.name + "-" + strconv.Itoa(best.depth) + "-g" + short, err
}

// finish counts the commits that the best tag does not contain to the end.
func (d *describer) finish(best *candidate) error {
	for d.queue.Len() > 0 {
		c := heap.Pop(&d.queue).(*queued)
		within := d.seen[c.hash]
		if within&best.bit == 0 {
			best.depth++
		} else if !slices.ContainsFunc(d.queue.list, func(q *queued) bool { return d.seen[q.hash]&best.bit == 0 }) {
			return nil
		}
		if err := d.parents(c, within); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) parents(c *queued, within uint) error {
	for _, h := range c.parents {
		if err := d.push(h, within); err != nil {
			return err
		}
	}
	return d.ctx.Err()
}

// push queues a commit that was not seen yet. What is not here ends the
// history, as the edge of a shallow one does.
func (d *describer) push(h plumbing.Hash, within uint) error {
	had, seen := d.seen[h]
	d.seen[h] = had | within
	if seen {
		return nil
	}
	c, err := d.o.commit(h)
	if errors.Is(err, errNotHere) {
		delete(d.seen, h)
		return nil
	}
	if err != nil {
		return err
	}
	heap.Push(&d.queue, &queued{h, c.ParentHashes, c.Committer.When, len(d.seen)})
	return nil
}

// queued is a commit that waits to be looked at, the newest first.
type queued struct {
	hash    plumbing.Hash
	parents []plumbing.Hash
	when    time.Time
	order   int
}

type commitQueue struct{ list []*queued }

func (q *commitQueue) Len() int { return len(q.list) }
func (q *commitQueue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if a.when.Equal(b.when) {
		return a.order < b.order
	}
	return a.when.After(b.when)
}
func (q *commitQueue) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *commitQueue) Push(x any)    { q.list = append(q.list, x.(*queued)) }
func (q *commitQueue) Pop() any {
	last := q.list[len(q.list)-1]
	q.list = q.list[:len(q.list)-1]
	return last
}

// tagsFor gives the tag of each commit that describing may use: an annotated
// one before others, the newest of those.
func tagsFor(list []refName, opts describeOptions) (map[plumbing.Hash]refName, error) {
	tags := map[plumbing.Hash]refName{}
	for _, r := range list {
		name, ok := strings.CutPrefix(r.name, "refs/tags/")
		if !ok {
			continue
		}
		in, err := anyGlob(opts.match, name)
		if err != nil {
			return nil, err
		}
		out, err := anyGlob(opts.exclude, name)
		if err != nil {
			return nil, err
		}
		if len(opts.match) > 0 && !in || out {
			continue
		}
		old, ok := tags[r.commit]
		if !ok || r.annotated && (!old.annotated || r.tagged > old.tagged) {
			tags[r.commit] = r
		}
	}
	return tags, nil
}

func anyGlob(patterns []string, name string) (bool, error) {
	for _, p := range patterns {
		if ok, err := glob(p, name, false); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// mailmapMost bounds .mailmap, in bytes.
const mailmapMost = 1 << 20

// mailmap gives people the names and addresses that they have now.
//
// Source: gitmailmap(5).
type mailmap map[string]person

func (m mailmap) of(name, mail string) (string, string) {
	to, ok := m[strings.ToLower(mail)+"\x00"+strings.ToLower(name)]
	if !ok {
		to = m[strings.ToLower(mail)]
	}
	if to.name != "" {
		name = to.name
	}
	if to.mail != "" {
		mail = to.mail
	}
	return name, mail
}

func parseMailmap(text string) mailmap {
	m := mailmap{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name1, mail1, rest, ok := nameAndMail(line)
		if !ok {
			continue
		}
		name2, mail2, _, two := nameAndMail(rest)
		to, key := person{name: name1}, strings.ToLower(mail1)
		if two {
			to.mail, key = mail1, strings.ToLower(mail2)
			if name2 != "" {
				key += "\x00" + strings.ToLower(name2)
			}
		}
		old := m[key]
		if to.name == "" {
			to.name = old.name
		}
		if to.mail == "" {
			to.mail = old.mail
		}
		m[key] = to
	}
	return m
}

func nameAndMail(s string) (name, mail, rest string, ok bool) {
	name, s, ok = strings.Cut(s, "<")
	if !ok {
		return "", "", "", false
	}
	mail, rest, ok = strings.Cut(s, ">")
	return strings.TrimSpace(name), mail, rest, ok
}

// shortest is the least number of digits that git abbreviates to.
func shortest(digits int) int {
	const least = 4
	if digits < 0 {
		return digits
	}
	return max(digits, least)
}
