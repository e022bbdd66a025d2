package remote

import "strings"

// plain are the characters no shell gives a meaning to, wherever they stand in a word.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"

// Quote makes one command line of words, which sh, csh and fish split into exactly those words again and expand
// nothing in them. ssh hands its command to the login shell of the remote user, so this is the only way to keep
// arguments whole. A "~/" or "~user/" at the start of the first word is left to that shell, which alone knows the home.
func Quote(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		if i == 0 {
			quoted[i] = quoteProgram(word)
		} else {
			quoted[i] = quoteWord(word)
		}
	}
	return strings.Join(quoted, " ")
}

func quoteProgram(word string) string {
	home, rest, ok := strings.Cut(word, "/")
	if !ok || !strings.HasPrefix(home, "~") || !isPlain(home[1:]) {
		return quoteProgramName(word)
	}
	if rest == "" {
		return home + "/"
	}
	return home + "/" + quoteWord(rest)
}

// quoteProgramName also quotes what a shell would take for an assignment before a command.
func quoteProgramName(word string) string {
	if strings.Contains(word, "=") {
		return forceQuote(word)
	}
	return quoteWord(word)
}

// quoteWord also quotes a leading "=": zsh expands =name to the path of a program.
func quoteWord(word string) string {
	if word != "" && word[0] != '=' && isPlain(word) {
		return word
	}
	return forceQuote(word)
}

func forceQuote(word string) string {
	// A backslash inside single quotes is literal for sh but not for fish, and "!" is history for csh: both
	// are put outside of the quotes, behind a backslash, which all of them understand.
	var b strings.Builder
	b.WriteByte('\'')
	for i := 0; i < len(word); i++ {
		switch c := word[i]; c {
		case '\'', '\\', '!':
			b.WriteString(`'\`)
			b.WriteByte(c)
			b.WriteByte('\'')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

func isPlain(word string) bool {
	return strings.Trim(word, plain) == ""
}
