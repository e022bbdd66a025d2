package sim

import "slices"

// Shrink makes a history that fails shorter, as long as it fails and budget runs are not used up. fails reports whether a
// history still does.
func Shrink(h History, budget int, fails func(History) bool) History {
	try := func(next History) bool {
		if budget <= 0 {
			return false
		}
		budget--
		if !fails(next) {
			return false
		}
		h = next
		return true
	}
	for size := len(h.Steps) / 2; size >= 1; {
		shorter := false
		for at := 0; at+size <= len(h.Steps); {
			next := h
			next.Steps = slices.Delete(slices.Clone(h.Steps), at, at+size)
			if try(next) {
				shorter = true
			} else {
				at += size
			}
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	for i := range h.Steps {
		for _, simpler := range simplify(h.Steps[i]) {
			next := h
			next.Steps = slices.Clone(h.Steps)
			next.Steps[i] = simpler
			try(next)
		}
	}
	return h
}

// simplify returns forms of a step in which less happens, each from the step as it was.
func simplify(s Step) (out []Step) {
	if s.Op != "sync" {
		return nil
	}
	change := func(f func(*Step)) {
		next := s
		f(&next)
		out = append(out, next)
	}
	if s.Users > 0 {
		change(func(s *Step) { s.Users = 0 })
	}
	if s.Edits > 0 {
		change(func(s *Step) { s.Edits = 0 })
	}
	if s.Cut > 0 {
		change(func(s *Step) { s.Cut = 0 })
	}
	if s.Fault != nil {
		change(func(s *Step) { s.Fault = nil })
	}
	if s.Wire {
		change(func(s *Step) { s.Wire = false })
	}
	return out
}
