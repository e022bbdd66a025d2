package harness

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// IMAP is a connected client of an IMAP server. It speaks just enough of RFC 3501 for tests: it sends what it is told and
// takes answers apart. Used by one goroutine at a time.
type IMAP struct {
	tb     testing.TB
	user   string
	conn   net.Conn
	in     *bufio.Reader
	tag    int
	Exists int // messages in the selected mailbox, as far as the server told
}

// Reply is one untagged answer: words, and lists as a []any of the same. A literal or quoted string is a word without its
// quotes; what is in brackets belongs to its word.
type Reply []any

// Word returns the n-th part, "" if it is none or a list.
func (r Reply) Word(n int) string {
	if n < len(r) {
		if s, ok := r[n].(string); ok {
			return s
		}
	}
	return ""
}

// List returns the n-th part, nil if it is no list.
func (r Reply) List(n int) Reply {
	if n < len(r) {
		if l, ok := r[n].([]any); ok {
			return l
		}
	}
	return nil
}

// Words are those parts that are words, with a space between.
func (r Reply) Words() string {
	var words []string
	for i := range r {
		if w := r.Word(i); w != "" {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// Get returns what follows a key in a list of pairs.
func (r Reply) Get(key string) string {
	for i := 0; i+1 < len(r); i += 2 {
		if strings.EqualFold(r.Word(i), key) {
			return r.Word(i + 1)
		}
	}
	return ""
}

// DialIMAP connects and logs in. The connection is closed with the test.
func DialIMAP(tb testing.TB, address, user string) *IMAP {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	c := &IMAP{tb: tb, user: user, conn: conn, in: bufio.NewReader(conn)}
	c.reply()
	c.Do("LOGIN %s secret", user)
	return c
}

// Quote writes the name of a mailbox as an argument.
func (c *IMAP) Quote(mailbox string) string { return `"` + EncodeName(mailbox) + `"` }

// Do sends a command that has to succeed and returns the untagged answers.
func (c *IMAP) Do(format string, args ...any) []Reply {
	c.tb.Helper()
	replies, status := c.Try(format, args...)
	if !strings.HasPrefix(status, "OK") {
		c.tb.Fatalf("IMAP of %s: %s: %s", c.user, head(fmt.Sprintf(format, args...), 200), status)
	}
	return replies
}

// Try is Do for what may fail. status is the tagged answer, without its tag.
func (c *IMAP) Try(format string, args ...any) (replies []Reply, status string) {
	c.tb.Helper()
	c.tag++
	tag := "t" + strconv.Itoa(c.tag)
	c.send(tag + " " + fmt.Sprintf(format, args...))
	return c.until(tag)
}

func (c *IMAP) until(tag string) (replies []Reply, status string) {
	c.tb.Helper()
	for {
		r := c.reply()
		if r.Word(0) == tag {
			return replies, r[1:].Words()
		}
		replies = append(replies, r[1:])
	}
}

// Append saves a mail with flags and a date, and returns the tagged answer.
func (c *IMAP) Append(mailbox, flags string, mail Mail) string {
	c.tb.Helper()
	text := strings.ReplaceAll(string(mail.Text), "\n", "\r\n")
	_, status := c.Try("APPEND %s (%s) \"%s\" {%d+}\r\n%s", c.Quote(mailbox), flags, mail.Date.Format("02-Jan-2006 15:04:05 -0700"), len(text), text)
	return status
}

// Idle lets the server tell of changes by itself, until Done.
func (c *IMAP) Idle() {
	c.tb.Helper()
	c.tag++
	c.send("t" + strconv.Itoa(c.tag) + " IDLE")
	for c.reply().Word(0) != "+" {
	}
}

// Done ends Idle and returns what the server told.
func (c *IMAP) Done() []Reply {
	c.tb.Helper()
	c.send("DONE")
	replies, status := c.until("t" + strconv.Itoa(c.tag))
	if !strings.HasPrefix(status, "OK") {
		c.tb.Fatalf("IMAP of %s: IDLE: %s", c.user, status)
	}
	return replies
}

func (c *IMAP) send(line string) {
	c.tb.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.tb.Fatalf("IMAP of %s: %v", c.user, err)
	}
}

// reply reads one answer to its end.
func (c *IMAP) reply() Reply {
	c.tb.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		c.tb.Fatal(err)
	}
	words, err := c.words('\n')
	if err != nil {
		c.tb.Fatalf("IMAP of %s: reading an answer after %v: %v", c.user, words, err)
	}
	r := Reply(words)
	n, _ := strconv.Atoi(r.Word(1))
	switch {
	case r.Word(2) == "EXISTS":
		c.Exists = n
	case r.Word(2) == "EXPUNGE":
		c.Exists--
	case r.Word(1) == "BYE" && c.tag > 0 && !strings.Contains(r.Words(), "Logging out"):
		c.tb.Fatalf("IMAP of %s: the server ends the connection: %s", c.user, r.Words())
	}
	return r
}

// words reads up to the end of a line or list.
func (c *IMAP) words(end byte) (words []any, err error) {
	for {
		b, err := c.in.ReadByte()
		if err != nil {
			return words, err
		}
		var word any
		switch b {
		case end:
			return words, nil
		case '\n': // a parenthesis in a text for people
			return words, c.in.UnreadByte()
		case ' ', '\r', ')':
			continue
		case '(':
			word, err = c.words(')')
		case '"':
			word, err = c.quoted()
		case '{':
			word, err = c.literal()
		default:
			word, err = c.atom(b)
		}
		if err != nil {
			return words, err
		}
		words = append(words, word)
	}
}

func (c *IMAP) quoted() (string, error) {
	var out []byte
	for {
		b, err := c.in.ReadByte()
		switch {
		case err != nil || b == '"':
			return string(out), err
		case b == '\\':
			if b, err = c.in.ReadByte(); err != nil {
				return "", err
			}
		}
		out = append(out, b)
	}
}

func (c *IMAP) literal() (string, error) {
	head, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, "}\r\n"))
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(c.in, text)
	return string(text), err
}

// atom reads a word, with what is in brackets.
func (c *IMAP) atom(first byte) (string, error) {
	out, depth := []byte{first}, 0
	if first == '[' {
		depth++
	}
	for {
		b, err := c.in.ReadByte()
		if err != nil {
			return string(out), err
		}
		switch {
		case b == '[':
			depth++
		case b == ']':
			depth--
		case b == '\r', b == '\n', depth <= 0 && (b == ' ' || b == '(' || b == ')'):
			return string(out), c.in.UnreadByte()
		}
		out = append(out, b)
	}
}
