// Package dsync speaks Dovecot's dsync wire format (service "dsync", major version 3) over a byte stream: it turns the
// items of mirror/item into lines and back, and says nothing about their order, which is the business of mirror/brain.
//
// Start from [NewPeer] and [Peer]. The format has four layers, each in its own file: the item table (table.go), tab escaping
// and lists (escape.go), lines whose fields are addressed by name (line.go), and value streams (value.go). The rules come
// from dovecot 2.3 dsync-ibc-stream.c, dsync-serializer.c, dsync-deserializer.c and istream-dot.c.
//
// Whatever arrives is bounded and checked here, once: the length of lines, the number of list elements, the range of
// numbers, required fields. What is wrong ends the conversation with an error that wraps [ErrProtocol] and names item and
// field. The package refuses to judge mailbox names and GUIDs beyond their length; stores do that.
//
// A Peer has two independent halves, sending and receiving, each for one goroutine at a time. The only locks are
// Peer.mu and watch.mu; neither is held while the other is taken, nor during I/O.
package dsync

import "errors"

// Errors of conversations. They are wrapped with the name of the peer and the cause.
var (
	ErrProtocol    = errors.New("dsync protocol error")               // the peer sent what the format does not allow
	ErrTimeout     = errors.New("dsync peer is silent")               // no progress in either direction for Options.Timeout
	ErrClosed      = errors.New("dsync connection is closed")         // by our own Close
	ErrInvalid     = errors.New("item cannot be sent")                // nothing was written; the conversation can go on
	ErrUnsupported = errors.New("item is not understood by the peer") // nothing was written; the conversation can go on
)
