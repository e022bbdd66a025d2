package index

import (
	"fmt"
	"runtime/debug"
)

// guard runs f, which reads the file through its mapping. Where a damaged file makes bbolt panic, or reading beyond the end
// of a shortened one faults, the error is [ErrCorrupt].
func guard(op string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %w: %v", op, ErrCorrupt, p)
		}
	}()
	return f()
}
