//go:build race

package harness

// raceFlags builds the binary as the tests themselves were built.
var raceFlags = []string{"-race"}
