package dsync

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dsyncfs/mirror/item"
)

// stream is a connection that yields recorded bytes and swallows what is sent.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

func traceFiles(tb testing.TB) []string {
	files, err := filepath.Glob("testdata/traces/*/*.bin")
	if err != nil || len(files) != 78 {
		tb.Fatalf("%d recorded streams, %v", len(files), err)
	}
	return files
}

func readFile(tb testing.TB, path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// receive decodes a whole stream, bodies included, up to the error that ends it.
func receive(data []byte) (items []item.Item, bodies []string, err error) {
	p := NewPeer(stream{bytes.NewReader(data)}, Options{Name: "trace", Timeout: -1})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		return nil, nil, err
	}
	for {
		it, err := p.Recv()
		if err != nil {
			return items, bodies, err
		}
		items = append(items, it)
		if body := bodyOf(it); body != nil {
			content, err := io.ReadAll(body)
			if err != nil {
				return items, bodies, err
			}
			bodies = append(bodies, string(content))
		}
	}
}

func bodyOf(it item.Item) io.Reader {
	if r, ok := streamOf(it).(io.Reader); ok {
		return r
	}
	return nil
}

// letters writes the items as their letters.
func letters(items []item.Item) string {
	var out []byte
	var r record
	for _, it := range items {
		switch it.(type) {
		case *item.EndOfList:
			out = append(out, letterEndOfList)
		case *item.Done:
			out = append(out, letterDone)
		default:
			r.encode(it)
			out = append(out, r.kind.letter)
		}
	}
	return string(out)
}

// Grammar of the two directions, as what the items of a whole conversation look like by their letters. A backup source has
// only an exporter, its destination only an importer.
const (
	twoWay = `(A*\.C*\.R*\.M*\.S)?`
	source = `(A*\.C*\.M*\.S)?`
	dest   = `(R*\.S)?`
)

func TestTracesFollowTheGrammar(t *testing.T) {
	failed := map[string]string{ // conversations that stop in the middle, with what each side said until then
		"07c-backup-missing-mail": `^HN*\.D(B` + source + `)*BA*\.C*\.$|^HN*\.D(B` + dest + `)*BX$`,
		"07h-backup-inbox":        `^HN*\.DB$|^HN*\.DX$`,
		"12e-until-only":          `^HN*\.D$|^H$`,
		"14-slave-fails":          `^HN*\.D$|^HX$`,
	}
	total := 0
	for _, master := range traceFiles(t) {
		if filepath.Base(master) != "master-to-slave.bin" {
			continue
		}
		dir := filepath.Dir(master)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			fromMaster, _, err := receive(readFile(t, master))
			if err != io.EOF {
				t.Fatal(err)
			}
			fromSlave, _, err := receive(readFile(t, filepath.Join(dir, "slave-to-master.bin")))
			if err != io.EOF {
				t.Fatal(err)
			}
			total += len(fromMaster) + len(fromSlave)
			h, ok := fromMaster[0].(*item.Handshake)
			if !ok {
				t.Fatalf("first item %T", fromMaster[0])
			}
			masterHalf, slaveHalf := twoWay, twoWay
			switch {
			case h.BackupReceive:
				masterHalf, slaveHalf = source, dest
			case h.BackupSend:
				masterHalf, slaveHalf = dest, source
			}
			states := ""
			if h.Type == item.SyncState {
				states = `S*\.`
			}
			match(t, failed[filepath.Base(dir)], `^H`+states+`N*\.D(B`+masterHalf+`)*\.$`, letters(fromMaster))
			match(t, failed[filepath.Base(dir)], `^HN*\.D(B`+slaveHalf+`)*FX$`, letters(fromSlave))
		})
	}
	if total != 1177 {
		t.Errorf("%d items in all traces, want 1177", total)
	}
}

func match(t *testing.T, special, pattern, got string) {
	t.Helper()
	if special != "" {
		pattern = special
	}
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s does not match %s", got, pattern)
	}
}

// TestTracesEncodeToTheSameBytes decodes every line to field values by name and writes them again under the sender's field
// lists, with the value streams in between.
func TestTracesEncodeToTheSameBytes(t *testing.T) {
	for _, path := range traceFiles(t) {
		data := readFile(t, path)
		got, _ := recode(t, data, func(*testing.T, *layout, *record) {})
		if !bytes.Equal(got, data) {
			t.Errorf("%s: got\n%q\nwant\n%q", path, got, data)
		}
	}
}

