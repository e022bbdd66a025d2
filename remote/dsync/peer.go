package dsync

import (
	"bufio"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/mirror/item"
)

// bufferSize is that of each direction.
const bufferSize = 64 << 10

// DefaultTimeout is Dovecot's (doveadm sync -T).
const DefaultTimeout = 600 * time.Second

// Options of a Peer. The zero value is usable.
type Options struct {
	Name    string        // who the other side is, in errors and logs
	Minor   int           // minor version that we announce; 0: [Minor]
	Timeout time.Duration // a peer that is silent for so long is given up; 0: [DefaultTimeout], negative: never
	Logger  *slog.Logger  // debug level only; nil: none
	RawIn   io.Writer     // gets a copy of all that is received
	RawOut  io.Writer     // gets a copy of all that is sent

	Compress Compression
}

// Peer is the other side of a conversation, over a byte stream. It carries items in their order and has no opinion about
// it.
//
// [Peer.Handshake] comes first. After that, one goroutine may send (Send, Flush) while another one receives (Recv and the
// bodies that it hands out); a side that does both in one goroutine can get into a deadlock with a peer that does the same,
// as neither reads while it writes. Close may be called at any time and by anybody.
type Peer struct {
	opts  Options
	conn  io.Closer
	watch watch

	// The receiving half.
	in       lineReader
	fields   fields
	lists    *layouts     // announced by the peer
	body     *valueReader // of the last item, nil if it had none
	recvDone bool         // an end was received: Done or EOF
	inflates bool         // what is received is compressed
	ended    atomic.Bool  // see Ended

	// The sending half.
	out       *bufio.Writer
	record    record
	line      []byte
	copyBuf   []byte
	own       layouts
	deflate   *flate.Writer // between out and wire; nil: what is sent is not compressed
	wire      *bufio.Writer
	unflushed bool // something was sent since the last flush

	// Set by Handshake.
	ready       bool
	minor       int
	mayCompress bool // the other side can read it

	pace pace

	mu    sync.Mutex
	cause error // why the conversation is over, nil while it is not
}

// NewPeer makes a Peer of a connection. Close of the connection must make a waiting Read and Write return.
func NewPeer(conn io.ReadWriteCloser, opts Options) *Peer {
	if opts.Minor == 0 {
		opts.Minor = Minor
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Peer{opts: opts, conn: conn}
	p.watch.timeout = opts.Timeout
	p.watch.expired = func(after time.Duration) { p.fail(fmt.Errorf("%w for %s", ErrTimeout, after)) }
	p.in.src = bufio.NewReaderSize(&watchedReader{conn, &p.watch, opts.RawIn, &p.ended}, bufferSize)
	p.out = bufio.NewWriterSize(&watchedWriter{conn, &p.watch, opts.RawOut, p.pace.wrote}, bufferSize)
	p.fields = fields{record: &record{}, words: words{}}
	return p
}

// Handshake exchanges greetings and field lists. It sends its own without waiting for the peer's. When ctx ends before it
// is through, the connection is closed.
func (p *Peer) Handshake(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(writeGreeting(p.out, p.opts.Minor, p.opts.Compress), p.out.Flush())
	}()
	minor, lists, err := readGreeting(&p.in)
	if err != nil {
		err = p.fail(err)
	}
	if sendErr := <-sent; err == nil && sendErr != nil {
		err = p.fail(sendErr)
	}
	if err == nil && !stop() {
		err = p.fail(context.Cause(ctx))
	}
	if err != nil {
		return p.wrap(err)
	}
	p.agree(minor, lists)
	return nil
}

// agree takes over what the peer announced.
func (p *Peer) agree(minor int, lists *layouts) {
	p.minor, p.lists, p.ready = minor, lists, true
	for _, k := range kinds {
		p.own[k.letter] = ownLayout(k, p.PeerIsDsyncfs())
	}
	p.mayCompress = p.opts.Compress != CompressNever && p.PeerIsDsyncfs() && lists.has(compressionKind, zDeflate)
	if p.opts.Compress == CompressAlways || lists.has(compressionKind, zAlways) {
		p.pace.slow.Store(true)
	}
	p.opts.Logger.Debug("dsync greeting", "peer", p.opts.Name, "minor", minor, "dsyncfs", p.PeerIsDsyncfs())
}

// PeerMinor is the minor version that the peer announced.
func (p *Peer) PeerMinor() int { return p.minor }

