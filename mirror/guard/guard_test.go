package guard_test

import (
	"errors"
	"strings"
	"testing"

	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/mail"
)

func TestJudge(t *testing.T) {
	named := func(want mail.Name) func(mail.Name) bool { return func(n mail.Name) bool { return n == want } }
	for _, c := range []struct {
		name   string
		loss   guard.Loss
		policy func(*guard.Policy)
		want   guard.Cause
	}{
		{name: "nothing missing", loss: guard.Loss{Mailbox: "INBOX", Known: 100}},
		{name: "an empty mailbox stays empty", loss: guard.Loss{Mailbox: "INBOX"}},
		{name: "fifty of sixty", loss: guard.Loss{Mailbox: "INBOX", Known: 60, Missing: 50}},
		{name: "fifty-one of sixty", loss: guard.Loss{Mailbox: "INBOX", Known: 60, Missing: 51}, want: guard.TooMany},
		{name: "a fifth of many", loss: guard.Loss{Mailbox: "INBOX", Known: 1000, Missing: 200}},
		{name: "more than a fifth of many", loss: guard.Loss{Mailbox: "INBOX", Known: 1000, Missing: 201}, want: guard.TooMany},
		{name: "all of nine", loss: guard.Loss{Mailbox: "INBOX", Known: 9, Missing: 9}},
		{name: "all of ten", loss: guard.Loss{Mailbox: "INBOX", Known: 10, Missing: 10}, want: guard.All},
		{name: "all but one of ten", loss: guard.Loss{Mailbox: "INBOX", Known: 10, Missing: 9}},
		{name: "a small mailbox gone", loss: guard.Loss{Mailbox: "Work", Known: 9, Missing: 9, Gone: true}},
		{name: "a mailbox gone", loss: guard.Loss{Mailbox: "Work", Known: 10, Missing: 10, Gone: true}, want: guard.Gone},
		{name: "a mailbox gone whose mails turned up elsewhere", loss: guard.Loss{Mailbox: "Work", Known: 10, Gone: true}, want: guard.Gone},
		{name: "the trash emptied", loss: guard.Loss{Mailbox: "Mail/Trash", Known: 5000, Missing: 5000}},
		{name: "most of the trash", loss: guard.Loss{Mailbox: "trash", Known: 5000, Missing: 4000}},
		{name: "the trash itself gone", loss: guard.Loss{Mailbox: "Trash", Known: 5000, Missing: 5000, Gone: true}, want: guard.Gone},
		{name: "a mailbox below the trash", loss: guard.Loss{Mailbox: "Trash/Work", Known: 10, Missing: 10}, want: guard.All},
		{
			name: "marked as trash", loss: guard.Loss{Mailbox: "Papierkorb", Known: 10, Missing: 10},
			policy: func(p *guard.Policy) { p.Exempt = named("Papierkorb") },
		},
		{
			name: "allowed", loss: guard.Loss{Mailbox: "INBOX", Known: 1000, Missing: 1000, Gone: true},
			policy: func(p *guard.Policy) { p.Allow = named("INBOX") },
		},
		{
			name: "another one allowed", loss: guard.Loss{Mailbox: "INBOX", Known: 1000, Missing: 1000},
			policy: func(p *guard.Policy) { p.Allow = named("Work") }, want: guard.All,
		},
		{
			name: "no limits", loss: guard.Loss{Mailbox: "INBOX", Known: 1000, Missing: 1},
			policy: func(p *guard.Policy) { p.MaxMissingPercent, p.MaxMissingMails = 0, 0 }, want: guard.TooMany,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := guard.DefaultPolicy()
			if c.policy != nil {
				c.policy(&p)
			}
			err := guard.Judge([]guard.Loss{{Mailbox: "Other", Known: 5}, c.loss}, p)
			if c.want == 0 {
				if err != nil {
					t.Fatalf("stopped: %v", err)
				}
				return
			}
			var stop *guard.Error
			if !errors.As(err, &stop) || !errors.Is(err, guard.ErrMassExpunge) {
				t.Fatalf("error %v", err)
			}
			if len(stop.Stops) != 1 || stop.Stops[0].Cause != c.want || stop.Stops[0].Loss != c.loss {
				t.Errorf("stops %+v, want cause %d", stop.Stops, c.want)
			}
		})
	}
}

func TestAStoreOfSmallMailboxesVanishes(t *testing.T) {
	var losses []guard.Loss
	for _, name := range []mail.Name{"A", "B", "C", "D", "E", "F"} {
		losses = append(losses, guard.Loss{Mailbox: name, Known: 9, Missing: 9, Gone: true})
	}
	if err := guard.Judge(losses[:5], guard.DefaultPolicy()); err != nil {
		t.Errorf("45 mails stopped: %v", err)
	}
	var stop *guard.Error
	if err := guard.Judge(losses, guard.DefaultPolicy()); !errors.As(err, &stop) || len(stop.Stops) != 6 {
		t.Errorf("54 mails: %v", err)
	}
}

func TestDisposable(t *testing.T) {
	for name, want := range map[mail.Name]bool{
		"Trash": true, "INBOX/Junk E-mail": true, "SPAM": true, "Deleted Items": true, "Deleted Messages": true, "Trash-2025": true, "spam_2": true,
		"Spamassassin": false, "Trashy novels": false, "INBOX": false, "Trash/Keep": false, "binary": false, "Spamübung": false,
	} {
		if got := guard.Disposable(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestErrorText(t *testing.T) {
	err := guard.Judge([]guard.Loss{{Mailbox: "Alte Post", Known: 1000, Missing: 600}}, guard.DefaultPolicy())
	want := "mailbox 'Alte Post': 600 of 1000 mails are gone and nobody was seen expunging them, so nothing was changed; " +
		"if that is right, run again with --allow-mass-expunge='Alte Post', to get them back from the other side with --restore='Alte Post'"
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v, want\n%s", err, want)
	}
	var losses []guard.Loss
	for _, name := range []mail.Name{"A", "B", "C", "D", "E", "F", "it's"} {
		losses = append(losses, guard.Loss{Mailbox: name, Known: 10, Missing: 10})
	}
	text := guard.Judge(losses, guard.DefaultPolicy()).Error()
	if lines := strings.Split(text, "\n"); len(lines) != 7 || lines[5] != "and 2 mailboxes more" || !strings.Contains(lines[6], "--allow-mass-expunge") {
		t.Errorf("text for seven mailboxes:\n%s", text)
	}
	text = guard.Judge(losses[6:], guard.DefaultPolicy()).Error()
	if !strings.Contains(text, `--restore='it'\''s'`) {
		t.Errorf("text %s", text)
	}
}
