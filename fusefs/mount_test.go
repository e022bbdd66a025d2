package fusefs_test

import (
	"slices"
	"strings"
	"testing"

	"dsyncfs/fusefs"
)

func (m *mounted) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := m.engine.take(); !slices.Equal(got, want) {
		t.Errorf("journaled\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestMailOperationsAreJournaledAsWhatTheyMean(t *testing.T) {
	m := mountMaildir(t, nil)
	for _, step := range []struct {
		name, script string
		want         []string
	}{
		{"delivery by rename", `echo hi > $M/tmp/a; mv $M/tmp/a $M/new/a`, []string{"append INBOX a"}},
		{"delivery by link", `echo hi > $M/tmp/b; ln $M/tmp/b $M/new/b; rm $M/tmp/b`, []string{"append INBOX b"}},
		{"seen", `mv $M/new/a $M/cur/a:2,S`, []string{"flags INBOX a -> a:2,S"}},
		{"flagged", `mv $M/cur/a:2,S $M/cur/a:2,FS`, []string{"flags INBOX a:2,S -> a:2,FS"}},
		{"move by link and unlink", `ln $M/new/b $M/cur/b:2,; rm $M/new/b`, []string{"flags INBOX b -> b:2,"}},
		{"move to another mailbox", `mv $M/cur/a:2,FS $M/.Work/cur/a:2,FS`, []string{"move INBOX a:2,FS -> Work a:2,FS"}},
		{"copy to another mailbox", `ln $M/cur/b:2, $M/.Work/cur/b:2,`, []string{"append Work b:2,"}},
		{"another base name", `mv $M/.Work/cur/b:2, $M/.Work/cur/c:2,`, []string{"expunge Work b:2,", "append Work c:2,"}},
		{"expunge", `rm $M/cur/b:2,`, []string{"expunge INBOX b:2,"}},
		{"back to tmp", `mv $M/.Work/cur/c:2, $M/.Work/tmp/c`, []string{"expunge Work c:2,"}},
		{"new mailbox", `mkdir $M/.Play $M/.Play/cur $M/.Play/new $M/.Play/tmp`, []string{"create Play", "create Play"}},
		{"renamed mailbox", `mv $M/.Play $M/.Toys`, []string{"rename Play -> Toys"}},
		{"delivery there", `echo x > $M/.Toys/tmp/d; mv $M/.Toys/tmp/d $M/.Toys/new/d`, []string{"append Toys d"}},
		{"deleted mailbox", `rm $M/.Toys/new/d; rmdir $M/.Toys/*; rmdir $M/.Toys`, []string{"expunge Toys d", "delete Toys"}},
		{"subscriptions", `echo Work > $M/subscriptions.lock; mv $M/subscriptions.lock $M/subscriptions`, []string{"subscriptions INBOX"}},
		{"UID list", `echo x > $M/.Work/dovecot-uidlist`, []string{"uids Work"}},
		{"local files", `mkdir $M/.notmuch; echo x > $M/.notmuch/db; echo y > $M/dovecot.index; echo z > $M/cur/.mh_sequences`, nil},
	} {
		m.sh(t, step.script)
		t.Run(step.name, func(t *testing.T) { m.expect(t, step.want...) })
	}
}

func TestManyDeliveriesLeakNoDescriptors(t *testing.T) {
	for _, how := range []string{"rename", "link"} {
		t.Run(how, func(t *testing.T) {
			m := mountMaildir(t, nil)
			m.helper(t, "deliver", m.dir, "10", how)
			before := openFDs(t)
			m.helper(t, "deliver", m.dir, "2000", how)
			if after := openFDs(t); after > before+300 {
				t.Errorf("%d open descriptors after, %d before", after, before)
			}
			if n := len(m.engine.take()); n != 2010 {
				t.Errorf("%d events for 2010 deliveries", n)
			}
			if got := strings.TrimSpace(m.sh(t, `ls $M/new | wc -l`)); got != "2010" {
				t.Errorf("%s mails listed", got)
			}
		})
	}
}

func TestLayoutFSNestsMailboxes(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.Engine.(*engine).layoutFS = true })
	for _, step := range []struct {
		name, script string
		want         []string
	}{
		{"new mailbox", `mkdir $M/A $M/A/cur`, []string{"create A", "create A"}},
		{"mailbox in a mailbox", `mkdir -p $M/A/B/cur $M/A/B/new $M/A/B/tmp`, []string{"create A/B", "create A/B"}},
		{"delivery", `echo x > $M/A/B/tmp/m; mv $M/A/B/tmp/m $M/A/B/new/m`, []string{"append A/B m"}},
		{"rename of the outer one", `mv $M/A $M/C`, []string{"rename A -> C"}},
		{"flags below it", `mv $M/C/B/new/m $M/C/B/cur/m:2,S; cat $M/C/B/new/m`, []string{"flags C/B m -> m:2,S"}},
		{"move out", `mv $M/C/B/cur/m:2,S $M/cur/m:2,S`, []string{"move C/B m:2,S -> INBOX m:2,S"}},
		{"delete", `rm -r $M/C`, []string{"delete C/B", "delete C"}},
	} {
		m.sh(t, step.script)
		t.Run(step.name, func(t *testing.T) { m.expect(t, step.want...) })
	}
}

// A change of which the engine hears because it watches the backing directory, but which came through the mount, must not
// cost the kernel its cached listing.
func TestInvalidatingWhatTheMountKnowsTellsTheKernelNothing(t *testing.T) {
	r := newRaw(t)
	r.deliver("a")
	r.rename(r.walk("new"), "a", r.walk("cur"), "a:2,S", 1)
	r.told()
	r.Changed("new", "a")
	r.Changed("cur", "a:2,S")
	r.Changed("cur")
	if told := r.told(); len(told) != 0 {
		t.Errorf("told %q", told)
	}
}