// Features says what PeerMinor means for the conversation.
func (p *Peer) Features() Features { return featuresOf(p.minor) }

// PeerIsDsyncfs reports whether the peer knows our extension. Fields marked "ours" are sent to no other peer.
func (p *Peer) PeerIsDsyncfs() bool { return p.lists != nil && p.lists.has(handshakeKind, hVersion) }

// Ended reports whether the other side said its last word or closed its end of the connection.
func (p *Peer) Ended() bool { return p.ended.Load() }

// SetTimeout changes Options.Timeout; negative is none, as is right between two rounds of a kept connection.
func (p *Peer) SetTimeout(d time.Duration) { p.watch.setTimeout(d) }

// Idle says that silence is no error now, between two rounds of a kept connection, or that it is one again.
func (p *Peer) Idle(idle bool) {
	if idle {
		p.SetTimeout(-1)
	} else {
		p.SetTimeout(p.opts.Timeout)
	}
}

// Send writes an item and, to its end, the Body or Stream that it has, which is closed in any case. What is written may
// stay in a buffer until [Peer.Flush]; a goroutine that is about to wait for an answer must flush. An Attribute for a peer
// that does not know them is dropped.
//
// Errors that wrap ErrInvalid or ErrUnsupported concern this item only. After a body that cannot be read to its end the
// connection is closed, as the format knows no other way to abort one. After other errors sending is over; what the peer
// has sent can still be received.
func (p *Peer) Send(it item.Item) error {
	if s := streamOf(it); s != nil {
		defer s.Close()
	}
	if err := p.usable(); err != nil {
		return p.wrap(err)
	}
	if err := p.compress(); err != nil {
		return p.wrap(p.sendError(err))
	}
	p.unflushed = true
	if err := p.send(it); err != nil {
		return p.wrap(p.sendError(err))
	}
	p.pace.sent(it)
	p.trace("send", it)
	return nil
}

func streamOf(it item.Item) io.Closer {
	switch it := it.(type) {
	case *item.Mail:
		if it.Body != nil {
			return it.Body
		}
	case *item.Attribute:
		if it.Stream != nil {
			return it.Stream
		}
	}
	return nil
}

func (p *Peer) send(it item.Item) error {
	switch it.(type) {
	case *item.EndOfList:
		return p.writeLine(append(p.line[:0], letterEndOfList))
	case *item.Done:
		return p.writeLine(append(p.line[:0], letterDone))
	}
	stream, err := p.record.encode(it)
	if err != nil {
		return err
	}
	k := p.record.kind
	if k.ours && p.lists[k.letter] == nil {
		return fmt.Errorf("%w: %s", ErrUnsupported, k.name)
	}
	if k == attributeKind && !p.Features().Attributes {
		return nil
	}
	line := p.own[k.letter].appendLine(p.line[:0], &p.record)
	if len(line) > k.limit {
		return fmt.Errorf("%w: %s: line of %d bytes", ErrInvalid, k.name, len(line))
	}
	if err := p.writeLine(line); err != nil || stream == nil {
		return err
	}
	return p.writeStream(stream)
}

func (p *Peer) writeStream(stream io.Reader) error {
	if p.copyBuf == nil {
		p.copyBuf = make([]byte, bufferSize)
	}
	return writeValue(p.out, stream, p.copyBuf)
}

func (p *Peer) writeLine(line []byte) error {
	if p.line = line[:0]; cap(line) > lineLimit {
		p.line = nil
	}
	p.out.Write(line)
	return p.out.WriteByte('\n')
}

// Flush sends what is buffered.
func (p *Peer) Flush() error {
	if err := p.usable(); err != nil {
		return p.wrap(err)
	}
	if err := p.flush(); err != nil {
		return p.wrap(p.sendError(err))
	}
	return nil
}

// sendError judges an error of the sending half.
func (p *Peer) sendError(err error) error {
	var source *sourceError
	switch {
	case errors.As(err, &source):
		return p.fail(err)
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrUnsupported):
		return err
	}
	if cause := p.state(); cause != nil {
		return cause
	}
	return fmt.Errorf("send: %w", err)
}

