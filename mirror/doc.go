// Package mirror is the engine: it keeps one pair of locations in sync, once ([Pair.Sync]) or continuously ([Engine]).
//
// It decides when a round is due and with which connection, keeps the last common states and the journal's marks in step,
// and answers for the promises that span rounds: nothing acknowledged is forgotten, nothing is deleted without a witness.
// What happens within a round is the business of mirror/brain. It refuses to know how mail is stored or how bytes travel:
// stores and peers come from functions in [Pair].
package mirror
