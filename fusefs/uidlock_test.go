package fusefs

import "testing"

// A lock that is kept is joined, not taken again; it goes when a program asks for it and nobody uses it.
func TestAKeptLockGoesWhenAProgramAsks(t *testing.T) {
	l := newUIDLocks()
	held := 0
	take := func() func() {
		if done, ok := l.join("box"); ok {
			return done
		}
		held++
		return l.keep("box", func() { held-- })
	}
	expect := func(what string, want int) {
		t.Helper()
		if held != want {
			t.Errorf("%s: held %d times, want %d", what, held, want)
		}
	}
	a := take()
	b := take()
	expect("two users", 1)
	a()
	b()
	expect("nobody uses it", 1)
	take()()
	expect("used again", 1)
	l.yield("box")
	expect("a program asked", 0)

	a = take()
	l.yield("box")
	expect("a program asked while it is used", 1)
	b = take()
	expect("others cannot join what is to go", 2)
	a()
	expect("the first user is done", 1)
	b()
	l.close()
	expect("closed", 0)

	l.taken("box")
	take()()
	expect("nothing is kept from a program that has it", 0)
}
