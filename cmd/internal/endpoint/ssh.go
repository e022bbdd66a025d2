package endpoint

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"

	"dsyncfs/remote"
	"dsyncfs/remote/command"
	"dsyncfs/remote/ssh"
)

// newSSHDialer makes the built-in ssh client of the settings.
func newSSHDialer(r *Remote, o RemoteOptions) (remote.Dialer, error) {
	opts := ssh.Options{
		Host: r.Location.Host, Login: r.Location.Login, Port: r.Location.Port,
		Warn: func(text string) { r.log.Warn(text) }, Stderr: r.stderr, KeepaliveInterval: r.cfg.KeepAlive,
		Prompt: ssh.TerminalPrompt,
	}
	if !o.Ask {
		opts.Prompt = ssh.NoPrompt
	}
	if r.cfg.SSHConfig != "" {
		opts.ConfigFiles = []string{r.cfg.SSHConfig}
	}
	if r.cfg.KnownHosts != "" {
		opts.KnownHosts = []string{r.cfg.KnownHosts}
	}
	if r.cfg.Identity != "" {
		opts.Identities = []string{r.cfg.Identity}
	}
	return ssh.New(opts)
}

// Reach connects to the host without starting anything there, so that what is wrong with the connection shows early. Of a
// program that is run here it only looks whether it is there.
func (r *Remote) Reach(ctx context.Context) error {
	if r.local != nil {
		return nil
	}
	if _, ok := r.dialer.(*command.Dialer); ok {
		return r.checkProgram()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != nil {
		return nil
	}
	s, err := r.dialer.Dial(ctx)
	if err == nil {
		r.session = s
	}
	return err
}

// checkProgram reports whether the program is there that would be run here.
func (r *Remote) checkProgram() error {
	words := r.cmd
	if r.Location.Kind == remote.KindSSH && r.cfg.RemoteCmd == "" {
		words = append(strings.Fields(r.cfg.SSHCommand), "ssh")
	}
	if len(words) == 0 {
		return nil // running it says what is wrong
	}
	path := words[0]
	if strings.Contains(path, "/") && !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	if _, err := exec.LookPath(path); err != nil {
		return &remote.Error{Host: r.Name, Op: "run", Class: remote.ErrNotFound, Err: err}
	}
	return nil
}