// TestTraceItemsKeepTheirMeaning makes an item of every line and fields of the item. What differs is listed: bits that are
// no flags of a mail, and the tab that Dovecot puts after the last hashed header.
func TestTraceItemsKeepTheirMeaning(t *testing.T) {
	same := 0
	check := func(t *testing.T, l *layout, r *record) {
		d := fields{record: r, words: words{}}
		it, hasStream, err := d.decode(featuresOf(Minor))
		if err != nil {
			t.Fatal(err)
		}
		setStream(it, hasStream)
		var again record
		if _, err := again.encode(it); err != nil {
			t.Fatal(err)
		}
		normalise(r)
		want, got := string(l.appendLine(nil, r)), string(l.appendLine(nil, &again))
		if got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		same++
	}
	for _, path := range traceFiles(t) {
		recode(t, readFile(t, path), check)
	}
	if same < 700 {
		t.Errorf("only %d lines compared", same)
	}
}

func setStream(it item.Item, has bool) {
	if !has {
		return
	}
	switch it := it.(type) {
	case *item.Mail:
		it.Body = io.NopCloser(strings.NewReader(""))
	case *item.Attribute:
		it.Stream = io.NopCloser(strings.NewReader(""))
	}
}

// normalise takes out of a record what does not survive in an item.
func normalise(r *record) {
	switch r.kind {
	case changeKind:
		for _, f := range []int{cAdd, cRemove, cFinal} {
			d := fields{record: r}
			if flags := d.flags(f); flags != 0 {
				r.setFlags(f, flags)
			} else {
				r.values[f] = nil
			}
		}
	case handshakeKind:
		if v := bytes.TrimSuffix(r.values[hHashed], []byte{'\t'}); len(v) > 0 {
			r.values[hHashed] = v
		} else {
			r.values[hHashed] = nil
		}
		if r.values[hType] == nil { // the slave's, which reads as full
			r.setByte(hType, 'f')
		}
		if string(r.values[hUntil]) == "0" {
			r.values[hUntil] = nil
		}
	}
}

