package brain_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// look collects what a preview tells.
type look struct {
	nodes []string
	mails map[mail.MailboxGUID][]mail.Message
}

func (l *look) at(ctx context.Context, v *brain.Viewer) error {
	l.mails = make(map[mail.MailboxGUID][]mail.Message)
	return v.Look(ctx,
		func(nodes []*item.Node) error {
			for _, n := range nodes {
				l.nodes = append(l.nodes, strings.Join(n.Parts, "/"))
			}
			return nil
		},
		func(box mail.Status, mails []mail.Message) error {
			l.mails[box.GUID] = append(l.mails[box.GUID], mails...)
			return nil
		})
}

var boxGUID = mail.MailboxGUID{1}

func previewed(changes ...*item.Change) []item.Item {
	items := []item.Item{
		&item.Handshake{Hostname: "far", Dsyncfs: 1, Epoch: 7},
		&item.Node{Parts: []string{"INBOX"}, Existence: mail.Exists, GUID: boxGUID, UIDValidity: 1}, &item.EndOfList{},
		&item.Mailbox{Status: mail.Status{GUID: boxGUID, UIDValidity: 1, UIDNext: 9}},
	}
	for _, c := range changes {
		items = append(items, c)
	}
	return append(items, &item.EndOfList{})
}

// say lets a slave say items, in answer to the first one that the master says.
func say(t *testing.T, items ...item.Item) *brain.Viewer {
	t.Helper()
	m, s, err := overWire()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := s.Recv(); err != nil {
			t.Error(err)
		}
		for _, it := range items {
			if err := s.Send(it); err != nil {
				return // the master has had enough
			}
		}
		_ = s.Flush()
		for {
			it, err := s.Recv()
			if err != nil {
				return
			}
			if q, asked := it.(*item.Request); asked {
				_ = s.Send(&item.Mail{GUID: q.GUID + "x", Body: io.NopCloser(strings.NewReader("another"))})
				_ = s.Flush()
			}
		}
	}()
	v := brain.NewViewer(m)
	t.Cleanup(func() {
		v.Close()
		s.Close()
		<-done
	})
	return v
}

