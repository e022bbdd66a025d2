package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// settings are configuration files; the first value found counts.
type settings []*ssh_config.Config

func (d *Dialer) readConfig() (settings, error) {
	files, must := d.opts.ConfigFiles, true
	if files == nil {
		files, must = []string{filepath.Join(d.opts.Home, ".ssh/config"), "/etc/ssh/ssh_config"}, false
	}
	var all settings
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && !must {
			continue
		}
		if err != nil {
			return nil, err
		}
		config, err := ssh_config.DecodeBytes(normalize(text, filepath.Dir(name), d.opts.Home))
		if err != nil {
			return nil, fmt.Errorf("%s: %w; %s", name, err, useSystemSSH)
		}
		all = append(all, config)
	}
	return all, nil
}

// normalize makes up for what the parser lacks: it loses a last line without end, separates patterns by blanks only, and
// looks for relative Includes where it thinks fit instead of beside the file.
func normalize(text []byte, dir, home string) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) > 1 && strings.EqualFold(string(words[0]), "include") {
			for i, word := range words[1:] {
				words[i+1] = []byte(absolute(strings.Trim(string(word), `"`), dir, home))
			}
			line = bytes.Join(words, []byte(" "))
		}
		out.Write(bytes.ReplaceAll(bytes.TrimRight(line, "\r\n"), []byte("\t"), []byte(" ")))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func absolute(name, dir, home string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return filepath.Join(home, rest)
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func (s settings) get(host, key string) (string, error) {
	for _, config := range s {
		if value, err := config.Get(host, key); err != nil || value != "" {
			return value, err
		}
	}
	return "", nil
}

func (s settings) all(host, key string) (values []string, err error) {
	for _, config := range s {
		more, err := config.GetAll(host, key)
		if err != nil {
			return nil, err
		}
		values = append(values, more...)
	}
	return values, nil
}

var variable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// file expands "~", tokens and ${VARIABLE} in the name of a file.
func (r *reader) file(name string) string {
	name = variable.ReplaceAllStringFunc(expand(name, r.tokens), func(v string) string { return os.Getenv(v[2 : len(v)-1]) })
	if name == "~" {
		return r.home
	}
	return absolute(name, ".", r.home)
}

// expand replaces the tokens of ssh_config(5). An unknown one stays as it is.
func expand(s string, tokens map[byte]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		value, known := tokens[s[i]]
		switch {
		case s[i] == '%':
			b.WriteByte('%')
		case known:
			b.WriteString(value)
		default:
			b.WriteString(s[i-1 : i+1])
		}
	}
	return b.String()
}
