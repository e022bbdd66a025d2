package endpoint

import (
	"strings"
	"sync"

	"dsyncfs/remote"
)

// stockServer is the dsync server of a Dovecot, which is tried on a host where no dsyncfs is.
type stockServer struct {
	mu  sync.Mutex
	cmd []string // nil: none, or taken already
}

// offer lets the Dovecot of an ssh location be tried.
func (s *stockServer) offer(loc remote.Location) { s.cmd = loc.ServerCommand("doveadm") }

// take puts the stock server in the place of the command that was not found, once.
func (s *stockServer) take(cmd *[]string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	*cmd, s.cmd = s.cmd, nil
	return true
}

// withdraw ends the offer, as something else answered.
func (s *stockServer) withdraw() {
	s.mu.Lock()
	s.cmd = nil
	s.mu.Unlock()
}

// hides reports whether a line of the remote shell only says that the first of two programs is not there.
func (s *stockServer) hides(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil && strings.Contains(line, "not found")
}
