package daemon

import (
	"context"

	"dsyncfs/cmd/internal/watch"
)

// watchNetwork has the remote tried at once when the network changed or the machine came back from sleep. Where that cannot be
// noticed, keepalives and the pauses between attempts have to do.
func (m *mounted) watchNetwork(ctx context.Context) error {
	changes, wait, err := watch.Network(ctx, m.o.Logger)
	if err != nil {
		m.o.Logger.Warn("a network that comes back is noticed late", "err", err)
		return nil
	}
	defer wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case what := <-changes:
			m.o.Logger.Debug("the remote may be gone, or back", "because", what)
			if m.o.Probe != nil {
				m.o.Probe()
			}
			m.engine.Retry()
		}
	}
}
