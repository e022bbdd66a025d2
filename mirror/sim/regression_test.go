package sim

import (
	"errors"
	"strings"
	"testing"
)

// regressions are histories that once failed, under what went wrong.
var regressions = map[string]string{
	"a crash while a uidlist was replaced left a file for ever": `
		++ ++
		{"Op":"sync","Side":1,"Seed":5319315510713713332,"Type":"f","Fault":{"Second":true,"What":"crash","At":6,"Seed":10286874554235646634}}
		{"Op":"sync","Side":1,"Seed":4776518235737864852,"Type":"f","Fault":{"Second":true,"What":"late","At":32,"Seed":17229078358610993506}}`,
	"a mailbox deleted on one side stayed on the other in full syncs": `
		++ ++
		{"Op":"create","Side":1,"Seed":17526473767267576131}
		{"Op":"sync","Side":1,"Seed":5907709321363555435,"Type":"s"}
		{"Op":"burst","Side":1,"Seed":16007114548167895467}
		{"Op":"sync","Side":1,"Seed":8292328028725064839,"Type":"f"}
		{"Op":"delete","Side":0,"Seed":7593279407073230916}`,
	"a mail edited while UIDVALIDITY changed kept its GUID": `
		fs ++
		{"Op":"sync","Side":1,"Seed":589560578731057484,"Type":"s","Users":4,"Restore":true}
		{"Op":"burst","Side":1,"Seed":16211640990942983506}
		{"Op":"sync","Side":1,"Seed":1452606613856687987,"Type":"s"}
		{"Op":"resetvalidity","Side":1,"Seed":4106369980188741555}
		{"Op":"edit","Side":1,"Seed":3770989180254086099}`,
	"an error while the Maildir was made forbade to make it": `
		fs ++
		{"Op":"sync","Side":1,"Seed":18070985740509648028,"Type":"f","Fault":{"What":"eio","At":2,"Seed":17899071347808138354}}`,
	"a power cut took the Maildir that a round had made": `
		fs ++
		{"Op":"sync","Side":1,"Seed":10126657075499735689,"Type":"s","Reversed":true,"Fault":{"Second":true,"What":"crash","At":8,"Loss":1,"Seed":2064609122335205342}}`,
	"an expunge removed what a user had written in the place of the mail": `
		fs ++
		{"Op":"deliver","Side":0,"Seed":7062125317226812741}
		{"Op":"sync","Side":1,"Seed":7387718750845514705,"Type":"s"}
		{"Op":"expunge","Side":1,"Seed":10616363238614225427}
		{"Op":"edit","Side":0,"Seed":14827747577963304442}
		{"Op":"sync","Side":1,"Seed":9281797771950691128,"Type":"s"}`,
	"the guard of the slave was not heard by a master that was still sending": `
		fs ++
		{"Op":"sync","Side":1,"Seed":589560578731057484,"Type":"s","Users":4,"Restore":true}
		{"Op":"burst","Side":1,"Seed":16211640990942983506}
		{"Op":"sync","Side":1,"Seed":17102451732946244270,"Type":"s"}
		{"Op":"empty","Side":1,"Seed":9983493912511309797}
		{"Op":"sync","Side":1,"Seed":1452606613856687987,"Type":"s"}`,
}

func TestRegressions(t *testing.T) {
	for name, text := range regressions {
		t.Run(name, func(t *testing.T) {
			h, err := ParseHistory(text)
			if err != nil {
				t.Fatal(err)
			}
			var v *Violation
			if err := Run(t, h); errors.As(err, &v) {
				t.Fatalf("%v\ncourse:\n%s", err, strings.Join(v.Trace, "\n"))
			}
		})
	}
}
