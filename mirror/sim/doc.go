// Package sim runs the whole engine in a simulated world: two or three replicas, each with the real Maildir store on a disk
// in memory that fails and loses power, connected by the real brains over a link that breaks, while users do what mail
// programs do to the files. All that happens follows from a [History], and that from a seed: [Generate], [Run], [Shrink].
//
// What must hold is listed at the type checks. The catalog is one in memory, with the semantics of mirror/index: mirror/index
// has crash tests of its own.
//
// To replay: SIM_SEED=n SIM_SEEDS=1 go test -run TestSim ./mirror/sim, or SIM_HISTORY=file for a (shrunk) history as it was
// printed, with SIM_VERBOSE=1 for all mailboxes after each step. SIM_SEEDS=n tries more, SIM_STRIDE=1 fails every operation.
//
// It leaves out the journal and the live mode, and inode numbers are never used twice.
//
// Goroutines stop before each operation that matters and are let go one by one, by the seed (see sched). What the Go runtime
// still decides is the order of a select with several ready cases and of map iteration, and what two halves of one side read
// at the same moment. So now and then two runs of a seed differ in what happens after an error (about one in a hundred); no check depends on it.
package sim
