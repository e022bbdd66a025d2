package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
)

// lineHandler writes log records as lines that a person reads: "dsyncfs: message (key=value ...)", in a log file with the
// time in front.
type lineHandler struct {
	mu    *sync.Mutex
	w     io.Writer
	level slog.Leveler
	stamp *atomic.Bool
	attrs string
}

func newLineHandler(w io.Writer, level slog.Leveler, stamp *atomic.Bool) slog.Handler {
	return &lineHandler{mu: new(sync.Mutex), w: w, level: level, stamp: stamp}
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// stampFormat is that of time stamps in the log file.
const stampFormat = "2006-01-02 15:04:05.000 "

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if h.stamp.Load() {
		b.WriteString(r.Time.Format(stampFormat))
	}
	b.WriteString("dsyncfs: ")
	if r.Level >= slog.LevelWarn {
		b.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	b.WriteString(printable(strings.ReplaceAll(strings.TrimSpace(r.Message), "\n", "; ")))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

func writeAttr(b *strings.Builder, a slog.Attr) {
	text := fmt.Sprint(a.Value.Resolve().Any())
	if text == "" || strings.ContainsAny(text, " \"=") || strings.ContainsFunc(text, unprintable) {
		text = fmt.Sprintf("%q", text)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, text)
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	c := *h
	c.attrs += b.String()
	return &c
}

func (h *lineHandler) WithGroup(string) slog.Handler { return h }
