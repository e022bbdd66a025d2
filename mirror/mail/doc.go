// Package mail is the vocabulary of the project: mailboxes, messages, UIDs, GUIDs, flags, keywords and the names of mail
// files, with the rules that hold for each of them alone.
//
// Start from [Message], [Status] and [Name]. The package is pure: no I/O, no clock, no global state. It refuses to know
// how mail is stored or sent.
package mail