// Recv returns the next item. A Body or Stream that it has reads from the connection: whoever gets it must read it to its
// end before the next Recv, which skips the rest otherwise. The end of the stream between two items is io.EOF, and so is
// what follows a Done; it is an error that wraps io.ErrUnexpectedEOF elsewhere. Whatever else goes wrong closes the
// connection, so that a Send does not wait for ever.
func (p *Peer) Recv() (item.Item, error) {
	if err := p.usable(); err != nil {
		return nil, p.wrap(err)
	}
	it, err := p.recv()
	if err == io.EOF {
		p.recvDone = true
		if cause := p.state(); cause != nil { // some connections answer their own Close with EOF
			return nil, p.wrap(cause)
		}
		return nil, err
	}
	if err != nil {
		return nil, p.wrap(p.fail(err))
	}
	p.pace.received(it)
	p.trace("receive", it)
	return it, nil
}

// Ready reports whether the next Recv need not wait for the connection: a whole line has come, and no body is to be read before it.
func (p *Peer) Ready() bool {
	return p.ready && p.body == nil && (p.recvDone || p.in.hasLine(compressionKind.letter))
}

func (p *Peer) recv() (item.Item, error) {
	if p.body != nil {
		body := p.body
		p.body = nil
		if err := body.drain(); err != nil {
			return nil, err
		}
	}
	if p.recvDone {
		return nil, io.EOF
	}
	line, err := p.in.line(itemLimit)
	for err == nil && len(line) == 1 && line[0] == compressionKind.letter {
		if err = p.inflate(); err == nil {
			line, err = p.in.line(itemLimit)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(line) == 1 {
		switch line[0] {
		case letterEndOfList:
			return &item.EndOfList{}, nil
		case letterDone:
			p.recvDone = true
			p.ended.Store(true)
			return &item.Done{}, nil
		}
	}
	return p.decode(line)
}

func (p *Peer) decode(line []byte) (item.Item, error) {
	list := p.lists[line[0]]
	if list == nil {
		return nil, fmt.Errorf("%w: unexpected line %s", ErrProtocol, quote(line))
	}
	if err := list.parseLine(p.fields.record, line[1:]); err != nil {
		return nil, err
	}
	it, hasStream, err := p.fields.decode(p.Features())
	if err != nil || !hasStream {
		return it, err
	}
	p.body = &valueReader{src: p.in.src, fail: func(err error) error { return p.wrap(p.fail(err)) }}
	switch it := it.(type) {
	case *item.Mail:
		it.Body = p.body
	case *item.Attribute:
		it.Stream = p.body
	}
	return it, nil
}

// Close ends the conversation and the connection. Whoever waits in another method gets an error that wraps ErrClosed. What
// was not flushed is lost.
func (p *Peer) Close() error {
	first, err := p.end(ErrClosed)
	if !first {
		return nil
	}
	if err != nil {
		return p.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

// fail ends the conversation because of err and returns why it really ended, which may be something earlier.
func (p *Peer) fail(err error) error {
	p.end(err)
	return p.state()
}

func (p *Peer) end(cause error) (first bool, err error) {
	p.mu.Lock()
	if first = p.cause == nil; first {
		p.cause = cause
	}
	p.mu.Unlock()
	if first {
		p.watch.stop()
		err = p.conn.Close()
	}
	return first, err
}

// state returns why the conversation is over, nil while it is not.
func (p *Peer) state() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

// usable is state, for what needs a handshake.
func (p *Peer) usable() error {
	if !p.ready {
		return errNoHandshake
	}
	return p.state()
}

var errNoHandshake = errors.New("no handshake yet")

// levelTrace is that of single items, of which only the kind is shown.
const levelTrace = slog.LevelDebug - 4

func (p *Peer) trace(op string, it item.Item) {
	if p.opts.Logger.Enabled(context.Background(), levelTrace) {
		p.opts.Logger.Log(context.Background(), levelTrace, "dsync item", "peer", p.opts.Name, "op", op, "item", fmt.Sprintf("%T", it))
	}
}

// wrap says whom an error is about. An error that went through it already, in a body, stays.
func (p *Peer) wrap(err error) error {
	var named *peerError
	if errors.As(err, &named) {
		return err
	}
	return &peerError{p.opts.Name, err}
}

// peerError is an error of a conversation.
type peerError struct {
	peer  string
	cause error
}

func (e *peerError) Error() string {
	if e.peer == "" {
		return "dsync: " + e.cause.Error()
	}
	return "dsync " + e.peer + ": " + e.cause.Error()
}

func (e *peerError) Unwrap() error { return e.cause }
