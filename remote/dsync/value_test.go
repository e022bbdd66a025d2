package dsync

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func encodeValue(tb interface{ Fatal(...any) }, content []byte, chunk int) []byte {
	var out bytes.Buffer
	w := bufio.NewWriterSize(&out, 16)
	if err := writeValue(w, bytes.NewReader(content), make([]byte, chunk)); err != nil {
		tb.Fatal(err)
	}
	w.Flush()
	return out.Bytes()
}

func valueOf(src *bufio.Reader) *valueReader {
	return &valueReader{src: src, fail: func(err error) error { return err }}
}

// referenceDecode is the rule of the format, line by line: it returns the content and what follows the terminator.
func referenceDecode(data []byte) (content, rest []byte, ok bool) {
	pending := "" // line break that may belong to the terminator
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return nil, nil, false
		}
		line, brk := data[:i], "\n"
		if data = data[i+1:]; bytes.HasSuffix(line, []byte{'\r'}) {
			line, brk = line[:len(line)-1], "\r\n"
		}
		if string(line) == "." {
			return content, data, true
		}
		content = append(append(content, pending...), bytes.TrimPrefix(line, []byte{'.'})...)
		pending = brk
	}
}

var contents = rapid.Custom(func(t *rapid.T) []byte {
	return rapid.SliceOfN(rapid.SampledFrom([]byte("..\n\n\r\rab\x00")), 0, 200).Draw(t, "content")
})

func TestValueSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := contents.Draw(t, "content")
		wire := encodeValue(t, content, rapid.IntRange(1, 20).Draw(t, "chunk"))
		if ref, rest, ok := referenceDecode(wire); !ok || len(rest) > 0 || !bytes.Equal(ref, content) {
			t.Fatalf("%q is written as %q", content, wire)
		}
		src := bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(append(wire, "F\n"...))), 16)
		if rapid.Bool().Draw(t, "whole") {
			src = bufio.NewReaderSize(bytes.NewReader(append(wire, "F\n"...)), 16)
		}
		var got bytes.Buffer
		var err error
		if v := valueOf(src); rapid.Bool().Draw(t, "writeTo") {
			_, err = v.WriteTo(&got)
		} else {
			_, err = io.Copy(&got, struct{ io.Reader }{iotest.OneByteReader(v)})
		}
		if err != nil || !bytes.Equal(got.Bytes(), content) {
			t.Fatalf("%q: got %q, %v, want %q", wire, got.Bytes(), err, content)
		}
		if rest, _ := io.ReadAll(src); string(rest) != "F\n" {
			t.Fatalf("%q: %q is left", wire, rest)
		}
	})
}

func TestValueForms(t *testing.T) {
	for _, c := range []struct{ name, wire, content string }{
		{"empty", "\r\n.\r\n", ""},
		{"terminator at once", ".\r\n", ""},
		{"terminator with LF alone", "a\n.\n", "a"},
		{"no final newline", "a\r\n.\r\n", "a"},
		{"final LF", "a\n\r\n.\r\n", "a\n"},
		{"final CRLF", "a\r\n\r\n.\r\n", "a\r\n"},
		{"final CR", "a\r\r\n.\r\n", "a\r"},
		{"a dot alone", "..\r\n.\r\n", "."},
		{"a dot that nobody doubled", "a\n.b\r\n.\r\n", "a\nb"},
		{"a dot with a bare CR", "a\n.\rb\r\n.\r\n", "a\n\rb"},
		{"bare CR before a dot", "\r.\r\n.\r\n", "\r."},
		{"NUL", "\x00\r\n.\r\n", "\x00"},
	} {
		got, err := io.ReadAll(valueOf(bufio.NewReader(strings.NewReader(c.wire))))
		if err != nil || string(got) != c.content {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.content)
		}
	}
}

func TestValueWithoutEndIsAnError(t *testing.T) {
	wire := encodeValue(t, []byte("a\n.b\r\n"), 64)
	for n := range len(wire) {
		got, err := io.ReadAll(valueOf(bufio.NewReader(bytes.NewReader(wire[:n]))))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %q, %v", wire[:n], got, err)
		}
	}
}

func TestValueSourceErrorIsTold(t *testing.T) {
	broken := errors.New("disk is broken")
	err := writeValue(bufio.NewWriter(io.Discard), iotest.ErrReader(broken), make([]byte, 8))
	var source *sourceError
	if !errors.As(err, &source) || !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestValueReadAfterDrainIsAnError(t *testing.T) {
	src := bufio.NewReader(strings.NewReader("abc\r\n.\r\nF\n"))
	v := valueOf(src)
	v.Read(make([]byte, 1))
	if err := v.drain(); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Read(make([]byte, 8)); n != 0 || !errors.Is(err, errSkipped) {
		t.Errorf("%d, %v", n, err)
	}
	if rest, _ := io.ReadAll(src); string(rest) != "F\n" {
		t.Errorf("%q is left", rest)
	}
}
