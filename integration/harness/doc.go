// Package harness has what end-to-end tests need around the dsyncfs binary: real mail, Maildirs made of it, the binary
// itself in an environment of its own, mounts that always go away again, a reader of Maildirs that shares no code with
// what it judges, a real Dovecot, a real sshd, and real mail programs.
//
// Start from [Main] (in TestMain), [New] (one environment for each test), [Mails] and [Build]. Everything a test starts
// is ended with the test; what is left over when the run ends, a process or a mount, fails the run.
//
// The package never imports a package of dsyncfs: tests see what a user sees.
package harness