// recode walks over a whole stream, calls each for every item with fields, and returns the stream as encoded again.
func recode(t *testing.T, data []byte, each func(*testing.T, *layout, *record)) (out []byte, lists *layouts) {
	t.Helper()
	src := bufio.NewReaderSize(bytes.NewReader(data), bufferSize)
	in := lineReader{src: src}
	minor, lists, err := readGreeting(&in)
	if err != nil || minor != Minor {
		t.Fatal(minor, err)
	}
	out = append(out, data[:len(data)-remaining(src, data)]...)
	greeting := bytes.SplitAfter(out, []byte{'\n'})
	for _, line := range greeting[1 : len(greeting)-2] {
		if got := append(lists[line[0]].appendHeader(nil), '\n'); !bytes.Equal(got, line) {
			t.Errorf("field list %q, want %q", got, line)
		}
	}
	var r record
	for {
		line, err := in.line(itemLimit)
		if err == io.EOF {
			return out, lists
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(line) == 1 && (line[0] == letterDone || line[0] == letterEndOfList) {
			out = append(out, line[0], '\n')
			continue
		}
		l := lists[line[0]]
		if err := l.parseLine(&r, line[1:]); err != nil {
			t.Fatal(err)
		}
		hasStream := r.kind == mailKind && r.values[mStream] != nil || r.kind == attributeKind && r.values[aStream] != nil
		out = append(l.appendLine(out, &r), '\n')
		each(t, l, &r)
		if hasStream {
			out = append(out, recodeValue(t, src)...)
		}
	}
}

func remaining(src *bufio.Reader, data []byte) int {
	rest, _ := src.Peek(min(len(data), bufferSize))
	return len(rest)
}

func recodeValue(t *testing.T, src *bufio.Reader) []byte {
	t.Helper()
	v := &valueReader{src: src, fail: func(err error) error { return err }}
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	if err := writeValue(w, v, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	return out.Bytes()
}

// TestTraceOfOddBodies compares the contents with the hashes of the master's mail files that were noted at the recording:
// dots, CRLF, control bytes and 8-bit, no final newline, a final CR, a header only, a dot first.
func TestTraceOfOddBodies(t *testing.T) {
	_, bodies, err := receive(readFile(t, "testdata/traces/10-odd-bodies/master-to-slave.bin"))
	if err != io.EOF {
		t.Fatal(err)
	}
	want := []string{
		"69ebe031daa048ccffb58b1e7b6c109d85517389", "6c3d3a080aac95b03472c6c94938d32fbfe9f93d",
		"4f698d35c8e03fc8a1d299775c6a7f0185301483", "2772cc9ca086a70e2375690fd053a755a0a4d238",
		"f5a8544fefecb3a9d7ad3ce084830559437ecc97", "6c83952c98ee9489180ba0bd8712be1cbb0301a3",
		"2fb8968ac71ee5141200569e04a4522f3ef54b1a",
	}
	var got []string
	for _, b := range bodies {
		got = append(got, fmt.Sprintf("%x", sha1.Sum([]byte(b))))
	}
	if !slices.Equal(got, want) {
		t.Errorf("bodies %q", bodies)
	}
}

// TestTruncatedStreamIsAnError cuts one conversation of each kind at every byte: the end is io.EOF only between two items.
func TestTruncatedStreamIsAnError(t *testing.T) {
	for _, name := range []string{"01-initial-mirror/master-to-slave.bin", "15-sieve/master-to-slave.bin"} {
		data := readFile(t, "testdata/traces/"+name)
		whole, _, err := receive(data)
		if err != io.EOF {
			t.Fatal(err)
		}
		clean := 0
		for n := range len(data) {
			items, _, err := receive(data[:n])
			switch {
			case err == io.EOF:
				clean++
			case !errors.Is(err, io.ErrUnexpectedEOF):
				t.Fatalf("%s cut after %d bytes: %v", name, n, err)
			}
			if len(items) > len(whole) || letters(items) != letters(whole)[:len(items)] {
				t.Fatalf("%s cut after %d bytes: %s", name, n, letters(items))
			}
		}
		if clean != len(whole) { // between the greeting and the first item, and between any two
			t.Errorf("%s: clean end at %d places, want %d", name, clean, len(whole))
		}
	}
}

// TestTraceDecodesToItems looks into the first recording in detail.
func TestTraceDecodesToItems(t *testing.T) {
	items, bodies, err := receive(readFile(t, "testdata/traces/01-initial-mirror/master-to-slave.bin"))
	if err != io.EOF {
		t.Fatal(err)
	}
	wantHandshake := &item.Handshake{
		Hostname: "master.example.org", Type: item.SyncChanged, SendMailRequests: true, CommitInterval: 100,
		HashedHeaders: []string{"Date", "Message-ID"}, AltChar: "_",
	}
	if !reflect.DeepEqual(items[0], wantHandshake) {
		t.Errorf("handshake %+v", items[0])
	}
	if n := items[3].(*item.Node); !reflect.DeepEqual(n.Parts, []string{"Work", "2026"}) || !n.Subscribed || n.UIDNext != 2 || n.SubscriptionChanged != 1795433281 {
		t.Errorf("node %+v", n)
	}
	if d := items[6].(*item.Deletes); d.Separator != '/' || d.Escape != '%' || len(d.Deletions) != 0 {
		t.Errorf("deletes %+v", d)
	}
	var second *item.Change
	for _, it := range items {
		if c, ok := it.(*item.Change); ok && c.UID == 2 {
			second = c
		}
	}
	want := &item.Change{
		Type: item.ChangeSave, UID: 2, GUID: "1767261601.M000002P1.example", ModSeq: 6, Final: 0x0a,
		Keywords:    []item.KeywordChange{{Op: '&', Name: "$Important"}, {Op: '&', Name: "NonJunk"}},
		VirtualSize: item.UnknownSize, HasSize: true,
	}
	if !reflect.DeepEqual(second, want) {
		t.Errorf("change %+v, want %+v", second, want)
	}
	if len(bodies) != 4 || !strings.HasSuffix(bodies[0], "\n\nBody of one.\n") {
		t.Errorf("bodies %q", bodies)
	}
}
