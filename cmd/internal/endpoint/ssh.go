package endpoint

import (
	"context"

	"dsyncfs/remote"
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

// Reach connects to the host without starting anything there, so that what is wrong with the connection shows early.
func (r *Remote) Reach(ctx context.Context) error {
	if r.local != nil {
		return nil
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
