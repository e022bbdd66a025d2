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
	"a mailbox that was renamed was taken for a copy when its old name was taken anew": `
		++ ++
		{"Op":"sync","Side":1,"Seed":11356675194268086333,"Type":"c"}
		{"Op":"create","Side":1,"Seed":6551984844133350146}
		{"Op":"sync","Side":1,"Seed":10668060798116607094,"Type":"s","Users":4}
		{"Op":"sync","Side":1,"Seed":11440974163060804680,"Type":"c","Users":6}
		{"Op":"sync","Side":1,"Seed":3975343427975307440,"Type":"s","Users":1}
		{"Op":"rename","Side":0,"Seed":8808626277947760718}
		{"Op":"create","Side":0,"Seed":2082973366855925239}`,
	"a mail that came into a mailbox while it was deleted went with it": `
		++ ++
		{"Op":"create","Side":1,"Seed":15790836381566443010}
		{"Op":"sync","Side":1,"Seed":1599394621399341975,"Type":"s","Restore":true}
		{"Op":"delete","Side":0,"Seed":10657269053930170480}
		{"Op":"sync","Side":1,"Seed":10080278784803727705,"Type":"s","Users":3}`,
	"a mailbox that was renamed while it was looked for made the sync fail": `
		++ fs
		{"Op":"create","Side":0,"Seed":16171805743997523216}
		{"Op":"sync","Side":1,"Seed":17824778449212120097,"Type":"s","Users":4,"Fault":{"What":"reads","Reads":256,"Seed":12430483157919264850}}`,
	"a crash while a UIDVALIDITY was taken over left a wrong count": `
		++ ++
		{"Op":"deliver","Side":1,"Seed":13867175315757522498}
		{"Op":"sync","Side":1,"Seed":3351063896148516546,"Type":"s","Reversed":true}
		{"Op":"resetvalidity","Side":1,"Seed":3094162082410833383}
		{"Op":"deliver","Side":1,"Seed":13816497815881017131}
		{"Op":"sync","Side":1,"Seed":12478869640115585097,"Type":"s","Fault":{"Second":true,"What":"crash","At":7,"Loss":1,"Seed":18329203977134484327}}`,
	"what a crash left in a mailbox stayed when that was deleted": `
		fs ++ ++
		{"Op":"create","Side":0,"Seed":12868600328413728418}
		{"Op":"sync","Side":2,"Seed":7916785620638239026,"Type":"f","Fault":{"What":"crash","At":27,"Loss":3,"Seed":17658940177351856426}}
		{"Op":"sync","Side":2,"Seed":16131491957530098008,"Type":"c"}
		{"Op":"create","Side":0,"Seed":12902072050819567334}
		{"Op":"delete","Side":2,"Seed":12752895951605786997}`,
	"a Maildir that was made in two attempts was not on disk": `
		fs ++
		{"Op":"sync","Side":1,"Seed":12000651772851250642,"Type":"f","Fault":{"Second":true,"What":"full","At":2,"Seed":2399108577385205029}}
		{"Op":"sync","Side":1,"Seed":11364929793594854228,"Type":"s","Fault":{"Second":true,"What":"crash","At":2,"Loss":3,"Seed":14476875172044161831}}
		{"Op":"sync","Side":1,"Seed":3385294384594304449,"Type":"c"}`,
	"a copy was made of what a user had written in the place of the mail": `
		++ ++
		{"Op":"create","Side":0,"Seed":1613004791925018194}
		{"Op":"deliver","Side":0,"Seed":2566043960694730260}
		{"Op":"sync","Side":1,"Seed":16728240132166030649,"Type":"s"}
		{"Op":"create","Side":0,"Seed":13226440376583228735}
		{"Op":"create","Side":0,"Seed":5525598771984080880}
		{"Op":"edit","Side":1,"Seed":7090150766392934716}
		{"Op":"copy","Side":0,"Seed":14155472873080609005}
		{"Op":"sync","Side":1,"Seed":9735978769593486025,"Type":"s","Reversed":true,"Users":5}`,
	"a mailbox whose UIDVALIDITY had changed was deleted with mail that the other side had not seen": `
		++ ++
		{"Op":"create","Side":1,"Seed":13729603952807845413}
		{"Op":"deliver","Side":1,"Seed":10291099808643214343}
		{"Op":"sync","Side":1,"Seed":17143468866528998596,"Type":"s","Reversed":true}
		{"Op":"create","Side":0,"Seed":4541358186974112549}
		{"Op":"move","Side":0,"Seed":8127717713585492147}
		{"Op":"sync","Side":1,"Seed":1850324121399411626,"Type":"f","Reversed":true,"Cut":4}
		{"Op":"move","Side":0,"Seed":14358423961603765001}
		{"Op":"sync","Side":1,"Seed":6843168114527187529,"Type":"f"}
		{"Op":"move","Side":1,"Seed":4612539466211261708}
		{"Op":"delete","Side":0,"Seed":3952912031781518481}
		{"Op":"resetvalidity","Side":1,"Seed":8649994963788921099}`,
	"a mailbox that was renamed while its GUID was set made the sync fail": `
		++ ++
		{"Op":"create","Side":0,"Seed":818057372798706832}
		{"Op":"create","Side":1,"Seed":14064841478545952138}
		{"Op":"create","Side":0,"Seed":11404344825763923779}
		{"Op":"delete","Side":0,"Seed":7400086290942512723}
		{"Op":"sync","Side":1,"Seed":1584628877381288214,"Type":"c","Users":3}`,
	"a mail that was told to the other side and was not on disk yet looked expunged after a power cut": `
		++ fs
		{"Op":"deliver","Side":1,"Seed":6016006640443370928}
		{"Op":"sync","Side":1,"Seed":3911942430226591120,"Type":"f","Reversed":true,"Users":2}
		{"Op":"sync","Side":1,"Seed":1008641318491849266,"Type":"s","Fault":{"What":"eintr","At":23,"Seed":1331087640970820207}}
		{"Op":"sync","Side":1,"Seed":12354417112268738788,"Type":"c"}
		{"Op":"crash","Side":0,"Seed":2036090018010999701}`,
	"a letter without a meaning got one from a mail that was moved there": `
		++ fs
		{"Op":"deliver","Side":0,"Seed":1247613894101934370}
		{"Op":"keyword","Side":0,"Seed":17264030580239409445}
		{"Op":"create","Side":0,"Seed":5098424307078468039}
		{"Op":"copy","Side":0,"Seed":13648506456164603150}
		{"Op":"sync","Side":1,"Seed":13362252702306626407,"Type":"s","Cut":2}
		{"Op":"copy","Side":0,"Seed":3074070563753950424}
		{"Op":"resetvalidity","Side":0,"Seed":1927767967589970070}
		{"Op":"move","Side":0,"Seed":328116477416799082}`,
	"a flag that a user set while the mail got another UID was recorded nowhere": `
		fs ++ ++
		{"Op":"sync","Side":2,"Seed":5749974176697713739,"Type":"s","Reversed":true}
		{"Op":"deliver","Side":2,"Seed":6021284878166190446}
		{"Op":"burst","Side":0,"Seed":786374721445803125}
		{"Op":"sync","Side":1,"Seed":2596169341772188749,"Type":"s","Restore":true}
		{"Op":"sync","Side":2,"Seed":9879180118461670389,"Type":"s","Fault":{"What":"eintr","At":79,"Seed":9944930564786670904}}
		{"Op":"sync","Side":1,"Seed":6977210132488239434,"Type":"s","Users":3}`,
	"a mail that was to get another UID was there twice when the round broke off": `
		++ ++ ++
		{"Op":"deliver","Side":2,"Seed":7526319565737640405}
		{"Op":"sync","Side":2,"Seed":15986422894975912794,"Type":"s","Users":1}
		{"Op":"sync","Side":1,"Seed":10202562361285758350,"Type":"c","Reversed":true,"Users":5}
		{"Op":"burst","Side":0,"Seed":3792605815217084406}
		{"Op":"sync","Side":2,"Seed":12333232863654858311,"Type":"f","Reversed":true,"Users":5,"Fault":{"What":"eintr","At":156,"Seed":13011477223233367789},"Restore":true}
		{"Op":"sync","Side":1,"Seed":1592364102392920071,"Type":"c","Reversed":true}
		{"Op":"sync","Side":2,"Seed":199242298774568767,"Type":"f","Fault":{"Second":true,"What":"eintr","At":30,"Seed":9440159549334810340},"Restore":true}`,
	"a power cut that left only tmp of a Maildir that was being made forbade to make it": `
		fs ++
		{"Op":"sync","Side":1,"Seed":9122392702981536292,"Type":"s","Fault":{"What":"crash","At":4,"Loss":3,"Seed":6261176806971512221}}
		{"Op":"sync","Side":1,"Seed":15239616281082679602,"Type":"f"}`,
	"a mail that was written in the place of another took over its GUID when the uidlist was made anew": `
		++ ++
		{"Op":"deliver","Side":0,"Seed":13707384008367365735}
		{"Op":"create","Side":0,"Seed":12123645933733551944}
		{"Op":"sync","Side":1,"Seed":7867002387506085235,"Type":"f","Restore":true}
		{"Op":"resetguid","Side":1,"Seed":13979979095859759381}
		{"Op":"edit","Side":1,"Seed":1777227254021303303}
		{"Op":"sync","Side":1,"Seed":12184757568326953293,"Type":"c","Reversed":true,"Fault":{"Second":true,"What":"crash","At":24,"Seed":7412233072470452685}}
		{"Op":"resetguid","Side":1,"Seed":8578052400117876232}
		{"Op":"copy","Side":0,"Seed":1100564569807500563}`,
	"a copy that took the name of a mail that went from another mailbox took over its GUID": `
		++ fs ++
		{"Op":"create","Side":1,"Seed":12678757161319978137}
		{"Op":"create","Side":1,"Seed":1450984520732128475}
		{"Op":"deliver","Side":1,"Seed":12468744764049868449}
		{"Op":"deliver","Side":1,"Seed":1561129500045272551}
		{"Op":"sync","Side":1,"Seed":8204127158827726815,"Type":"s","Reversed":true}
		{"Op":"sync","Side":2,"Seed":2384693699509124612,"Type":"s","Users":6}
		{"Op":"edit","Side":0,"Seed":2048535192902672974}
		{"Op":"sync","Side":1,"Seed":16165991022401378108,"Type":"s","Reversed":true,"Users":3}
		{"Op":"copy","Side":0,"Seed":14052843898841077122}
		{"Op":"expunge","Side":0,"Seed":8644078007670088185}`,
	"the parent of a new mailbox was taken for the one that had its name before a rename": `
		++ fs
		{"Op":"create","Side":0,"Seed":7054803806952704048}
		{"Op":"create","Side":0,"Seed":9643366882057104044}
		{"Op":"create","Side":0,"Seed":14900482800062283897}
		{"Op":"sync","Side":1,"Seed":2327977581216184410,"Type":"f"}
		{"Op":"rename","Side":1,"Seed":7490502194400002154}
		{"Op":"create","Side":1,"Seed":16614514994307749954}`,
	"the guard counted mails of a small mailbox that were seen going": `
		fs ++
		{"Op":"create","Side":1,"Seed":8867268056453989138}
		{"Op":"burst","Side":1,"Seed":5031300347461417606}
		{"Op":"sync","Side":1,"Seed":426807757673067668,"Type":"s","Users":1}
		{"Op":"move","Side":0,"Seed":17675617208979368276}
		{"Op":"recreate","Side":0,"Seed":10006420429564824826}
		{"Op":"sync","Side":1,"Seed":15376760239119481704,"Type":"s","Reversed":true,"Restore":true}`,
	"a line of the uidlist whose sync had failed was told to others and lost by a power cut": `
		++ ++
		{"Op":"create","Side":0,"Seed":4733453853746999904}
		{"Op":"deliver","Side":1,"Seed":8035130985870780282}
		{"Op":"sync","Side":1,"Seed":5347173616570671069,"Type":"s"}
		{"Op":"copy","Side":1,"Seed":5844770036603531978}
		{"Op":"sync","Side":1,"Seed":11084874105119872460,"Type":"f","Reversed":true,"Fault":{"What":"eio","At":4,"Seed":7709335766222532046}}
		{"Op":"sync","Side":1,"Seed":16955574023690380799,"Type":"f","Reversed":true}
		{"Op":"crash","Side":1,"Seed":8894110834150215106}`,
	"mail that came into a mailbox that was made anew went when the other side deleted its own": `
		++ ++
		{"Op":"create","Side":1,"Seed":13542247353866894458}
		{"Op":"deliver","Side":1,"Seed":3074925927241250623}
		{"Op":"subscribe","Side":1,"Seed":5042978584859791945}
		{"Op":"deliver","Side":1,"Seed":12399156396581096123}
		{"Op":"sync","Side":1,"Seed":924989666489503214,"Type":"s"}
		{"Op":"delete","Side":0,"Seed":14042562335264249013}
		{"Op":"copy","Side":0,"Seed":201884603866461161}
		{"Op":"create","Side":0,"Seed":5317907040933335284}
		{"Op":"deliver","Side":1,"Seed":14076329493956502975}
		{"Op":"sync","Side":1,"Seed":4350817101595801517,"Type":"f","Cut":59}
		{"Op":"create","Side":0,"Seed":13991573805407518789}
		{"Op":"delete","Side":1,"Seed":7948002338548872696}
		{"Op":"deliver","Side":0,"Seed":714128141965669280}`,
	"the guard counted mails that had moved into a mailbox that was made anew": `
		++ fs
		{"Op":"sync","Side":1,"Seed":2528061379243694072,"Type":"s","Reversed":true,"Fault":{"Second":true,"What":"late","At":214,"Seed":16618234463608063276}}
		{"Op":"burst","Side":0,"Seed":5456076371321739498}
		{"Op":"resetguid","Side":0,"Seed":1705170223778362077}
		{"Op":"sync","Side":1,"Seed":5952495688838254721,"Type":"s","Users":5}
		{"Op":"sync","Side":1,"Seed":13292056305040339603,"Type":"s","Restore":true}
		{"Op":"recreate","Side":1,"Seed":13862074158511142452}
		{"Op":"move","Side":1,"Seed":10987996628028312465}
		{"Op":"empty","Side":1,"Seed":14340639674757784167}
		{"Op":"sync","Side":1,"Seed":2999288786436153704,"Type":"s"}`,
	"a mail that was edited went with the one in whose place it was when its UID had changed before a failure": `
		++ ++
		{"Op":"sync","Side":1,"Seed":16321936046951858488,"Type":"s","Users":5,"Restore":true}
		{"Op":"sync","Side":1,"Seed":16919051793715691828,"Type":"f","Fault":{"Second":true,"What":"crash","At":196,"Loss":3,"Seed":4251200170832604739}}
		{"Op":"keyword","Side":1,"Seed":17324729697350798080}
		{"Op":"deliver","Side":1,"Seed":16695303374541913699}
		{"Op":"sync","Side":1,"Seed":10349502654467053109,"Type":"s"}
		{"Op":"expunge","Side":1,"Seed":10994998552621082550}
		{"Op":"deliver","Side":1,"Seed":12570589962954671580}
		{"Op":"deliver","Side":0,"Seed":9580709841483067785}
		{"Op":"copy","Side":1,"Seed":11491779059689904742}
		{"Op":"forget","Side":1,"Seed":18298079262886184881}
		{"Op":"sync","Side":1,"Seed":7661674903855441165,"Type":"s","Fault":{"What":"late","At":28,"Seed":4538966097874481657}}
		{"Op":"empty","Side":1,"Seed":5689721533983220801}
		{"Op":"edit","Side":0,"Seed":3701192153255925559}`,
	"what a round did in one mailbox made it forget that it had yet to decide what became of mails in another": `
		++ ++
		{"Op":"create","Side":0,"Seed":9574293931055072668}
		{"Op":"burst","Side":0,"Seed":16292608491342607}
		{"Op":"burst","Side":0,"Seed":12040316155686759468}
		{"Op":"deliver","Side":1,"Seed":14768250133831479341}
		{"Op":"sync","Side":1,"Seed":8853371818891585765,"Type":"s","Restore":true}
		{"Op":"flag","Side":1,"Seed":1945420716758236384}
		{"Op":"create","Side":0,"Seed":3159849585472966148}
		{"Op":"deliver","Side":1,"Seed":3094359071611691028}
		{"Op":"create","Side":0,"Seed":17440235063715883919}
		{"Op":"deliver","Side":0,"Seed":2342794950033467248}
		{"Op":"live","Side":0,"Seed":11957653670816192331,"Cut":135,"Users":26,"Fault":{"Second":true,"What":"crash","At":8,"Loss":3,"Seed":16324303061658348252}}`,
	"a second name of a mail, of a copy and a move at once, stayed for ever": `
		++ ++
		{"Op":"sync","Side":1,"Seed":9566997173321669506,"Type":"s","Restore":true}
		{"Op":"burst","Side":1,"Seed":4656930134405118842}
		{"Op":"live","Side":0,"Seed":4297872645433032983,"Wire":true,"Users":13}
		{"Op":"deliver","Side":1,"Seed":13093864669986010155}
		{"Op":"deliver","Side":1,"Seed":6679213414776465333}
		{"Op":"subscribe","Side":0,"Seed":10150583734733739071}
		{"Op":"copy","Side":0,"Seed":6077261026728262223}
		{"Op":"sync","Side":1,"Seed":18384807302747520788,"Type":"s"}
		{"Op":"deliver","Side":1,"Seed":15369045066021423298}
		{"Op":"sync","Side":1,"Seed":6255030369149260800,"Type":"s"}
		{"Op":"unsubscribe","Side":1,"Seed":12030445247910695185}
		{"Op":"live","Side":0,"Seed":3163677974980552613,"Users":24}
		{"Op":"deliver","Side":0,"Seed":16088620702158602623}
		{"Op":"deliver","Side":0,"Seed":2359144058355527385}
		{"Op":"create","Side":1,"Seed":10715101981144692204}
		{"Op":"deliver","Side":0,"Seed":3626947191880068644}
		{"Op":"create","Side":1,"Seed":11898047998979653323}
		{"Op":"sync","Side":1,"Seed":14596732059712230381,"Type":"s"}
		{"Op":"move","Side":0,"Seed":12469917051261768601}
		{"Op":"sync","Side":1,"Seed":15465486619483977213,"Type":"s"}
		{"Op":"deliver","Side":0,"Seed":11633860559213578157}
		{"Op":"expunge","Side":0,"Seed":766557322344583076}
		{"Op":"live","Side":0,"Seed":15311569384202979179,"Wire":true,"Users":17}
		{"Op":"flag","Side":0,"Seed":10851133288756742744}
		{"Op":"move","Side":1,"Seed":539219700623513002}
		{"Op":"sync","Side":1,"Seed":16758121813960805749,"Type":"f","Users":6}`,
	"a mail that came into a mailbox while it was deleted was lost with a process that was killed before it put that back": `
		++ ++
		{"Op":"create","Side":0,"Seed":7689664647509001511}
		{"Op":"sync","Side":1,"Seed":3776261911034199531,"Type":"f"}
		{"Op":"sync","Side":1,"Seed":6877643117301622821,"Type":"s","Users":6}
		{"Op":"recreate","Side":0,"Seed":12056073205384447546}
		{"Op":"sync","Side":1,"Seed":14689710725837175474,"Type":"c","Fault":{"What":"crash","At":15,"Loss":3,"Seed":8705191565270880299}}
		{"Op":"sync","Side":1,"Seed":15948549776630727305,"Type":"c","Users":2,"Fault":{"Second":true,"What":"crash","At":4,"Loss":2,"Seed":301003840939479650}}`,
	"a level of the hierarchy that came with a mailbox passed for renamed just now, and names went to and fro between three": `
		++ fs ++
		{"Op":"create","Side":0,"Seed":17121104181857332639}
		{"Op":"sync","Side":1,"Seed":3242901006813544965,"Type":"s"}
		{"Op":"sync","Side":2,"Seed":3764062668992884033,"Type":"s","Reversed":true}
		{"Op":"rename","Side":2,"Seed":16635969129116333484}
		{"Op":"sync","Side":2,"Seed":272213468304780816,"Type":"s","Cut":19}
		{"Op":"create","Side":0,"Seed":3040907325248541159}
		{"Op":"rename","Side":2,"Seed":11594473138891873554}`,
	"the log of a mailbox from which a mail was missing did not remember that it had been trimmed": `
		fs ++
		{"Op":"create","Side":1,"Seed":7720269009017796148}
		{"Op":"create","Side":0,"Seed":6604945563031573577}
		{"Op":"create","Side":1,"Seed":7199338715091900631}
		{"Op":"sync","Side":1,"Seed":10139979391123375641,"Type":"c"}
		{"Op":"burst","Side":1,"Seed":17968721656138344584}
		{"Op":"sync","Side":1,"Seed":7430193501006751219,"Type":"f"}
		{"Op":"move","Side":0,"Seed":15805372355792042843}
		{"Op":"sync","Side":1,"Seed":12098632702105390800,"Type":"f","Fault":{"Second":true,"What":"crash","At":29,"Loss":1,"Seed":10773239555348164557},"Restore":true}
		{"Op":"move","Side":0,"Seed":11882848265154968234}
		{"Op":"clock","Side":0,"Seed":16631349291658604856}
		{"Op":"live","Side":0,"Seed":12070339921608699684,"Reversed":true,"Users":3}`,
	"a power cut left only tmp of a mailbox that was removed, and its directory could not be deleted": `
		fs fs backup
		{"Op":"create","Side":1,"Seed":7251741264553960024}
		{"Op":"delete","Side":1,"Seed":14432479872961688071}
		{"Op":"sync","Side":1,"Seed":12692421695836005178,"Type":"s","Fault":{"Second":true,"What":"crash","At":4,"Loss":1,"Seed":6668195233086823553}}
		{"Op":"sync","Side":1,"Seed":17766070658554114323,"Type":"s"}`,
	"a mailbox that got the GUID of a deleted one took over its last common state, and a mail was there twice": `
		++ ++
		{"Op":"deliver","Side":1,"Seed":358064694568970245}
		{"Op":"forget","Side":1,"Seed":16980447706216737387}
		{"Op":"sync","Side":1,"Seed":4706057841629968466,"Type":"s","Users":3,"Fault":{"Second":true,"What":"eintr","At":234,"Seed":7307809616426111927},"Restore":true}
		{"Op":"edit","Side":1,"Seed":12636969312782462567}
		{"Op":"edit","Side":0,"Seed":17451468211805641202}
		{"Op":"create","Side":0,"Seed":10307116911163172009}
		{"Op":"subscribe","Side":1,"Seed":6755552574378442199}
		{"Op":"live","Side":0,"Seed":9984460813475760129,"Cut":122,"Users":25}
		{"Op":"create","Side":0,"Seed":2165610092674165875}
		{"Op":"live","Side":0,"Seed":10012403301900436958,"Reversed":true,"Cut":61,"Users":3}
		{"Op":"live","Side":0,"Seed":4201127376866303213,"Cut":3,"Users":28,"Fault":{"What":"crash","At":14,"Seed":8110746941718497198}}
		{"Op":"copy","Side":0,"Seed":5651246981778196536}
		{"Op":"sync","Side":1,"Seed":4052761058090271033,"Type":"s","Reversed":true}
		{"Op":"recreate","Side":0,"Seed":13841912631085873456}
		{"Op":"move","Side":1,"Seed":9012408131674971159}
		{"Op":"keyword","Side":1,"Seed":16611299863706290537}
		{"Op":"create","Side":1,"Seed":5391862147958842476}
		{"Op":"sync","Side":1,"Seed":13054168185695288261,"Type":"c","Fault":{"Second":true,"What":"eintr","At":3,"Seed":17693955833842155077},"Restore":true}
		{"Op":"create","Side":0,"Seed":10400016088681171522}
		{"Op":"sync","Side":1,"Seed":1545013877762153501,"Type":"s","Fault":{"What":"crash","At":93,"Loss":1,"Seed":12802444579786810143}}
		{"Op":"expunge","Side":1,"Seed":3255697825016306659}
		{"Op":"live","Side":0,"Seed":9540899780470406149,"Cut":112,"Users":5,"Fault":{"Second":true,"What":"crash","At":4,"Loss":3,"Seed":17600383276833218088}}`,
	"what a power cut left of a mailbox that was removed was in the way of another one that got its name": `
		++ fs
		{"Op":"create","Side":1,"Seed":5923311597437654375}
		{"Op":"create","Side":1,"Seed":11114271568294745264}
		{"Op":"deliver","Side":0,"Seed":3151039759543570236}
		{"Op":"sync","Side":1,"Seed":4966888228923118128,"Type":"s"}
		{"Op":"sync","Side":1,"Seed":18292788553344579117,"Type":"s"}
		{"Op":"delete","Side":0,"Seed":2629212554828102634}
		{"Op":"flag","Side":0,"Seed":1076421664632595905}
		{"Op":"crash","Side":0,"Seed":11773768386660046686}
		{"Op":"sync","Side":1,"Seed":3006028394525954445,"Type":"c"}
		{"Op":"rename","Side":1,"Seed":3707058496371961360}`,
	"a mail that a user put back while its move was under way went for good": `
		++ ++ ++
		{"Op":"deliver","Side":0,"Seed":12233851199359834664}
		{"Op":"create","Side":0,"Seed":14351272698102217191}
		{"Op":"sync","Side":2,"Seed":9666509596619098608,"Type":"s","Reversed":true,"Restore":true}
		{"Op":"see","Side":0,"Seed":1972610499292335127}
		{"Op":"live","Side":0,"Seed":13772052730848195061,"Users":15,"Fault":{"Second":true,"What":"eio","At":1,"Seed":7811385054849112139}}
		{"Op":"empty","Side":1,"Seed":4764518949188636109}
		{"Op":"expunge","Side":2,"Seed":6738110022241529108}
		{"Op":"sync","Side":2,"Seed":12539011119667642846,"Type":"s"}
		{"Op":"flag","Side":0,"Seed":11249168594247114833}
		{"Op":"create","Side":0,"Seed":12536392285825550572}
		{"Op":"deliver","Side":0,"Seed":12728022919870272520}
		{"Op":"deliver","Side":1,"Seed":6057248765009474867}
		{"Op":"move","Side":1,"Seed":16671405718997857802}
		{"Op":"live","Side":0,"Seed":3696960970328590419,"Cut":89,"Users":11}`,
	"a UID that a plan gave to a mail was taken meanwhile, and the sync failed": `
		++ fs fs
		{"Op":"deliver","Side":0,"Seed":3666725382556308290}
		{"Op":"sync","Side":2,"Seed":6214389862803076093,"Type":"s","Reversed":true}
		{"Op":"copy","Side":2,"Seed":9012506525975269187}
		{"Op":"expunge","Side":2,"Seed":912892039523314711}
		{"Op":"create","Side":0,"Seed":2562039485087078239}
		{"Op":"sync","Side":2,"Seed":17084986052583261458,"Type":"f","Users":5,"Restore":true}`,
	"a mail whose UID had changed on one side and that the other one had under an older UID went on both": `
		++ fs ++
		{"Op":"deliver","Side":1,"Seed":3388907339828948253}
		{"Op":"deliver","Side":1,"Seed":5669348252910535214}
		{"Op":"sync","Side":1,"Seed":17866167205510620983,"Type":"s","Reversed":true}
		{"Op":"sync","Side":2,"Seed":12431990720708825275,"Type":"f"}
		{"Op":"expunge","Side":2,"Seed":7067921214993033151}
		{"Op":"resetvalidity","Side":2,"Seed":7227863381899683927}
		{"Op":"sync","Side":2,"Seed":11127382967415043181,"Type":"f","Edits":3}
		{"Op":"burst","Side":1,"Seed":15603845119861944219}
		{"Op":"sync","Side":2,"Seed":2593660848893405214,"Type":"c","Reversed":true}
		{"Op":"sync","Side":1,"Seed":3370299072769814220,"Type":"s","Restore":true}
		{"Op":"sync","Side":2,"Seed":6162248770231801728,"Type":"c","Reversed":true,"Cut":27}`,
	"UIDs of mails that went at once were told, and lost by a power cut": `
		++ ++ fs
		{"Op":"create","Side":0,"Seed":15207762780508699076}
		{"Op":"live","Side":0,"Seed":17440279297810163839,"Users":14,"Fault":{"Second":true,"What":"eio","At":1,"Seed":5514303625249709725}}
		{"Op":"burst","Side":0,"Seed":4180739136245239078}
		{"Op":"live","Side":0,"Seed":525580127720071181,"Users":17,"Fault":{"What":"late","At":3,"Seed":17860451026764272180}}
		{"Op":"crash","Side":0,"Seed":7111948193366778798}`,
	"a mailbox whose new identity a power cut took back could not be written any more": `
		++ ++ ++
		{"Op":"sync","Side":1,"Seed":11629136562155021370,"Type":"s","Fault":{"Second":true,"What":"eintr","At":15,"Seed":17922494248538612089}}
		{"Op":"deliver","Side":2,"Seed":1544759916790849439}
		{"Op":"live","Side":0,"Seed":7401913232744498738,"Cut":39,"Users":23,"Fault":{"Second":true,"What":"reads","Reads":8,"Seed":7327441184602226494}}
		{"Op":"sync","Side":2,"Seed":15317598945784455794,"Type":"c","Reversed":true}
		{"Op":"sync","Side":1,"Seed":11036788450460038694,"Type":"c","Fault":{"Second":true,"What":"enospc","At":7,"Seed":1215225223585565464}}
		{"Op":"sync","Side":1,"Seed":16392085263934445156,"Type":"c","Fault":{"Second":true,"What":"crash","At":5,"Loss":2,"Seed":18121111998178429845}}
		{"Op":"live","Side":0,"Seed":15287925536554492682,"Users":17,"Fault":{"What":"crash","At":8,"Loss":2,"Seed":5175322622170680343}}
		{"Op":"keyword","Side":1,"Seed":1500931611950544872}`,
	"a check did not know that a mailbox had been renamed to Trash": `
		++ ++
		{"Op":"live","Side":0,"Seed":3443497788094581187,"Users":7}
		{"Op":"deliver","Side":0,"Seed":12924187759368035336}
		{"Op":"live","Side":0,"Seed":7605427027194844000,"Reversed":true,"Users":29}
		{"Op":"keyword","Side":1,"Seed":11446603959038649306}
		{"Op":"create","Side":0,"Seed":17755388777661121177}
		{"Op":"live","Side":0,"Seed":10121333512216144989,"Reversed":true,"Users":27,"Fault":{"Second":true,"What":"late","At":13,"Seed":7364788639022968164}}
		{"Op":"rename","Side":1,"Seed":3072822841600603554}
		{"Op":"empty","Side":1,"Seed":18173766451155519887}
		{"Op":"sync","Side":1,"Seed":4577875588650927481,"Type":"s"}`,
	"a check went by a UIDVALIDITY that a round had yet to make durable": `
		++ fs
		{"Op":"clock","Side":0,"Seed":12708859549492148295}
		{"Op":"sync","Side":1,"Seed":16875152149521147575,"Type":"s","Fault":{"Second":true,"What":"eintr","At":38,"Seed":5604156385057614526}}
		{"Op":"sync","Side":1,"Seed":7052933862566372491,"Type":"s","Fault":{"Second":true,"What":"crash","At":2,"Loss":1,"Seed":11558459462958861848}}`,
	"a program that deleted a mailbox stopped halfway because of an fsync": `
		++ ++
		{"Op":"sync","Side":1,"Seed":9042727064891650871,"Type":"s"}
		{"Op":"create","Side":1,"Seed":17931515386490261736}
		{"Op":"live","Side":0,"Seed":15019272839807681480,"Cut":122,"Users":22,"Fault":{"Second":true,"What":"eintr","At":1,"Seed":16042225229944441725}}
		{"Op":"forget","Side":0,"Seed":1720371992062929293}
		{"Op":"live","Side":0,"Seed":10733215641517098355,"Wire":true,"Cut":20,"Users":7,"Fault":{"What":"late","At":3,"Seed":11186859331199638847}}`,
	"a mail that was edited had the GUID of its name again once index and uidlist were lost": `
		++ ++ ++
		{"Op":"deliver","Side":2,"Seed":1028743743840648379}
		{"Op":"sync","Side":2,"Seed":6074762285770300924,"Type":"s"}
		{"Op":"edit","Side":0,"Seed":10473552036768112498}
		{"Op":"sync","Side":1,"Seed":3669220604989095265,"Type":"f"}
		{"Op":"forget","Side":0,"Seed":1634843413962019859}
		{"Op":"resetvalidity","Side":0,"Seed":14587574100216013803}`,
	"a mail that was edited before UIDVALIDITY changed kept its GUID when the disk was full": `
		++ fs
		{"Op":"deliver","Side":0,"Seed":15610446685904029811}
		{"Op":"deliver","Side":0,"Seed":3144913926900588872}
		{"Op":"deliver","Side":1,"Seed":1644173032814585232}
		{"Op":"keyword","Side":0,"Seed":11391552078739535330}
		{"Op":"sync","Side":1,"Seed":15083252711286092812,"Type":"c"}
		{"Op":"edit","Side":0,"Seed":13878239913276239029}
		{"Op":"copy","Side":0,"Seed":1013848216924498265}
		{"Op":"keyword","Side":0,"Seed":8399494510168960345}
		{"Op":"expunge","Side":0,"Seed":11125427600507622388}
		{"Op":"resetguid","Side":0,"Seed":16483703218109291775}
		{"Op":"sync","Side":1,"Seed":17265209806476371073,"Type":"c","Reversed":true,"Fault":{"Second":true,"What":"full","At":5,"Seed":6609161682635503558}}`,
	"a check did not know that a deletion that had failed has a witness": `
		fs ++
		{"Op":"deliver","Side":1,"Seed":8637439505427433452}
		{"Op":"create","Side":0,"Seed":11990066161849111323}
		{"Op":"deliver","Side":1,"Seed":11003010665150043911}
		{"Op":"deliver","Side":1,"Seed":1309819059597891805}
		{"Op":"sync","Side":1,"Seed":8972072348757067544,"Type":"s","Fault":{"Second":true,"What":"late","At":33,"Seed":198911937517347971}}
		{"Op":"create","Side":0,"Seed":1410541964475023652}
		{"Op":"subscribe","Side":1,"Seed":11451455006427876806}
		{"Op":"sync","Side":1,"Seed":16500864951352606190,"Type":"s","Users":5}
		{"Op":"deliver","Side":1,"Seed":7615804691910125066}
		{"Op":"expunge","Side":1,"Seed":8652994200974663046}
		{"Op":"sync","Side":1,"Seed":17725032586804326383,"Type":"f","Users":4,"Restore":true}
		{"Op":"resetvalidity","Side":0,"Seed":12159795853639208588}
		{"Op":"delete","Side":1,"Seed":15090620408591842971}
		{"Op":"sync","Side":1,"Seed":18180250998592832653,"Type":"s","Fault":{"What":"eintr","At":31,"Seed":14920183629550149895}}
		{"Op":"sync","Side":1,"Seed":10871247556533590996,"Type":"c","Reversed":true}`,
	"the guard counted mails that had moved into a mailbox that waited for it": `
		++ fs
		{"Op":"create","Side":0,"Seed":16193923377521607259}
		{"Op":"burst","Side":0,"Seed":1882311144936390769}
		{"Op":"copy","Side":0,"Seed":5110055608589347053}
		{"Op":"sync","Side":1,"Seed":10771032639910467206,"Type":"s","Reversed":true}
		{"Op":"resetvalidity","Side":0,"Seed":6338854492771353951}
		{"Op":"expunge","Side":0,"Seed":8097109578863297072}
		{"Op":"copy","Side":0,"Seed":15036371109695882718}
		{"Op":"recreate","Side":0,"Seed":598140876264146705}
		{"Op":"sync","Side":1,"Seed":13755251308781622481,"Type":"s"}`,
	"a mail that a user moved back during a round was taken for one that the round had left": `
		++ ++ ++
		{"Op":"deliver","Side":2,"Seed":10696283473783289655}
		{"Op":"copy","Side":2,"Seed":11817985782363286762}
		{"Op":"sync","Side":2,"Seed":8057049480042872864,"Type":"f","Reversed":true,"Restore":true}
		{"Op":"create","Side":0,"Seed":1925200400244837293}
		{"Op":"live","Side":0,"Seed":14362445865660559061,"Wire":true,"Users":3}
		{"Op":"sync","Side":2,"Seed":701789175293415592,"Type":"f","Reversed":true}
		{"Op":"burst","Side":1,"Seed":12082836075626102603}
		{"Op":"sync","Side":1,"Seed":10614140301981856631,"Type":"s","Restore":true}
		{"Op":"move","Side":0,"Seed":14815702593746973955}
		{"Op":"sync","Side":1,"Seed":1757586068377560988,"Type":"s","Users":3,"Restore":true}
		{"Op":"move","Side":2,"Seed":13850552662940012219}
		{"Op":"burst","Side":0,"Seed":11274163017762739213}
		{"Op":"sync","Side":2,"Seed":10961363299419669233,"Type":"s","Users":6}`,
	"a new mailbox that lost its uidlist became two with the one that was renamed elsewhere": `
		++ ++ ++
		{"Op":"create","Side":0,"Seed":2383991026433903211}
		{"Op":"sync","Side":1,"Seed":13654716717343503816,"Type":"f","Reversed":true}
		{"Op":"sync","Side":2,"Seed":1319988226276173900,"Type":"s"}
		{"Op":"deliver","Side":0,"Seed":5864279704257575850}
		{"Op":"sync","Side":2,"Seed":17790676014961842058,"Type":"c","Reversed":true}
		{"Op":"loselist","Side":1,"Seed":10898280028326499735}
		{"Op":"rename","Side":2,"Seed":12757739290002025474}`,
	"a check did not know that a deletion that failed before it was noted has a witness": `
		++ ++
		{"Op":"create","Side":1,"Seed":14907817602919395049}
		{"Op":"create","Side":0,"Seed":7182848901160745625}
		{"Op":"live","Side":0,"Seed":72714289295922970,"Reversed":true,"Cut":42,"Users":27,"Fault":{"Second":true,"What":"crash","At":15,"Loss":2,"Seed":94823677460661468}}
		{"Op":"delete","Side":1,"Seed":4147663844995571094}
		{"Op":"sync","Side":1,"Seed":1024226802854392237,"Type":"s","Fault":{"What":"eintr","At":5,"Seed":3175328810994372521}}
		{"Op":"sync","Side":1,"Seed":18223336578481547374,"Type":"s"}`,
	"a UID that another program used up during a push was told to nobody": `
		fs ++
		{"Op":"create","Side":0,"Seed":8831335971238928316}
		{"Op":"sync","Side":1,"Seed":11337003777226950295,"Type":"c"}
		{"Op":"sync","Side":1,"Seed":15116579977756820794,"Type":"s","Users":2}
		{"Op":"sync","Side":1,"Seed":7596377778224611101,"Type":"s","Users":5,"Restore":true}
		{"Op":"sync","Side":1,"Seed":133037523880588804,"Type":"s","Users":6,"Restore":true}
		{"Op":"deliver","Side":0,"Seed":11019142664086794599}
		{"Op":"copy","Side":1,"Seed":13055800504590464026}
		{"Op":"deliver","Side":0,"Seed":4421400282887509963}
		{"Op":"live","Side":0,"Seed":6587036141611773540,"Users":7}
		{"Op":"expunge","Side":1,"Seed":12480970163076853194}
		{"Op":"flag","Side":0,"Seed":8470554351500643396}
		{"Op":"live","Side":0,"Seed":8774843251173521059,"Users":21}
		{"Op":"deliver","Side":0,"Seed":7162175235461926460}
		{"Op":"keyword","Side":1,"Seed":318283338639324399}
		{"Op":"live","Side":0,"Seed":8890433834950708314,"Wire":true,"Users":22}`,
	"a mail that was moved away and back was taken for the one that had yet to be told gone": `
		fs ++
		{"Op":"create","Side":0,"Seed":7810998907003187136}
		{"Op":"live","Side":0,"Seed":17305024343794091332,"Wire":true,"Users":7,"Fault":{"What":"crash","At":237,"Loss":3,"Seed":7676881181012610781}}
		{"Op":"copy","Side":0,"Seed":15871341178811454223}
		{"Op":"deliver","Side":1,"Seed":12247549150505308659}
		{"Op":"copy","Side":1,"Seed":13039055912768067460}
		{"Op":"sync","Side":1,"Seed":10124547321403126060,"Type":"c"}
		{"Op":"live","Side":0,"Seed":16477477783221016390,"Users":16}
		{"Op":"forget","Side":0,"Seed":8912656022698873924}
		{"Op":"empty","Side":1,"Seed":11772038753967992392}
		{"Op":"live","Side":0,"Seed":934086550978014806,"Users":23}`,
	"the making of a level counted as a rename of the mailbox whose name it had, for ever between three replicas": `
		++ ++ fs
		{"Op":"create","Side":0,"Seed":4798257214319119216}
		{"Op":"sync","Side":2,"Seed":14287571399397956093,"Type":"s"}
		{"Op":"rename","Side":2,"Seed":1835321353689314232}
		{"Op":"sync","Side":2,"Seed":18312094866772202059,"Type":"f","Restore":true}
		{"Op":"deliver","Side":1,"Seed":4431210391241877430}
		{"Op":"deliver","Side":0,"Seed":9432886271752947417}
		{"Op":"assign","Side":0,"Seed":17737425735397561593}
		{"Op":"deliver","Side":0,"Seed":4196115667091430038}
		{"Op":"live","Side":0,"Seed":11708124018942607548,"Cut":91,"Users":22}
		{"Op":"live","Side":0,"Seed":5338661588412630851,"Cut":130,"Users":5}
		{"Op":"sync","Side":2,"Seed":8025350046404515931,"Type":"s","Restore":true}
		{"Op":"rename","Side":0,"Seed":2689313326231439680}`,
	"a mailbox that had lost its uidlist became another one when it was renamed": `
		++ ++
		{"Op":"create","Side":0,"Seed":14482758425637380144}
		{"Op":"create","Side":1,"Seed":6360380546159643983}
		{"Op":"sync","Side":1,"Seed":8062075758180087486,"Type":"s"}
		{"Op":"live","Side":0,"Seed":228015729083767167,"Reversed":true,"Users":10,"Fault":{"Second":true,"What":"full","At":49,"Seed":5743683474630680962}}
		{"Op":"loselist","Side":0,"Seed":16803875199502349353}
		{"Op":"delete","Side":1,"Seed":4536016460697269013}
		{"Op":"rename","Side":0,"Seed":17522135720321756088}
		{"Op":"sync","Side":1,"Seed":13649346495299489941,"Type":"c","Restore":true}`,
	"a directory that was made for new mails was not on disk when they were told": `
		++ fs
		{"Op":"sync","Side":1,"Seed":12834352555112067839,"Type":"s","Fault":{"What":"crash","At":4,"Loss":2,"Seed":15049790436425049319},"Restore":true}
		{"Op":"sync","Side":1,"Seed":1860492343797460486,"Type":"c","Users":4}
		{"Op":"sync","Side":1,"Seed":18148468165860577662,"Type":"s","Reversed":true}
		{"Op":"crash","Side":0,"Seed":12088919469233189291}`,
	"mails that a guard kept from being told were known to the next sync and not on disk": `
		++ fs
		{"Op":"deliver","Side":1,"Seed":10469342995868621668}
		{"Op":"burst","Side":1,"Seed":6493033263481664220}
		{"Op":"sync","Side":1,"Seed":11091149884773946326,"Type":"c"}
		{"Op":"create","Side":1,"Seed":14554596433722663374}
		{"Op":"deliver","Side":1,"Seed":1109024388388088525}
		{"Op":"unsubscribe","Side":0,"Seed":9696276659019990639}
		{"Op":"create","Side":0,"Seed":14002364940826351883}
		{"Op":"sync","Side":1,"Seed":4520985469183235925,"Type":"s","Users":4}
		{"Op":"edit","Side":0,"Seed":13246397648465911403}
		{"Op":"subscribe","Side":1,"Seed":11353218505735101604}
		{"Op":"unsubscribe","Side":0,"Seed":9435461494150954135}
		{"Op":"burst","Side":0,"Seed":17849938359966858383}
		{"Op":"empty","Side":0,"Seed":3685607214202317051}
		{"Op":"sync","Side":1,"Seed":5522526642393240878,"Type":"f"}
		{"Op":"sync","Side":1,"Seed":4598936434228747451,"Type":"c","Fault":{"What":"crash","At":4,"Loss":1,"Seed":5977642788145972402}}`,
	"a power cut brought back a uidlist with the GUID before, and it was not read": `
		++ fs
		{"Op":"sync","Side":1,"Seed":11378581212104917631,"Type":"s","Fault":{"Second":true,"What":"crash","At":6,"Loss":1,"Seed":10106923914795224456}}
		{"Op":"burst","Side":1,"Seed":15314181767861319555}
		{"Op":"sync","Side":1,"Seed":10501443392876023566,"Type":"f","Fault":{"What":"late","At":10,"Seed":5128524811151776041},"Restore":true}
		{"Op":"sync","Side":1,"Seed":12447606073570758083,"Type":"c","Fault":{"What":"crash","At":4,"Loss":2,"Seed":12005468089705040270},"Restore":true}
		{"Op":"sync","Side":1,"Seed":1615989620267297668,"Type":"s"}`,
	"mail in a directory that was made while a scan waited for the lock was not seen": `
		++ fs
		{"Op":"delete","Side":0,"Seed":2610340600818555639}
		{"Op":"sync","Side":1,"Seed":762195720117180870,"Type":"s","Reversed":true,"Fault":{"Second":true,"What":"enospc","At":2,"Seed":15919431371191472036},"Restore":true}
		{"Op":"sync","Side":1,"Seed":15303878669795004884,"Type":"f"}
		{"Op":"sync","Side":1,"Seed":6569480813464420776,"Type":"c","Fault":{"What":"crash","At":2,"Loss":1,"Seed":10963533323055207997}}
		{"Op":"live","Side":0,"Seed":7387955019095691011,"Reversed":true,"Wire":true,"Cut":35,"Users":14,"Fault":{"Second":true,"What":"eio","At":11,"Seed":15099442786546934615}}`,
	"a mail was copied from one that had lost its GUID to it when two copies met": `
		fs ++
		{"Op":"sync","Side":1,"Seed":8993438901188251170,"Type":"c","Reversed":true,"Users":1}
		{"Op":"burst","Side":1,"Seed":9524438551294383033}
		{"Op":"sync","Side":1,"Seed":8449947101246373536,"Type":"f"}
		{"Op":"expunge","Side":0,"Seed":9871433714008969622}
		{"Op":"deliver","Side":1,"Seed":13153653857709858302}
		{"Op":"resetguid","Side":0,"Seed":11924815149201685689}
		{"Op":"keyword","Side":1,"Seed":13398922913316668208}
		{"Op":"edit","Side":0,"Seed":610617616176402224}
		{"Op":"create","Side":1,"Seed":15245218775207107578}
		{"Op":"sync","Side":1,"Seed":18008613174730885840,"Type":"c","Fault":{"Second":true,"What":"crash","At":1,"Seed":4817175014397244669},"Restore":true}
		{"Op":"sync","Side":1,"Seed":9599345241101749818,"Type":"c","Fault":{"What":"full","At":73,"Seed":17297709757357323518},"Restore":true}
		{"Op":"expunge","Side":1,"Seed":2429060320539142816}
		{"Op":"resetvalidity","Side":0,"Seed":7966862799507009160}`,
	"a mail that was moved back after the index was lost went by the expunge that its own side had told": `
		++ ++
		{"Op":"sync","Side":1,"Seed":6321571715270735145,"Type":"f"}
		{"Op":"burst","Side":0,"Seed":6816686449786197666}
		{"Op":"sync","Side":1,"Seed":1279809379563309361,"Type":"s"}
		{"Op":"create","Side":0,"Seed":18112538993796615456}
		{"Op":"move","Side":0,"Seed":12972641003472187904}
		{"Op":"sync","Side":1,"Seed":8679567223345277286,"Type":"c","Cut":44}
		{"Op":"forget","Side":0,"Seed":7803716155520921301}
		{"Op":"move","Side":0,"Seed":171568405408792802}`,
	"a mail of a mailbox that was put back from a copy went by an expunge that its own side had told": `
		++ ++
		{"Op":"deliver","Side":1,"Seed":5499913512139995967}
		{"Op":"subscribe","Side":1,"Seed":11738789668660989583}
		{"Op":"create","Side":1,"Seed":6357415136972635835}
		{"Op":"sync","Side":1,"Seed":15081199098076766917,"Type":"c","Restore":true}
		{"Op":"burst","Side":0,"Seed":15299414999962852805}
		{"Op":"rename","Side":1,"Seed":15951556844783124447}
		{"Op":"sync","Side":1,"Seed":4118930514447962981,"Type":"f","Restore":true}
		{"Op":"resetvalidity","Side":0,"Seed":1393879592880576128}
		{"Op":"subscribe","Side":0,"Seed":9660415584425571881}
		{"Op":"keep","Side":1,"Seed":7508227088950424183}
		{"Op":"fillkept","Side":0,"Seed":1285849001332256231}
		{"Op":"sync","Side":1,"Seed":2466712843219998512,"Type":"f","Users":6}
		{"Op":"dropkept","Side":1,"Seed":16268623369088038058}
		{"Op":"sync","Side":1,"Seed":9548668501544265136,"Type":"f","Cut":24}
		{"Op":"putback","Side":1,"Seed":4365758794766414727}`,
	"a mailbox that was emptied through the mount and then renamed stopped the engine": `
		++ ++
		{"Op":"sync","Side":1,"Seed":18193782549170037673,"Type":"c","Reversed":true,"Users":6}
		{"Op":"deliver","Side":1,"Seed":14396200693361361883}
		{"Op":"sync","Side":1,"Seed":12182683485586057902,"Type":"f","Reversed":true}
		{"Op":"expunge","Side":1,"Seed":1180303958680188388}
		{"Op":"sync","Side":1,"Seed":12411944146345283712,"Type":"f","Users":4}
		{"Op":"live","Side":0,"Seed":13603548933672096769,"Users":28}
		{"Op":"live","Side":0,"Seed":5888921441736511004,"Reversed":true,"Users":4}`,
	"a mailbox that was put back from a copy lost the mail that had been expunged since that was made": `
		++ ++
		{"Op":"create","Side":1,"Seed":9779819671122066744}
		{"Op":"create","Side":0,"Seed":13428618942723097408}
		{"Op":"rename","Side":1,"Seed":2470293164010328989}
		{"Op":"sync","Side":1,"Seed":3874555824634522473,"Type":"f","Users":1}
		{"Op":"sync","Side":1,"Seed":7618253398271043694,"Type":"s","Restore":true}
		{"Op":"deliver","Side":1,"Seed":17792371722282531966}
		{"Op":"sync","Side":1,"Seed":13738791103472531391,"Type":"s","Reversed":true}
		{"Op":"expunge","Side":0,"Seed":7717150147883837591}
		{"Op":"keep","Side":1,"Seed":15232145144016736807}
		{"Op":"sync","Side":1,"Seed":13706965010893368200,"Type":"c","Restore":true}
		{"Op":"dropkept","Side":1,"Seed":14554274925541902113}
		{"Op":"sync","Side":1,"Seed":13654728928116577325,"Type":"c","Cut":8,"Restore":true}
		{"Op":"putback","Side":1,"Seed":1601242193166901882}`,
	"the old deletion of a mailbox that was put back from a copy was the witness of its loss": `
		++ ++
		{"Op":"create","Side":0,"Seed":12269118638177928664}
		{"Op":"sync","Side":1,"Seed":9915180280587200086,"Type":"s","Restore":true}
		{"Op":"keep","Side":0,"Seed":9833872404583461626}
		{"Op":"dropkept","Side":0,"Seed":15768930261947900991}
		{"Op":"sync","Side":1,"Seed":14281821115355520842,"Type":"f","Users":2,"Restore":true}
		{"Op":"putback","Side":0,"Seed":5348754115203621517}
		{"Op":"fillkept","Side":0,"Seed":6487446001043367461}
		{"Op":"sync","Side":1,"Seed":11718681620336853460,"Type":"c"}
		{"Op":"burst","Side":1,"Seed":16753599703410294600}
		{"Op":"sync","Side":1,"Seed":5354668630599137776,"Type":"s","Users":6}
		{"Op":"recreate","Side":1,"Seed":9214453271012845970}
		{"Op":"sync","Side":1,"Seed":8305287386347953559,"Type":"s","Reversed":true}`,
	"a check took a mailbox that the next start puts back for lost": `
		++ ++
		{"Op":"create","Side":0,"Seed":2643623260607810609}
		{"Op":"sync","Side":1,"Seed":4112484992912639344,"Type":"f","Restore":true}
		{"Op":"live","Side":0,"Seed":8683648422992932931,"Reversed":true,"Users":3}
		{"Op":"delete","Side":1,"Seed":6348166810039495637}
		{"Op":"keyword","Side":0,"Seed":11265519390079361972}
		{"Op":"sync","Side":1,"Seed":3090994505740032976,"Type":"s","Fault":{"What":"crash","At":9,"Loss":3,"Seed":2898874277073236942}}
		{"Op":"sync","Side":1,"Seed":8762577322268415599,"Type":"s"}`,
	"a note of a mail that had not come gave its GUID to the one that had its name": `
		fs ++
		{"Op":"deliver","Side":0,"Seed":9424394764345859340}
		{"Op":"sync","Side":1,"Seed":12070090196857346244,"Type":"s","Reversed":true,"Restore":true}
		{"Op":"edit","Side":0,"Seed":13151349648617970354}
		{"Op":"burst","Side":1,"Seed":6520956484335064794}
		{"Op":"create","Side":0,"Seed":14290420746998098749}
		{"Op":"deliver","Side":1,"Seed":948152312081987340}
		{"Op":"deliver","Side":1,"Seed":7512404715494088978}
		{"Op":"resetvalidity","Side":1,"Seed":15415093202533535939}
		{"Op":"sync","Side":1,"Seed":14237980066091328986,"Type":"s","Fault":{"What":"late","At":106,"Seed":13558245572566616503}}
		{"Op":"loselist","Side":0,"Seed":16163564795674731789}`,
	"a note of a mail that had not come made two mails one when UIDVALIDITY changed": `
		++ fs
		{"Op":"clock","Side":0,"Seed":14469274521738685856}
		{"Op":"deliver","Side":1,"Seed":4351410201550071533}
		{"Op":"burst","Side":1,"Seed":961184092645440795}
		{"Op":"sync","Side":1,"Seed":16490065336058062037,"Type":"s"}
		{"Op":"expunge","Side":0,"Seed":3364701028476896406}
		{"Op":"deliver","Side":0,"Seed":1637264800358866591}
		{"Op":"resetguid","Side":0,"Seed":7484369564404880648}
		{"Op":"edit","Side":0,"Seed":10803106601958513239}
		{"Op":"keyword","Side":1,"Seed":9465823624120034050}
		{"Op":"sync","Side":1,"Seed":801668659821167168,"Type":"c","Fault":{"What":"eintr","At":45,"Seed":348223435260235835},"Restore":true}
		{"Op":"resetvalidity","Side":0,"Seed":12173995137176571028}
		{"Op":"sync","Side":1,"Seed":9709752160962570049,"Type":"c","Reversed":true}
		{"Op":"resetguid","Side":1,"Seed":6902598159495043445}`,
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
