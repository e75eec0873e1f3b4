package receiver

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The types of what is read of a payload. A good delivery may have any value
// anywhere: one of another kind than is wanted counts as absent, as does null.

// text is a string.
type text string

// UnmarshalJSONFrom reads a value.
func (t *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*t = ""
	if dec.PeekKind() != '"' {
		return dec.SkipValue()
	}
	token, err := dec.ReadToken()
	if err == nil {
		*t = text(token.String())
	}
	return err
}

// flag is a boolean.
type flag bool

// UnmarshalJSONFrom reads a value.
func (f *flag) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*f = dec.PeekKind() == 't'
	return dec.SkipValue()
}

// number is a number.
type number float64

// UnmarshalJSONFrom reads a value.
func (n *number) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*n = 0
	if dec.PeekKind() != '0' {
		return dec.SkipValue()
	}
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if v, err := token.Float(); err == nil { // too large for a float64: absent
		*n = number(v)
	}
	return nil
}

// object is an object.
type object[T any] struct {
	is bool
	v  T
}

// UnmarshalJSONFrom reads a value.
func (o *object[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*o = object[T]{}
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	o.is = true
	return json.UnmarshalDecode(dec, &o.v)
}

// list is a list.
type list[T any] struct {
	is bool
	v  []T
}

// UnmarshalJSONFrom reads a value.
func (l *list[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*l = list[T]{}
	if dec.PeekKind() != '[' {
		return dec.SkipValue()
	}
	l.is = true
	return json.UnmarshalDecode(dec, &l.v)
}
