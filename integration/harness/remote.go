package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

func (e *Env) children(pid int) string {
	e.TB.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		e.TB.Fatal(err)
	}
	return string(text)
}
