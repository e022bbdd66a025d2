// Package sim runs the whole engine in a simulated world: two or three replicas, each with the real Maildir store on a disk
// in memory that fails and loses power, connected by the real brains over a link that breaks, while users do what mail
// programs do to the files. All that happens follows from a [History], and that from a seed: [Generate], [Run], [Shrink].
//
// A step is something that a user does, a sync of two replicas, or a session: a mount of one of them, with the real engine, the
// real journal on a disk of its own and a kept connection, while users work through the mount, behind it and at the remote. In
// one history of ten the second replica is a backup of the first.
//
// What must hold is listed at the type checks. The catalog is one in memory, with the semantics of mirror/index: mirror/index
// has crash tests of its own. How to replay and what is left out is in docs/reliability.md.
//
// Goroutines stop before each operation that matters and are let go one by one, by the seed (see sched). What the Go runtime
// still decides is the order of a select with several ready cases and of map iteration, and what two halves of one side read
// at the same moment. So now and then two runs of a seed differ in what happens after an error (about one in sixty); no check depends on it.
package sim
