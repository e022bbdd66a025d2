// Package dovecot has the end-to-end tests of dsyncfs with a stock Dovecot at the other end, in both roles: what a client of
// Dovecot sees on the two sides must be the same, and Dovecot must have nothing to complain about.
package dovecot

import (
	"os"
	"testing"

	"dsyncfs/integration/harness"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(linkVariable); spec != "" {
		os.Exit(runLink(spec))
	}
	os.Exit(harness.Main(m))
}
