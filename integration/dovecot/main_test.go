// Package dovecot has the end-to-end tests of dsyncfs with a stock Dovecot at the other end, in both roles: what a client of
// Dovecot sees on the two sides must be the same, and Dovecot must have nothing to complain about.
package dovecot

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"dsyncfs/integration/harness"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(linkVariable); spec != "" {
		os.Exit(runLink(spec))
	}
	// Tests here wait for other programs most of the time, and some for the clock.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // cannot fail: it is a number
	}
	os.Exit(harness.Main(m))
}
