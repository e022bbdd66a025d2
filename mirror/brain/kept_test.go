package brain_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// aside keeps some mails of a mailbox, from the beginning.
type aside struct {
	mails map[mail.GUID]string
	more  chan struct{}
}

func (a *aside) Mail(box mail.Name, guid mail.GUID) (brain.KeptMail, bool) {
	text, ok := a.mails[guid]
	return brain.KeptMail{Body: strings.NewReader(text), Size: int64(len(text))}, ok && box == "INBOX"
}

func (a *aside) Since(box mail.Name, n int) (guids []mail.GUID, all int, more <-chan struct{}) {
	if box == "INBOX" && n == 0 {
		for guid := range a.mails {
			guids = append(guids, guid)
		}
		n = len(guids)
	}
	return guids, n, a.more
}

// patient is a slave's end that sends no mail before it has heard of so many that are kept.
type patient struct {
	brain.Peer
	receipts chan struct{}
	heard    bool // the last item was a receipt
	waited   bool
	sent     map[mail.GUID]int64 // bytes of bodies
	fields   map[mail.GUID]int64 // what was said besides
}

func (p *patient) Recv() (item.Item, error) {
	if p.heard {
		p.receipts <- struct{}{} // and taken: who asks for the next item is done with it
	}
	it, err := p.Peer.Recv()
	_, p.heard = it.(*item.Receipt)
	return it, err
}

func (p *patient) Send(it item.Item) error {
	m, ok := it.(*item.Mail)
	if !ok {
		return p.Peer.Send(it)
	}
	if !p.waited {
		p.waited = true
		for range cap(p.receipts) {
			<-p.receipts
		}
	}
	text, err := io.ReadAll(m.Body)
	if err = errors.Join(err, m.Body.Close()); err != nil {
		return err
	}
	p.sent[m.GUID], p.fields[m.GUID] = int64(len(text)), m.Received
	m.Body = io.NopCloser(strings.NewReader(string(text)))
	return p.Peer.Send(m)
}

// TestKeptMailsAreNotSentAgain: what was read beside a round does not come a second time, but everything else that is to be said of
// it does. What is kept under a wrong size, or that the other side does not have, is of no use and does no harm.
func TestKeptMailsAreNotSentAgain(t *testing.T) {
	a, b := pair(t, newClock())
	a.options.Spool, b.options.Spool = newSpool, newSpool
	var guids []mail.GUID
	text := func(i int) string { return fmt.Sprintf("mail %d\n", i) }
	for i := range 4 {
		base, err := b.account.Deliver("INBOX", []byte(text(i)), time.Unix(int64(100+i), 0))
		must(t, err)
		guids = append(guids, mail.GUID(base))
	}
	a.options.Kept = &aside{mails: map[mail.GUID]string{guids[1]: text(1), guids[2]: "too long for this mail", "another": "x", guids[3]: text(3)}}
	var slave *patient
	connect := func() (brain.Peer, brain.Peer, error) {
		m, s, err := overWire()
		slave = &patient{Peer: s, receipts: make(chan struct{}, 4), sent: map[mail.GUID]int64{}, fields: map[mail.GUID]int64{}}
		return m, slave, err
	}
	out, err, serr := syncOnce(a, b, connect, twoWay())
	must(t, errors.Join(err, serr))
	if out.Added != 4 || out.Desync {
		t.Errorf("%+v", out)
	}
	sent := []int64{}
	for i, guid := range guids {
		sent = append(sent, slave.sent[guid])
		if slave.fields[guid] != int64(100+i) {
			t.Errorf("mail %d was received %d", i, slave.fields[guid])
		}
	}
	if !slices.Equal(sent, []int64{7, 0, 7, 0}) {
		t.Errorf("bytes of bodies: %d", sent)
	}
	a.options.Kept = nil
	quiet(t, a, b, overWire)
}

