package dsync

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// child is a running command as a connection.
type child struct {
	io.WriteCloser
	io.Reader
}

// startDovecot starts a stock dsync-server on a Maildir whose INBOX has one file per content.
func startDovecot(t *testing.T, contents ...string) (conn child, wait func() error) {
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed: the format is tested against recordings only")
	}
	tmp, err := os.MkdirTemp("", "dsync") // not t.TempDir: the user that Dovecot becomes has to get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	home := filepath.Join(tmp, "home")
	cur := filepath.Join(home, "Maildir", "cur")
	for _, dir := range []string{cur, filepath.Join(home, "Maildir", "new"), filepath.Join(home, "Maildir", "tmp")} {
		check(t, os.MkdirAll(dir, 0o700))
	}
	for i, c := range contents {
		check(t, os.WriteFile(filepath.Join(cur, fmt.Sprintf("176726160%d.M1P1.example:2,S", i)), []byte(c), 0o600))
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 { // Dovecot refuses to read mail as root
		uid, gid = 65534, 65534
	}
	check(t, os.Chmod(tmp, 0o755))
	check(t, filepath.WalkDir(home, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	}))
	config := filepath.Join(tmp, "dovecot.conf")
	check(t, os.WriteFile(config, fmt.Appendf(nil, "log_path = /dev/stderr\nbase_dir = %s/run\nstate_dir = %s/run\nssl = no\nprotocols =\n"+
		"first_valid_uid = 1\nmail_uid = %d\nmail_gid = %d\nmail_location = maildir:~/Maildir\nnamespace inbox {\n inbox = yes\n separator = /\n}\n",
		tmp, tmp, uid, gid), 0o644))

	cmd := exec.Command(doveadm, "-c", config, "dsync-server")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "USER=someone"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	return child{stdin, stdout}, func() error {
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			return fmt.Errorf("doveadm: %w: %s", err, stderr.Bytes())
		}
		return nil
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// talker is the master of a whole conversation, in one goroutine, as long as little is said.
type talker struct {
	*testing.T
	p *Peer
}

func (t talker) say(items ...item.Item) {
	t.Helper()
	for _, it := range items {
		check(t.T, t.p.Send(it))
	}
	check(t.T, t.p.Flush())
}

// hear receives one item, which must be of type T.
func hear[T item.Item](t talker) T {
	t.Helper()
	it, err := t.p.Recv()
	check(t.T, err)
	got, ok := it.(T)
	if !ok {
		t.Fatalf("heard %T %+v, not %T", it, it, got)
	}
	return got
}

// hearList receives items of type T up to the end of their list.
func hearList[T item.Item](t talker) (out []T) {
	t.Helper()
	for {
		it, err := t.p.Recv()
		check(t.T, err)
		if _, end := it.(*item.EndOfList); end {
			return out
		}
		out = append(out, it.(T))
	}
}

// TestDovecotTalksWithUs is the destination of a backup from a stock dsync-server, which must neither be disturbed by our
// extension nor see it used.
func TestDovecotTalksWithUs(t *testing.T) {
	contents := []string{
		"Subject: dots\n\n.\n..\n.a\n", "Subject: crlf\r\n\r\n.\r\nx\r\n", "Subject: no final newline\n\nx", "Subject: final CR\n\nx\r",
		"Subject: NUL\n\na\x00b\x01\x02\xff\n",
	}
	conn, wait := startDovecot(t, contents...)
	p := NewPeer(conn, Options{Name: "dovecot"})
	defer p.Close()
	check(t, p.Handshake(context.Background()))
	if p.PeerIsDsyncfs() || p.PeerMinor() != 5 {
		t.Errorf("dsyncfs %v, minor %d", p.PeerIsDsyncfs(), p.PeerMinor())
	}
	talk := talker{t, p}
	talk.say(&item.Handshake{
		Hostname: "here", Type: item.SyncFull, SendMailRequests: true, BackupSend: true,
		HashedHeaders: []string{"Date", "Message-ID"}, AltChar: "_", Dsyncfs: 1, Epoch: 1, Boxes: []string{"INBOX"},
	})
	hear[*item.Handshake](talk)
	tree := hearList[*item.Node](talk)
	deletes := hear[*item.Deletes](talk)
	if len(tree) != 1 || tree[0].Parts[0] != "INBOX" || tree[0].Existence != mail.Exists || deletes.Separator != '/' {
		t.Fatalf("tree %+v, deletes %+v", tree, deletes)
	}
	tree[0].Messages = 3 // ours
	talk.say(tree[0], &item.EndOfList{}, &item.Deletes{Separator: deletes.Separator, Escape: deletes.Escape})

	status := mail.Status{GUID: tree[0].GUID, UIDValidity: tree[0].UIDValidity, UIDNext: 1, FirstRecent: 1, HighestModSeq: 1}
	talk.say(&item.Mailbox{Status: status, HaveGUIDs: true, HaveSaveGUIDs: true, NoBase: true})
	if box := hear[*item.Mailbox](talk); box.GUID != status.GUID || box.Messages != uint32(len(contents)) || !box.HaveGUIDs {
		t.Fatalf("mailbox %+v", box)
	}
	hearList[*item.Attribute](talk)
	for _, c := range hearList[*item.Change](talk) {
		if c.Type != item.ChangeSave || c.Final != mail.FlagSeen {
			t.Errorf("change %+v", c)
		}
		talk.say(&item.Request{GUID: c.GUID, UID: c.UID})
	}
	talk.say(&item.EndOfList{})
	var got []string
	for range contents {
		content, err := io.ReadAll(hear[*item.Mail](talk).Body)
		check(t, err)
		got = append(got, string(content))
	}
	hear[*item.EndOfList](talk)
	slices.Sort(got)
	slices.Sort(contents)
	if !slices.Equal(got, contents) {
		t.Errorf("bodies %q, want %q", got, contents)
	}
	talk.say(&item.State{GUID: status.GUID, UIDValidity: status.UIDValidity, Epoch: 1}, &item.EndOfList{})
	hear[*item.State](talk)
	if f := hear[*item.Finish](talk); *f != (item.Finish{}) {
		t.Errorf("finish %+v", f)
	}
	hear[*item.Done](talk)
	check(t, p.Close())
	check(t, wait())
}
