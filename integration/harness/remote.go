package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Remote is another host, as far as dsyncfs can tell: a real sshd on loopback whose user has a home, a PATH and a state
// of his own.
type Remote struct {
	*SSHD
	Maildir // ~/Maildir there, which a dsync server serves unless told otherwise
	Home    string
	URL     string // ssh://user@127.0.0.1:port

	env *Env
}

// NewRemote starts the server. More lines for its configuration may be given. There is no mail yet.
func (e *Env) NewRemote(config ...string) *Remote {
	e.TB.Helper()
	return e.NewRemoteWith(nil, config...)
}

// NewRemoteWith is NewRemote with more variables, NAME=VALUE, in the environment of what is run there.
func (e *Env) NewRemoteWith(variables []string, config ...string) *Remote {
	e.TB.Helper()
	r := &Remote{Home: e.Path("remote"), env: e}
	r.Maildir = Maildir{Path: filepath.Join(r.Home, "Maildir")}
	for _, dir := range []string{r.Home, r.StateHome()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			e.TB.Fatal(err)
		}
	}
	// The first value of a variable counts in sshd, and all have to be in one line.
	vars := []string{
		"HOME=" + r.Home, "XDG_STATE_HOME=" + r.StateHome(), "XDG_CONFIG_HOME=" + filepath.Join(r.Home, "config"),
		"XDG_RUNTIME_DIR=" + r.Home, "PATH=" + filepath.Dir(Binary(e.TB)) + ":/usr/sbin:/usr/bin:/sbin:/bin",
		`"GORACE=atexit_sleep_ms=0 log_path=` + e.Path("race") + `"`, marker + "=" + filepath.Join(e.Dir, "remote"),
	}
	vars = append(vars, variables...)
	r.SSHD = StartSSHD(e.TB, append(config, "SetEnv "+strings.Join(vars, " "))...)
	r.URL = fmt.Sprintf("ssh://%s@127.0.0.1:%d", r.User, r.Port)
	return r
}

// StateHome is the XDG_STATE_HOME there.
func (r *Remote) StateHome() string { return filepath.Join(r.Home, "state") }

// Options are the settings with which it can be reached.
func (r *Remote) Options() []string {
	return []string{"-o", "identity=" + r.ClientKeyFile, "-o", "known_hosts=" + r.KnownHostsFile}
}

// Servers are the processes of this environment that run as a dsync server.
func (e *Env) Servers() []int {
	var pids []int
	for _, p := range markedProcesses(e.Dir) {
		if strings.Contains(p.Command, "dsync-server") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// Sessions are the processes of sshd that serve a connection now, without the one that listens.
func (r *Remote) Sessions() []int {
	var pids []int
	for pid := range strings.FieldsSeq(r.env.children(r.PID)) {
		if n, err := strconv.Atoi(pid); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// Freeze stops what serves a connection now: the dsync servers, and with all also the processes of sshd, so that not even its
// keepalives are answered. Connections stay open, and new ones can be made. thaw lets them go on; the end of the test does, too.
func (r *Remote) Freeze(all bool) (thaw func()) {
	tb := r.env.TB
	tb.Helper()
	pids := r.env.Servers()
	if all {
		pids = r.env.below(r.PID)
	}
	if len(pids) == 0 {
		tb.Fatal("nothing serves a connection")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			tb.Fatal(err)
		}
	}
	thaw = sync.OnceFunc(func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		}
	})
	tb.Cleanup(thaw)
	return thaw
}

// below are all descendants of a process.
func (e *Env) below(pid int) (pids []int) {
	e.TB.Helper()
	for child := range strings.FieldsSeq(e.children(pid)) {
		if n, err := strconv.Atoi(child); err == nil {
			pids = append(append(pids, n), e.below(n)...)
		}
	}
	return pids
}

func (e *Env) children(pid int) string {
	e.TB.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		e.TB.Fatal(err)
	}
	return string(text)
}
