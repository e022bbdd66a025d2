// Package remotetest is what every transport has to pass, and what other tests put between two ends to see how they
// bear a bad connection. Start with Run and Main for a transport's own tests, with Wrap for a faulty Conn.
//
// The programs run at the other end are the test binary itself: Main, called from TestMain, recognises by the first
// argument that it was started as one.
package remotetest
