package dsync

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// FuzzDecodeStream holds that no stream makes a Peer panic or hang, and that it ends with io.EOF or an error of a known kind.
func FuzzDecodeStream(f *testing.F) {
	for _, path := range traceFiles(f) {
		f.Add(readFile(f, path))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		items, bodies, err := receive(data)
		if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) {
			t.Fatalf("%d items, %d bodies, %v", len(items), len(bodies), err)
		}
	})
}

// FuzzItem holds that a line that decodes to an item can be sent again, under our field lists, and decodes to the same.
func FuzzItem(f *testing.F) {
	for _, path := range traceFiles(f) {
		for line := range bytes.SplitSeq(readFile(f, path), []byte{'\n'}) {
			if len(line) > 0 && kindOf(line[0]) != nil {
				f.Add(line)
			}
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 || kindOf(line[0]) == nil || bytes.ContainsAny(line, "\n\x00") {
			return
		}
		it, err := itemOf(line)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		again, err := lineOf(it, true)
		if err != nil {
			t.Fatalf("%q decodes to %+v: %v", line, it, err)
		}
		if bytes.ContainsAny(again, "\n\r\x00") {
			t.Fatalf("%q", again)
		}
		if k := kindOf(line[0]); k == mailKind || k == attributeKind {
			return // their streams are not part of the line
		}
		got, err := itemOf(again)
		if err != nil || !reflect.DeepEqual(got, it) {
			t.Fatalf("%q: %+v, %v; was %+v", again, got, err, it)
		}
	})
}

// FuzzEscape holds that a field survives, that no line end gets into a line, and that lists do as well.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("a\x00\x01\t\n\rb"))
	f.Add([]byte("\x02"))
	f.Fuzz(func(t *testing.T, v []byte) {
		wire := appendEscaped(nil, v)
		if bytes.ContainsAny(wire, "\x00\t\n\r") {
			t.Fatalf("%q", wire)
		}
		if got := appendUnescaped(nil, wire); !bytes.Equal(got, v) {
			t.Fatalf("%q: %q, want %q", wire, got, v)
		}
		if stable := appendUnescaped(nil, appendEscaped(nil, appendUnescaped(nil, v))); !bytes.Equal(stable, appendUnescaped(nil, v)) {
			t.Fatalf("%q", stable)
		}
		var r record
		r.reset(requestKind)
		r.set(rGUID, appendField([]byte{}, append([]byte{}, v...)))
		if !bytes.Equal(r.values[rGUID], v) || r.values[rGUID] == nil {
			t.Fatalf("field %q, want %q", r.values[rGUID], v)
		}
		list := []string{string(v), "", string(v)}
		got, err := splitList(appendList(nil, list, '\t'), '\t')
		if err != nil || !reflect.DeepEqual(got, list) {
			t.Fatalf("list %q, %v, want %q", got, err, list)
		}
	})
}

// FuzzValueStream compares the reader of value streams with the rule of the format, on streams that nobody wrote, and holds
// that what it reads can be written and read again.
func FuzzValueStream(f *testing.F) {
	for _, s := range []string{"", "\r\n.\r\n", "a\n.\n", ".\r\n", "..\r\n.\r\nF\n", "a\r\r\n.\r\n", "\n.\r", "\x00\n..\n\r\n.\r\n"} {
		f.Add([]byte(s))
	}
	for _, path := range traceFiles(f) {
		f.Add(readFile(f, path))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := bufio.NewReaderSize(bytes.NewReader(data), 16)
		got, err := io.ReadAll(valueOf(src))
		want, wantRest, ok := referenceDecode(data)
		if !ok {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%q, %v", got, err)
			}
			return
		}
		rest, _ := io.ReadAll(src)
		if err != nil || !bytes.Equal(got, want) || !bytes.Equal(rest, wantRest) {
			t.Fatalf("got %q, %v, rest %q; want %q, rest %q", got, err, rest, want, wantRest)
		}
		again, _, ok := referenceDecode(encodeValue(t, got, 7))
		if !ok || !bytes.Equal(again, got) {
			t.Fatalf("%q is written as a stream of %q", got, again)
		}
	})
}