// TestADovecotThatMakesNoSenseIsRefused is about the reading of its newest mails.
func TestADovecotThatMakesNoSenseIsRefused(t *testing.T) {
	tree := []item.Item{
		&item.Handshake{Hostname: "far"}, &item.Node{Parts: []string{"INBOX"}, Existence: mail.Exists, GUID: boxGUID, UIDValidity: 1},
		&item.EndOfList{}, &item.Deletes{Separator: '/'},
	}
	box := &item.Mailbox{Status: mail.Status{GUID: boxGUID, UIDValidity: 1, UIDNext: 9}, HaveGUIDs: true}
	save := &item.Change{Type: item.ChangeSave, UID: 3, GUID: "a"}
	body := func(guid mail.GUID) *item.Mail {
		return &item.Mail{GUID: guid, Received: 1, Body: io.NopCloser(strings.NewReader("text"))}
	}
	end := &item.EndOfList{}
	for name, c := range map[string]struct {
		items []item.Item
		is    error
		taken int
	}{
		"all is well":      {[]item.Item{box, end, save, end, body("a"), end, &item.State{GUID: boxGUID}, &item.Finish{}}, nil, 1},
		"it went away":     {[]item.Item{box, end, save, end, &item.Mail{GUID: "a"}, end, &item.State{GUID: boxGUID}, &item.Finish{}}, nil, 0},
		"no such mailbox":  {[]item.Item{&item.Mailbox{Status: box.Status, Lost: true}, &item.Finish{}}, nil, 0},
		"another mail":     {[]item.Item{box, end, save, end, body("b"), end}, brain.ErrProtocol, 0},
		"a mail twice":     {[]item.Item{box, end, save, end, body("a"), body("a"), end}, brain.ErrProtocol, 1},
		"a request":        {[]item.Item{box, end, save, end, &item.Request{UID: 1}}, brain.ErrProtocol, 0},
		"it gives up":      {[]item.Item{box, end, save, &item.Done{}}, brain.ErrGaveUp, 0},
		"an error at last": {[]item.Item{box, end, end, end, &item.State{GUID: boxGUID}, &item.Finish{Error: "disk full"}}, brain.ErrPeer, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := say(t, slices.Concat(tree, c.items)...)
			taken := 0
			err := v.Newest(t.Context(), 2, func(m mail.Message, it *item.Mail) error {
				taken++
				return nil
			})
			if !errors.Is(err, c.is) || taken != c.taken {
				t.Errorf("%d mails, %v", taken, err)
			}
		})
	}
}

// TestTheNewestAreTheLast of however many, as they come.
func TestTheNewestAreTheLast(t *testing.T) {
	items := []item.Item{
		&item.Handshake{Hostname: "far"}, &item.Node{Parts: []string{"INBOX"}, Existence: mail.Exists, GUID: boxGUID, UIDValidity: 1},
		&item.EndOfList{}, &item.Deletes{Separator: '/'},
		&item.Mailbox{Status: mail.Status{GUID: boxGUID, UIDValidity: 1, UIDNext: 99}, HaveGUIDs: true}, &item.EndOfList{},
	}
	for uid := range mail.UID(20) {
		items = append(items, &item.Change{Type: item.ChangeSave, UID: uid + 1, GUID: mail.GUID(fmt.Sprint("g", uid+1)), Final: mail.FlagSeen})
	}
	items = append(items, &item.EndOfList{})
	for uid := 18; uid <= 20; uid++ {
		items = append(items, &item.Mail{GUID: mail.GUID(fmt.Sprint("g", uid)), Received: 5, Body: io.NopCloser(strings.NewReader("text"))})
	}
	items = append(items, &item.EndOfList{}, &item.State{GUID: boxGUID}, &item.Finish{})
	var got []mail.Message
	err := say(t, items...).Newest(t.Context(), 3, func(m mail.Message, it *item.Mail) error {
		got = append(got, m)
		return nil
	})
	if err != nil || len(got) != 3 || got[0].UID != 18 || got[2].UID != 20 || got[2].GUID != "g20" || got[2].Flags != mail.FlagSeen || got[2].Received != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}
