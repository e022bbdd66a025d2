package dsync

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"dsyncfs/mirror/item"
)

// corpus is the shape of a big initial backup.
const (
	corpusMails = 20000
	corpusSize  = 7 << 10
)

func mailContent() []byte {
	line := "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eius.\n"
	return []byte(strings.Repeat(line, corpusSize/len(line)+1)[:corpusSize])
}

// BenchmarkMails sends the corpus through a Unix socket, one mail per operation, and reads every body.
func BenchmarkMails(b *testing.B) {
	a, z := socketPair(b)
	left, right := NewPeer(a, Options{}), NewPeer(z, Options{})
	defer left.Close()
	defer right.Close()
	if err := together(left.Handshake, right.Handshake); err != nil {
		b.Fatal(err)
	}
	content := mailContent()
	b.SetBytes(corpusMails * corpusSize)
	b.ReportAllocs()
	for b.Loop() {
		sent := make(chan error, 1)
		go func() {
			for range corpusMails {
				if err := left.Send(&item.Mail{GUID: "1767261600.M000001P1.example", Received: 1767261600, Body: io.NopCloser(bytes.NewReader(content))}); err != nil {
					sent <- err
					return
				}
			}
			sent <- left.Flush()
		}()
		for range corpusMails {
			it, err := right.Recv()
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, it.(*item.Mail).Body); err != nil || n != corpusSize {
				b.Fatal(n, err)
			}
		}
		if err := <-sent; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(corpusMails*b.N)/b.Elapsed().Seconds(), "mails/s")
}

func socketPair(b *testing.B) (net.Conn, net.Conn) {
	l, err := net.Listen("unix", b.TempDir()+"/s")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return client, server
}

// BenchmarkChanges decodes the list of a mailbox of the same number of mails.
func BenchmarkChanges(b *testing.B) {
	var wire bytes.Buffer
	w := bufio.NewWriter(&wire)
	writeGreeting(w, Minor, CompressSlow)
	line, err := lineOf(&item.Change{
		Type: item.ChangeSave, UID: 12345, GUID: "1767261601.M000002P1.example", ModSeq: 6, Final: 0x0a,
		Keywords: []item.KeywordChange{{Op: '&', Name: "$Important"}, {Op: '&', Name: "NonJunk"}},
	}, true)
	if err != nil {
		b.Fatal(err)
	}
	for range corpusMails {
		w.Write(append(line, '\n'))
	}
	w.Flush()
	b.SetBytes(int64(wire.Len()))
	b.ReportAllocs()
	for b.Loop() {
		p := NewPeer(stream{bytes.NewReader(wire.Bytes())}, Options{Timeout: -1})
		if err := p.Handshake(context.Background()); err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			if _, err := p.Recv(); err != nil {
				break
			}
			n++
		}
		if p.Close(); n != corpusMails {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(corpusMails*b.N)/b.Elapsed().Seconds(), "changes/s")
}
