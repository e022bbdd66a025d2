package integration

import (
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// TestCompression counts what passes a narrow link for 5 MB of real mail. A setting of either side counts. On loopback nothing is
// compressed unless it is asked for.
func TestCompression(t *testing.T) {
	t.Parallel()
	mails := harness.Mails(t, harness.CorpusSize)
	var total int
	for i := range mails {
		if total += len(mails[i].Text); total > 5_000_000 {
			mails = mails[:i]
			break
		}
	}
	carried := make(map[string]int64)
	for _, c := range []struct {
		name         string
		here, server string
		narrow       bool
	}{
		{"no", "no", "yes", true}, {"auto", "auto", "auto", true}, {"yes", "yes", "auto", true}, {"yes there", "auto", "yes", true},
		{"no there", "yes", "no", true}, {"loopback", "auto", "auto", false},
	} {
		p := newPair(t)
		r := p.NewRemote()
		link := r.NewLink()
		p.b = r.Maildir
		harness.Build(t, p.a, "a", mails)
		if c.narrow {
			link.Narrow(3_000_000)
			link.Slow(10 * time.Millisecond)
		}
		p.options = append([]string{
			"-o", "mail_location=" + p.a.Location(), "-o", "compress=" + c.here,
			"-o", "server_command=dsyncfs -o compress=" + c.server + " dsync-server",
		}, link.Options(r)...)
		p.other = []string{link.URL}
		p.mirror().Want(0)
		harness.Equal(t, p.a, p.b)
		carried[c.name] = link.Carried()
		t.Logf("compress=%s here, %s there: %d bytes for %d of mail", c.here, c.server, carried[c.name], total)
	}
	for name, share := range map[string]float64{"auto": 0.85, "yes": 0.6, "yes there": 0.6} {
		if got := float64(carried[name]) / float64(carried["no"]); got > share {
			t.Errorf("%s: %.2f of what is sent without", name, got)
		}
	}
	for _, name := range []string{"no there", "loopback"} {
		if got := float64(carried[name]) / float64(carried["no"]); got < 0.9 {
			t.Errorf("%s: nothing is to be compressed, and %.2f of the bytes were sent", name, got)
		}
	}
}
