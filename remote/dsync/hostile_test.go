package dsync

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"dsyncfs/mirror/item"
)

func TestBadGreetingsAreRefused(t *testing.T) {
	good := greeting(t)
	for _, c := range []struct {
		name, said, want string
		is               error
	}{
		{"nothing", "", "before the end of its greeting", io.ErrUnexpectedEOF},
		{"half a line", "VERSION\tdsy", "in the middle of a line", io.ErrUnexpectedEOF},
		{"a shell", "bash: line 1: dsyncfs: command not found\n", `not a dsync server: it says "bash: line 1: dsyncfs: command not found"`, ErrProtocol},
		{"terminal escapes", "\x1b[2J\n", `"\x1b[2J"`, ErrProtocol},
		{"another service", "VERSION\tauth\t3\t5\n", "not a dsync server", ErrProtocol},
		{"another major version", "VERSION\tdsync\t4\t0\n", "version 4 of the dsync protocol, not 3", ErrProtocol},
		{"a version that is no number", "VERSION\tdsync\tx\t0\n", "version line", ErrProtocol},
		{"a version too few", "VERSION\tdsync\t3\n", "not a dsync server", ErrProtocol},
		{"an endless line", strings.Repeat("x", greetingLimit+10), "longer than 65536 bytes", ErrProtocol},
		{"endless kinds", "VERSION\tdsync\t3\t5\n" + strings.Repeat("?\n", maxHeaders), "more than 256 kinds", ErrProtocol},
		{"no field lists", "VERSION\tdsync\t3\t5\n.\n", "no fields announced for handshake", ErrProtocol},
		{"a kind is missing", strings.Replace(good, "\nRguid\tuid\tdsyncfs_have\tdsyncfs_mailbox\n", "\n", 1), "no fields announced for mail_request", ErrProtocol},
		{"a required field is missing", strings.Replace(good, "\nNname\t", "\nN", 1), "required field name is not announced", ErrProtocol},
		{"a field twice", strings.Replace(good, "\nRguid\tuid\tdsyncfs_have\tdsyncfs_mailbox\n", "\nRguid\tguid\n", 1), "field guid is announced twice", ErrProtocol},
		{"a kind twice", strings.Replace(good, "\nRguid\tuid\tdsyncfs_have\tdsyncfs_mailbox\n", "\nRguid\tuid\nRguid\tuid\tdsyncfs_have\tdsyncfs_mailbox\n", 1), "announced twice", ErrProtocol},
		{"an empty line", "VERSION\tdsync\t3\t5\n\n", "empty line", ErrProtocol},
		{"NUL", "VERSION\tdsync\t3\t5\nN\x00\n", "NUL", ErrProtocol},
		{"the end in the field lists", good[:len(good)-2], "before the end of its greeting", io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPeer(stream{strings.NewReader(c.said)}, Options{Name: "far"})
			err := p.Handshake(context.Background())
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "dsync far: ") {
				t.Errorf("%v", err)
			}
			if err := p.Send(&item.Done{}); err == nil {
				t.Error("a peer without handshake takes items")
			}
			if _, err := p.Recv(); err == nil || err == io.EOF {
				t.Errorf("a peer without handshake gives items: %v", err)
			}
		})
	}
}

func TestUnknownKindsAndFieldsAreIgnored(t *testing.T) {
	said := strings.Replace(greeting(t), "\nRguid\tuid\tdsyncfs_have\tdsyncfs_mailbox\n", "\nYjunk\tmore\nX\nRjunk\tuid\tguid\n", 1) + "R17\t3\tg\nX\n"
	p := NewPeer(stream{strings.NewReader(said)}, Options{})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if it, err := p.Recv(); err != nil || !reflect.DeepEqual(it, &item.Request{GUID: "g", UID: 3}) {
		t.Errorf("%+v, %v", it, err)
	}
}

func TestBadLinesEndTheConversation(t *testing.T) {
	good := greeting(t)
	for _, c := range []struct {
		name, line string
		want       error
		text       string
	}{
		{"unknown letter", "Yx\n", ErrProtocol, `unexpected line "Yx"`},
		{"an item with an error", "Cs\t0\n", ErrProtocol, "mail_change: uid"},
		{"a longer Done", "Xx\n", ErrProtocol, "unexpected line"},
		{"an endless line", "C" + strings.Repeat("x", lineLimit+10), ErrProtocol, "longer than 1048576 bytes"},
		{"an endless line of a long kind", "N" + strings.Repeat("x", longLimit+10), ErrProtocol, "longer than 16777216 bytes"},
		{"half a line", "Cs", io.ErrUnexpectedEOF, "in the middle of a line"},
		{"half a body", "Mg\t\x02\t\t\x02\t1\t1\t\nabc", io.ErrUnexpectedEOF, "in the middle of a body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPeer(stream{strings.NewReader(good + c.line)}, Options{Name: "far"})
			if err := p.Handshake(context.Background()); err != nil {
				t.Fatal(err)
			}
			it, err := p.Recv()
			if m, ok := it.(*item.Mail); ok {
				_, bodyErr := io.ReadAll(m.Body)
				if _, err = p.Recv(); !errors.Is(bodyErr, c.want) || strings.Count(bodyErr.Error(), "far") != 1 {
					t.Errorf("body: %v", bodyErr)
				}
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "dsync far: ") {
				t.Errorf("%v", err)
			}
			if again := p.Send(&item.Done{}); !errors.Is(again, c.want) {
				t.Errorf("a broken conversation goes on: %v", again)
			}
		})
	}
}

// endless yields the same byte for ever and counts.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.n += len(p)
	return len(p), nil
}

func TestEndlessLineIsNotRead(t *testing.T) {
	rest := &endless{}
	p := NewPeer(stream{io.MultiReader(strings.NewReader(greeting(t)+"C"), io.LimitReader(rest, 8*lineLimit))}, Options{})
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Recv(); !errors.Is(err, ErrProtocol) || rest.n > lineLimit+2*bufferSize {
		t.Errorf("%v after %d bytes", err, rest.n)
	}
}