func TestAPreviewTellsMessages(t *testing.T) {
	v := say(t, append(previewed(
		&item.Change{Type: item.ChangeSave, UID: 3, GUID: "a", Final: mail.FlagSeen, Received: 5, Size: 7},
		&item.Change{Type: item.ChangeSave, UID: 4, GUID: "b", Size: 8, HasSize: true, VirtualSize: 9},
	), &item.Finish{})...)
	var l look
	if err := l.at(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	want := []mail.Message{
		{UID: 3, GUID: "a", Flags: mail.FlagSeen, Received: 5, Size: 7, VirtualSize: -1}, {UID: 4, GUID: "b", Size: 8, VirtualSize: 9},
	}
	if got := l.mails[boxGUID]; len(got) != 2 || got[0].GUID != "a" || got[0].Size != 7 || got[0].VirtualSize != -1 || got[1].VirtualSize != 9 {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if !slices.Equal(l.nodes, []string{"INBOX"}) || v.PeerName() != "index 0000000000000007" {
		t.Errorf("%q, %s", l.nodes, v.PeerName())
	}
	err := v.Body(t.Context(), "INBOX", "a", func(io.Reader) error { return nil })
	if !errors.Is(err, brain.ErrProtocol) {
		t.Errorf("another mail: %v", err)
	}
}

func TestAPreviewThatMakesNoSenseIsRefused(t *testing.T) {
	one := &item.Change{Type: item.ChangeSave, UID: 3, GUID: "a"}
	for name, c := range map[string]struct {
		items []item.Item
		is    error
		says  string
	}{
		"UIDs that go back":      {previewed(one, &item.Change{Type: item.ChangeSave, UID: 3, GUID: "b"}), brain.ErrProtocol, "message 3"},
		"an expunge":             {previewed(&item.Change{Type: item.ChangeExpunge, UID: 3}), brain.ErrProtocol, "message 3"},
		"another item":           {append(previewed(one), &item.Request{UID: 1}), brain.ErrProtocol, "unexpected"},
		"a failure":              {append(previewed(one), &item.Finish{Error: "its disk is away"}), brain.ErrPeer, "its disk is away"},
		"a failure in a mailbox": {append(previewed(one)[:5], &item.Finish{Error: "its disk is away"}), brain.ErrPeer, "its disk is away"},
		"no handshake":           {[]item.Item{&item.EndOfList{}}, brain.ErrProtocol, "the preview"},
		"an end":                 {append(previewed(one), &item.Done{}), brain.ErrGaveUp, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var l look
			err := l.at(t.Context(), say(t, c.items...))
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
		})
	}
}

// shelf is a preview of one mail.
type shelf struct{ closed bool }

func (*shelf) Epoch() uint64 { return 3 }
func (*shelf) Mailboxes() []mail.Mailbox {
	return []mail.Mailbox{{Name: "INBOX", Existence: mail.Exists, Status: mail.Status{GUID: boxGUID, UIDValidity: 1, UIDNext: 2, Messages: 1}}}
}
func (*shelf) Mails(_ context.Context, _ mail.Mailbox, yield func(mail.Message) error) error {
	return yield(mail.Message{UID: 1, GUID: "a", Size: 4, VirtualSize: -1})
}
func (*shelf) Body(_ context.Context, box mail.Name, guid mail.GUID) (store.Body, error) {
	switch {
	case guid == "broken":
		return nil, errors.New("its disk is away")
	case box != "INBOX" || guid != "a":
		return nil, store.ErrNotFound
	}
	return sized{strings.NewReader("body")}, nil
}
func (s *shelf) Close() error { s.closed = true; return nil }

type sized struct{ *strings.Reader }

func (sized) Close() error { return nil }

func TestAPreviewHandsOutMails(t *testing.T) {
	for name, connect := range map[string]link{"in process": inProcess, "over the wire": overWire} {
		t.Run(name, func(t *testing.T) {
			m, s, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			c := newClock()
			var sh shelf
			slave := brain.NewSlave(options("remote", "far", c), nil, nil)
			slave.Shelf = func(context.Context, bool) (brain.Shelf, error) { return &sh, nil }
			served := make(chan error, 1)
			go func() { served <- slave.Serve(context.Background(), s) }()
			v := brain.NewViewer(m)
			var l look
			if err := l.at(t.Context(), v); err != nil || len(l.mails[boxGUID]) != 1 {
				t.Fatal(l, err)
			}
			for guid, want := range map[mail.GUID]string{"a": "body", "b": ""} {
				got := ""
				err := v.Body(t.Context(), "INBOX", guid, func(r io.Reader) error {
					text, err := io.ReadAll(r)
					got = string(text)
					return err
				})
				if err != nil || got != want {
					t.Errorf("%s: %q, %v", guid, got, err)
				}
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil || !sh.closed {
				t.Error(err, sh.closed)
			}
		})
	}
}

func TestAPreviewThatIsNotToBeHad(t *testing.T) {
	for name, c := range map[string]struct {
		shelf func(context.Context, bool) (brain.Shelf, error)
		says  string
	}{
		"no shelf":       {nil, "remote: this store has no preview"},
		"a broken store": {func(context.Context, bool) (brain.Shelf, error) { return nil, errors.New("no disk") }, "remote: no disk"},
	} {
		t.Run(name, func(t *testing.T) {
			m, s, err := overWire()
			if err != nil {
				t.Fatal(err)
			}
			slave := brain.NewSlave(options("remote", "far", newClock()), nil, nil)
			slave.Shelf = c.shelf
			served := make(chan error, 1)
			go func() { served <- slave.Serve(context.Background(), s) }()
			v := brain.NewViewer(m)
			err = v.Meet(t.Context())
			if !errors.Is(err, brain.ErrPeer) || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
			v.Close()
			if err := <-served; err == nil {
				t.Error("the slave does not say so")
			}
		})
	}
}
