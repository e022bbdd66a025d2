package index

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// crashPath names the index on which this process is to play the victim.
const crashPath = "DSYNCFS_TEST_INDEX_VICTIM"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashPath); path != "" {
		if err := victim(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// victim adds rounds to an index for ever, and says each that is durable.
func victim(path string) error {
	x, err := Open(path, Options{})
	if err != nil {
		return err
	}
	for {
		n, err := rounds(x)
		if err != nil {
			return err
		}
		if err := x.Update(func(tx store.CatalogTx) error { return addRound(tx, n+1) }); err != nil {
			return err
		}
		fmt.Println(n + 1)
	}
}

func rounds(x *Index) (n int, err error) {
	err = x.View(func(tx store.CatalogTx) error {
		value, err := tx.Value("rounds", "n")
		if err == nil && value != nil {
			n, err = strconv.Atoi(string(value))
		}
		return err
	})
	return n, err
}

// addRound leaves an index in which everything tells how many rounds there were.
func addRound(tx store.CatalogTx, n int) error {
	const perRound = 40
	r := mailboxRecord(1, mail.Name(fmt.Sprintf("round %d", n)))
	r.LogStart, r.Status.HighestModSeq = 1, mail.ModSeq(n*2*perRound+1)
	r.Status.UIDNext, r.Status.Messages = mail.UID(n*perRound+1), uint32(n*perRound-n/2)
	errs := []error{tx.PutMailbox(r)}
	for i := range perRound {
		uid := mail.UID((n-1)*perRound + i + 1)
		m := messageRecord(uid)
		m.ModSeq = mail.ModSeq((n-1)*2*perRound + i + 2)
		errs = append(errs, tx.PutMessage(guid(1), m),
			tx.AppendLog(guid(1), store.LogEntry{ModSeq: m.ModSeq, Kind: store.LogAppend, UID: uid}))
	}
	if n%2 == 0 { // every second round expunges one of its messages
		uid := mail.UID(n * perRound)
		errs = append(errs, tx.DropMessage(guid(1), uid),
			tx.AppendLog(guid(1), store.LogEntry{ModSeq: mail.ModSeq(n*2*perRound + 1), Kind: store.LogExpunge, UID: uid}))
	}
	return errors.Join(append(errs, tx.SetValue("rounds", "n", []byte(strconv.Itoa(n))))...)
}

func TestKilledInTheMiddleOfUpdates(t *testing.T) {
	path := newPath(t)
	x := open(t, path)
	epoch := x.Epoch()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	durable := 0
	for range 30 {
		durable = max(durable, killAfter(t, path, 1+rng.IntN(6)))
		x := open(t, path)
		if x.Epoch() != epoch {
			t.Fatal("the index was lost")
		}
		n, err := rounds(x)
		if err != nil || n < durable {
			t.Fatalf("%d rounds are left of %d, %v", n, durable, err)
		}
		if err := CheckConsistency(x); err != nil {
			t.Fatal(err)
		}
		view(t, x, func(tx store.CatalogTx) error {
			if r, ok, err := tx.Mailbox(guid(1)); !ok || err != nil || r.Name != mail.Name(fmt.Sprintf("round %d", n)) {
				t.Errorf("after %d rounds: mailbox %+v, %v", n, r, err)
			}
			return nil
		})
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs a victim until it has said so many rounds, kills it in what it does next, and returns the last round said.
func killAfter(t *testing.T, path string, lines int) (durable int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashPath+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	for range lines {
		if !said.Scan() {
			break
		}
		if durable, err = strconv.Atoi(said.Text()); err != nil {
			t.Errorf("the victim said %q", said.Text())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	for said.Scan() { // what it said before it died
		if n, err := strconv.Atoi(said.Text()); err == nil {
			durable = n
		}
	}
	_ = cmd.Wait() // it was killed
	if durable == 0 || stderr.Len() > 0 {
		t.Fatalf("the victim did nothing: %s", &stderr)
	}
	return durable
}
