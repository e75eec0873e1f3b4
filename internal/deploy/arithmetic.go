package deploy

import (
	"math"
	"math/big"
)

// arithmetic stands for the library's operators on numbers, which know neither
// the path that was wrong nor that nothing is divided by zero.
var arithmetic = map[string]func(a, b any, left, right string) (any, error){
	"-":  whole2("-", (*big.Int).Sub, func(x, y float64) float64 { return x - y }),
	"*":  whole2("*", (*big.Int).Mul, func(x, y float64) float64 { return x * y }),
	"**": onNumbers("**", math.Pow),
	"^":  onNumbers("^", math.Pow),
	"/": func(a, b any, left, right string) (any, error) {
		if y, ok := float(b); ok && y == 0 {
			return nil, badOperand("%s / %s divides by zero", left, right)
		}
		return onNumbers("/", func(x, y float64) float64 { return x / y })(a, b, left, right)
	},
	"%": func(a, b any, left, right string) (any, error) {
		x, okX := number(a)
		y, okY := number(b)
		switch {
		case !okX || !okY:
			return nil, badOperand("%s is %s and %s is %s: %% takes two whole numbers", left, kindOf(a), right, kindOf(b))
		case y == 0:
			return nil, badOperand("%s %% %s divides by zero", left, right)
		}
		return x % y, nil
	},
}

// whole2 is exact for two whole numbers whose result is one of 64 bits.
func whole2(name string, exact func(z, x, y *big.Int) *big.Int, fn func(x, y float64) float64) func(a, b any, left, right string) (any, error) {
	return func(a, b any, left, right string) (any, error) {
		x, okX := a.(int)
		y, okY := b.(int)
		if okX && okY {
			if z := exact(new(big.Int), big.NewInt(int64(x)), big.NewInt(int64(y))); z.IsInt64() {
				return int(z.Int64()), nil
			}
		}
		return onNumbers(name, fn)(a, b, left, right)
	}
}

// onNumbers is fn on two numbers; what is none any more is an error.
func onNumbers(name string, fn func(x, y float64) float64) func(a, b any, left, right string) (any, error) {
	return func(a, b any, left, right string) (any, error) {
		x, okX := float(a)
		y, okY := float(b)
		if !okX || !okY {
			return nil, badOperand("%s is %s and %s is %s: %s takes two numbers", left, kindOf(a), right, kindOf(b), name)
		}
		z := fn(x, y)
		if math.IsInf(z, 0) || math.IsNaN(z) {
			return nil, badOperand("%s %s %s is no number any more", left, name, right)
		}
		return z, nil
	}
}
