package config

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"deployhook/internal/deploy"
)

// hook reads an inbound endpoint.
func (b *builder) hook(name string, n *node) {
	h := deploy.Hook{
		Name: name, Provider: n.str("provider", "github"),
		Secrets: b.secretsOf(n.get("secret")), Tokens: b.secretsOf(n.get("token")), Signature: b.signature(n),
	}
	if b.absent(n, "secret") && b.absent(n, "token") {
		b.bad(n, "a secret or a token is wanted: without one anybody could start a run")
	}
	if h.Provider == "gitlab" && n.get("secret") != nil {
		// GitLab signs nothing: what it calls a secret is sent as it is.
		if n.get("token") != nil {
			b.bad(n.get("secret"), "with gitlab this is another word for token: write one of them")
		}
		h.Tokens, h.Secrets = append(h.Tokens, h.Secrets...), nil
	}
	b.allow(&h, n.get("allow"))
	b.cfg.Hooks = append(b.cfg.Hooks, h)
}

// secretsOf gives the secrets of a list.
func (b *builder) secretsOf(n *node) (list []deploy.Secret) {
	if n == nil {
		return nil
	}
	for _, i := range n.items {
		s := b.secretOf(i)
		switch {
		case s == nil:
		case slices.Contains(list, *s):
			b.bad(i, "this secret stands in the list twice")
		default:
			list = append(list, *s)
		}
	}
	return list
}

// Defaults of a signature: GitHub's, which others took over.
const (
	signatureHeader = "X-Hub-Signature-256"
	signaturePrefix = "sha256="
)

// signature reads how a generic sender signs.
func (b *builder) signature(hook *node) deploy.Signature {
	n := hook.get("signature")
	s := deploy.Signature{
		Header: n.str("header", signatureHeader), Algorithm: n.str("algorithm", "sha256"), Encoding: n.str("encoding", "hex"),
	}
	if !strings.EqualFold(s.Header, signatureHeader) {
		s.Prefix = n.str("prefix", "")
	} else {
		s.Prefix = n.str("prefix", signaturePrefix)
	}
	if n == nil {
		return s
	}
	switch {
	case hook.str("provider", "github") != "generic":
		if !b.within(hook.path + ".provider") {
			b.bad(n, "this is for provider: generic; %s says by itself how it signs", hook.str("provider", "github"))
		}
	case b.absent(hook, "secret"):
		b.bad(n, "the secret that is the key of the signature is missing")
	}
	if !isHeader(s.Header) {
		b.bad(n.get("header"), "the name of a header has letters, digits and -, like X-Signature, at most 100 characters")
	}
	if p := n.get("prefix"); len(s.Prefix) > 100 || strings.ContainsFunc(s.Prefix, func(r rune) bool { return r < ' ' || r > '~' }) {
		b.bad(p, "a prefix has at most 100 characters that can stand in a header")
	}
	if s.Algorithm == "sha1" {
		b.warn(n.get("algorithm"), "SHA-1 is old: take sha256 where the sender can")
	}
	return s
}

func isHeader(s string) bool {
	return s != "" && len(s) <= 100 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// allowMost bounds a hook's list of networks.
const allowMost = 1000

// allow reads who may send.
func (b *builder) allow(h *deploy.Hook, n *node) {
	switch {
	case n == nil:
		return
	case len(n.items) == 0 && !b.within(n.path):
		b.bad(n, "a list without a network lets nobody in: leave the key out, or write one")
	case len(n.items) > allowMost:
		b.bad(n, "at most %d networks are wanted here", allowMost)
		return
	}
	for _, i := range n.items {
		if slices.Contains(rangeNames, i.text) {
			h.Ranges = append(h.Ranges, i.text)
			continue
		}
		p, err := parseNetwork(i.text)
		switch {
		case i.text == "0.0.0.0/0" || i.text == "::/0":
			b.bad(i, "%s is everybody: leave the key allow out", i.text)
		case err != nil && !strings.ContainsAny(i.text, ".:/"):
			b.bad(i, "%q is neither a network nor one of the published lists: %s%s", short(i.text), strings.Join(rangeNames, ", "), deploy.DidYouMean(i.text, rangeNames))
		case err != nil:
			b.bad(i, "%v", err)
		default:
			h.Allow = append(h.Allow, p)
		}
	}
}

// hookSecret is the place of one of a hook's secrets or tokens.
func (f *File) hookSecret(h *deploy.Hook, key string, i int) string {
	path := "hooks." + h.Name + "." + key
	if f.written[path] == nil { // the alias of token
		path = "hooks." + h.Name + ".secret"
	}
	if item := fmt.Sprintf("%s[%d]", path, i); f.written[item] != nil {
		return item
	}
	return path
}

// keyLeast is how many bytes the key in a whsec_ secret has.
const keyLeast = 16

// unfit says what is wrong with the value of a hook's secret or token; empty
// when nothing is.
func unfit(h *deploy.Hook, key, value string) string {
	if n := utf8.RuneCountInString(value); n < secretLeast {
		return fmt.Sprintf("it has %s, and %d are the least: make one with openssl rand -hex 32", counted(n, "character"), secretLeast)
	}
	if key != "secret" {
		return ""
	}
	switch h.Provider {
	case "azure":
		if user, password, ok := strings.Cut(value, ":"); !ok || user == "" || password == "" {
			return "with azure it is user:password, as the service hook has them"
		}
	case "standard":
		if text, ok := strings.CutPrefix(value, "whsec_"); ok {
			b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
			if err != nil || len(b) < keyLeast {
				return fmt.Sprintf("after whsec_ comes base64 of %d bytes or more: was it copied whole", keyLeast)
			}
		}
	}
	return ""
}
