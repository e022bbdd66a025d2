package dsync

import (
	"bytes"
	"errors"
	"math"
	"unicode/utf8"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Limits of values, beyond what their line may hold.
const (
	maxGUID    = 255  // bytes of a mail GUID; a Maildir peer's is a file name
	maxUIDL    = 1024 // bytes of a POP3 UIDL
	maxKeyword = 1024 // bytes
	maxLevels  = 255  // of a mailbox name
)

// decode makes the item of a record. Attribute.Stream and Mail.Body are left nil; hasStream tells that one follows.
func (d *fields) decode(features Features) (it item.Item, hasStream bool, err error) {
	d.err = nil
	switch d.kind {
	case handshakeKind:
		it = d.handshake()
	case stateKind:
		it = d.state()
	case nodeKind:
		it = d.node()
	case deletesKind:
		it = d.deletes()
	case mailboxKind:
		it = d.mailbox(features)
	case attributeKind:
		it, hasStream = d.attribute(), d.has(aStream)
	case changeKind:
		it = d.change()
	case requestKind:
		it = d.request()
	case mailKind:
		it, hasStream = d.mail(), d.has(mStream)
	case finishKind:
		it = d.finish()
	case wakeKind:
		it = &item.Wake{Mailboxes: d.someNames(wMailboxes)}
	case parcelKind:
		it = d.parcel()
	case receiptKind:
		it = &item.Receipt{GUID: mail.GUID(d.text(kGUID, maxGUID)), Got: d.uint(kGot, math.MaxInt64)}
	case previewKind:
		it = &item.Preview{Version: d.uint32(vVersion), Bodies: d.has(vBodies)}
	default:
		return nil, false, d.kind.errorf("not expected as an item of its own")
	}
	if d.err != nil {
		return nil, false, d.err
	}
	return it, hasStream, nil
}

func (d *fields) handshake() *item.Handshake {
	h := &item.Handshake{
		Hostname:              d.string(hHostname),
		VisibleNamespaces:     d.has(hVisible),
		Box:                   d.string(hBox),
		BoxGUID:               d.string(hBoxGUID),
		Type:                  item.SyncFull,
		Debug:                 d.has(hDebug),
		Exclude:               d.someNames(hExclude),
		SendMailRequests:      d.has(hRequests),
		BackupSend:            d.has(hBackupSend),
		BackupReceive:         d.has(hBackupRecv),
		LockTimeout:           uint32(d.positive(hLock, math.MaxUint32)),
		NoMailSync:            d.has(hNoMail),
		NoBackupOverwrite:     d.has(hNoOverwrite),
		PurgeRemote:           d.has(hPurge),
		NoNotify:              d.has(hNoNotify),
		Since:                 int64(d.positive(hSince, math.MaxInt64)),
		Until:                 int64(d.uint(hUntil, math.MaxInt64)), // dovecot 2.3 sends 0 for -e without -t
		MaxSize:               d.positive(hMaxSize, math.MaxUint64),
		Flag:                  d.string(hFlags),
		VirtualAllBox:         d.string(hVirtualAll),
		EmptyHeaderWorkaround: d.has(hEmptyHeader),
		CommitInterval:        uint32(d.positive(hCommit, math.MaxUint32)),
		HashedHeaders:         d.someNames(hHashed),
		AltChar:               d.string(hAltChar),

		Dsyncfs:      d.uint32(hVersion),
		Live:         d.has(hLive),
		Hurry:        d.has(hHurry),
		DryRun:       d.has(hDryRun),
		Verify:       d.has(hVerify),
		AllowExpunge: d.names(hAllowExpunge),
		Restore:      d.names(hRestore),
		Boxes:        d.names(hBoxes),
		Epoch:        d.uint(hEpoch, math.MaxUint64),
	}
	if d.has(hPrefixes) {
		h.NamespacePrefixes = d.lines(hPrefixes)
	}
	if d.has(hType) {
		h.Type = item.SyncType(d.char(hType, "fcs"))
	}
	d.guid128(hBoxGUID)
	if utf8.RuneCountInString(h.AltChar) > 1 {
		d.fail(hAltChar, errors.New("more than one character"))
	}
	if h.BackupSend && h.BackupReceive {
		d.fail(hBackupSend, errors.New("together with backup_recv"))
	}
	return h
}

// lines reads a value whose elements are joined by LF and not escaped again.
func (d *fields) lines(f int) []string {
	if bytes.Count(d.values[f], []byte{'\n'}) >= maxList {
		d.fail(f, errLongList)
		return nil
	}
	var out []string
	for line := range bytes.SplitSeq(d.values[f], []byte{'\n'}) {
		out = append(out, string(line))
	}
	return out
}

func (d *fields) state() *item.State {
	return &item.State{
		GUID:                d.mailboxGUID(sGUID),
		UIDValidity:         mail.UIDValidity(d.uint32(sUIDValidity)),
		LastCommonUID:       mail.UID(d.uint(sUID, uint64(mail.MaxUID))),
		LastCommonModSeq:    d.modSeq(sModSeq),
		LastCommonPvtModSeq: d.modSeq(sPvtModSeq),
		Messages:            d.uint32(sMessages),
		ChangesDuringSync:   d.has(sChanges),
		Epoch:               d.uint(sEpoch, math.MaxUint64),
		UIDNext:             d.uidNext(sUIDNext),
		HighestModSeq:       d.modSeq(sHighestModSeq),
	}
}

func (d *fields) node() *item.Node {
	return &item.Node{
		Parts:               d.parts(),
		Existence:           d.existence(),
		GUID:                d.mailboxGUID(nGUID),
		UIDValidity:         mail.UIDValidity(d.uint32(nUIDValidity)),
		UIDNext:             d.uidNext(nUIDNext),
		Renamed:             d.time(nRenamed),
		Subscribed:          d.has(nSubscribed),
		SubscriptionChanged: d.time(nSubscriptionChanged),
		Messages:            d.uint32(nMessages),
		HighestModSeq:       d.modSeq(nHighestModSeq),
		NoState:             d.has(nNoState),
	}
}

// uidNext reads a UIDNEXT: one more than a UID, or 0.
func (d *fields) uidNext(f int) mail.UID { return mail.UID(d.uint(f, uint64(mail.MaxUID)+1)) }

func (d *fields) parts() []string {
	if bytes.Count(d.values[nName], []byte{'\t'}) >= maxLevels {
		d.fail(nName, errors.New("too many levels"))
		return nil
	}
	parts := d.list(nName, '\t')
	for _, p := range parts {
		if p == "" {
			d.fail(nName, errors.New("empty part"))
		}
	}
	return parts
}

func (d *fields) existence() mail.Existence {
	switch d.char(nExistence, "nyd") {
	case 'y':
		return mail.Exists
	case 'd':
		return mail.Deleted
	}
	return mail.Absent
}

func (d *fields) deletes() *item.Deletes {
	it := &item.Deletes{}
	if v := d.values[dSeparator]; len(v) == 1 && v[0] != 0 {
		it.Separator = v[0]
	} else {
		d.fail(dSeparator, errors.New("not one character"))
	}
	if v := d.values[dEscape]; len(v) == 1 {
		it.Escape = v[0]
	} else if len(v) > 1 {
		d.fail(dEscape, errors.New("more than one character"))
	}
	for _, g := range deletionFields {
		it.Deletions = d.deletions(it.Deletions, g.field, g.kind)
	}
	return it
}

// deletionFields says which field holds the deletions of a kind.
var deletionFields = [...]struct {
	field int
	kind  mail.DeletionKind
}{{dMailboxes, mail.DeletedMailbox}, {dDirs, mail.DeletedDirectory}, {dUnsubscribes, mail.Unsubscribed}}

// deletions appends the pairs "HEX32 SECONDS" of f, joined by single spaces.
func (d *fields) deletions(out []mail.Deletion, f int, kind mail.DeletionKind) []mail.Deletion {
	rest, more := d.values[f], d.has(f)
	for more {
		var id, seconds []byte
		id, rest, _ = bytes.Cut(rest, []byte{' '})
		seconds, rest, more = bytes.Cut(rest, []byte{' '})
		del := mail.Deletion{Kind: kind}
		var err error
		if del.ID, err = mail.ParseGUID128(string(id)); err != nil {
			d.fail(f, errors.New("malformed GUID or hash"))
			return nil
		}
		if del.Time, err = parseTime(seconds); err != nil {
			d.fail(f, err)
			return nil
		}
		out = append(out, del)
	}
	return out
}

func (d *fields) mailbox(features Features) *item.Mailbox {
	it := &item.Mailbox{
		Status: mail.Status{
			GUID:          d.mailboxGUID(bGUID),
			UIDValidity:   mail.UIDValidity(d.uint32(bUIDValidity)),
			UIDNext:       d.uidNext(bUIDNext),
			Messages:      d.uint32(bMessages),
			FirstRecent:   d.uidNext(bFirstRecent),
			HighestModSeq: d.modSeq(bModSeq),
		},
		HighestPvtModSeq: d.modSeq(bPvtModSeq),
		Lost:             d.has(bLost),
		Ignore:           d.has(bIgnore),
		CacheFields:      d.string(bCacheFields),
		HaveGUIDs:        d.has(bGUIDs),
		HaveSaveGUIDs:    d.has(bSaveGUIDs) || d.has(bGUIDs) && !features.SaveGUIDs,
		HaveOnlyGUID128:  d.has(bOnlyGUID128),
		NoBase:           d.has(bNoBase),
		Since:            d.modSeq(bSince),
	}
	d.hexBytes(bDigest, it.Digest[:])
	if it.GUID.IsZero() {
		d.fail(bGUID, errRange)
	}
	if !it.Lost && !it.Ignore {
		if it.UIDValidity == 0 {
			d.fail(bUIDValidity, errRange)
		}
		if it.UIDNext == 0 {
			d.fail(bUIDNext, errRange)
		}
	}
	return it
}

func (d *fields) attribute() *item.Attribute {
	it := &item.Attribute{
		Shared:     d.char(aType, "ps") == 's',
		Key:        d.text(aKey, longLimit),
		Value:      d.string(aValue),
		Deleted:    d.has(aDeleted),
		LastChange: d.time(aLastChange),
		ModSeq:     d.modSeq(aModSeq),
	}
	if it.Key == "" {
		d.fail(aKey, errors.New("empty key"))
	}
	n := 0
	for _, f := range [...]int{aValue, aStream, aDeleted} {
		if d.has(f) {
			n++
		}
	}
	if n != 1 {
		d.fail(aKey, errors.New("not exactly one of value, stream, deleted")) // shows the key, not the value
	}
	return it
}

func (d *fields) change() *item.Change {
	it := &item.Change{
		Type:          item.ChangeType(d.char(cType, "sef")),
		UID:           d.uid(cUID),
		HasHeaderHash: d.has(cHash),
		ModSeq:        d.modSeq(cModSeq),
		PvtModSeq:     d.modSeq(cPvtModSeq),
		Add:           d.flags(cAdd),
		Remove:        d.flags(cRemove),
		Final:         d.flags(cFinal),
		Keywords:      d.keywords(),
		KeywordsReset: d.has(cKeywordsReset),
		Received:      int64(d.number(cReceived, 16, math.MaxInt64)),
		VirtualSize:   d.number(cSize, 16, math.MaxUint64),
		HasSize:       d.has(cSize),
		POP3:          d.text(cPOP3, maxUIDL),
		Size:          int64(d.uint(cPhysical, math.MaxInt64)),
	}
	if it.Type == item.ChangeExpunge {
		it.GUID128 = d.guid128(cGUID)
	} else {
		it.GUID = mail.GUID(d.text(cGUID, maxGUID))
	}
	if v := d.values[cHash]; len(v) > 0 {
		var hash [16]byte
		d.hexBytes(cHash, hash[:])
		it.HeaderHash = string(v)
	}
	if d.has(cPast) {
		it.Past = item.Past(d.char(cPast, "mbrt"))
	}
	if it.Add&it.Remove != 0 {
		d.fail(cRemove, errors.New("flags that are in add_flags as well"))
	}
	d.hexBytes(cContent, it.Content[:])
	return it
}

// keywords reads keyword_changes: a type character and a name each.
func (d *fields) keywords() []item.KeywordChange {
	rest, more := d.values[cKeywords], len(d.values[cKeywords]) > 0
	if !more {
		return nil
	}
	n := bytes.Count(rest, []byte{'\t'}) + 1
	if n > maxList {
		d.fail(cKeywords, errLongList)
		return nil
	}
	out := make([]item.KeywordChange, 0, n)
	for more {
		var e []byte
		e, rest, more = bytes.Cut(rest, []byte{'\t'})
		if bytes.IndexByte(e, 0x01) >= 0 {
			e = appendUnescaped(nil, e)
		}
		if !validKeyword(e) {
			d.fail(cKeywords, errors.New("malformed keyword"))
			return nil
		}
		out = append(out, item.KeywordChange{Op: item.KeywordOp(e[0]), Name: d.words.intern(e[1:])})
	}
	return out
}

// validKeyword refuses what cannot be a keyword and would break a file that holds one per line.
func validKeyword(e []byte) bool {
	if len(e) < 2 || len(e) > maxKeyword || bytes.IndexByte([]byte("+-=&"), e[0]) < 0 {
		return false
	}
	for _, c := range e[1:] {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

func (d *fields) request() *item.Request {
	it := &item.Request{
		GUID: mail.GUID(d.text(rGUID, maxGUID)), UID: d.uid(rUID), Have: d.positive(rHave, math.MaxInt64), Mailbox: mail.Name(d.text(rMailbox, lineLimit)),
	}
	if it.GUID == "" && it.UID == 0 {
		d.fail(rGUID, errors.New("neither guid nor uid"))
	}
	return it
}

func (d *fields) mail() *item.Mail {
	it := &item.Mail{
		GUID:      mail.GUID(d.text(mGUID, maxGUID)),
		UID:       d.uid(mUID),
		POP3UIDL:  d.text(mUIDL, maxUIDL),
		POP3Order: d.uint32(mOrder),
		Received:  d.time(mReceived),
		Saved:     d.time(mSaved),
		Offset:    d.positive(mOffset, math.MaxInt64),
	}
	if it.GUID == "" && it.UID == 0 {
		d.fail(mGUID, errors.New("neither guid nor uid"))
	}
	return it
}

func (d *fields) parcel() *item.Parcel {
	it := &item.Parcel{
		GUID:   mail.GUID(d.text(pGUID, maxGUID)),
		Offset: d.positive(pOffset, math.MaxInt64),
		Size:   d.uint(pSize, math.MaxInt64),
		Data:   d.string(pData),
	}
	if it.Data == "" {
		d.fail(pData, errors.New("empty"))
	}
	return it
}

func (d *fields) finish() *item.Finish {
	it := &item.Finish{
		Error:             d.string(fError),
		MailError:         d.uint32(fMailError),
		RequireFullResync: d.has(fFullResync),
		Desync:            d.has(fDesync),
		Guard:             d.has(fGuard),
		Changed:           d.has(fChanged),
		Plan:              d.string(fPlan),
		New:               d.uint32(fNew),
		Matched:           d.uint32(fMatched),
		Undecided:         d.has(fUndecided),
	}
	if d.has(fError) && it.Error == "" {
		it.Error = "unspecified error" // the presence of the field is what says failure
	}
	return it
}
