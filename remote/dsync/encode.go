package dsync

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// encode fills r with the fields of it and returns the stream that must follow the line, nil for none. What the format
// cannot say, or what is known to kill a Dovecot (assertions on a peer's input), is an error that wraps ErrInvalid.
func (r *record) encode(it item.Item) (stream io.Reader, err error) {
	switch it := it.(type) {
	case *item.Handshake:
		r.reset(handshakeKind)
		err = r.encodeHandshake(it)
	case *item.State:
		r.reset(stateKind)
		r.encodeState(it)
	case *item.Node:
		r.reset(nodeKind)
		err = r.encodeNode(it)
	case *item.Deletes:
		r.reset(deletesKind)
		err = r.encodeDeletes(it)
	case *item.Mailbox:
		r.reset(mailboxKind)
		r.encodeMailbox(it)
	case *item.Attribute:
		r.reset(attributeKind)
		return r.encodeAttribute(it)
	case *item.Change:
		r.reset(changeKind)
		err = r.encodeChange(it)
	case *item.Request:
		r.reset(requestKind)
		err = r.encodeRequest(it)
	case *item.Mail:
		r.reset(mailKind)
		return r.encodeMail(it)
	case *item.Finish:
		r.reset(finishKind)
		r.encodeFinish(it)
	case *item.Wake:
		r.reset(wakeKind)
		r.setNames(wMailboxes, it.Mailboxes)
		if len(it.Mailboxes) == 0 {
			r.values[wMailboxes] = nil // a line of one empty field has none
		}
	case *item.Parcel:
		r.reset(parcelKind)
		err = r.encodeParcel(it)
	case *item.Receipt:
		r.reset(receiptKind)
		r.setString(kGUID, string(it.GUID))
		r.setUint(kGot, it.Got)
	case *item.Preview:
		r.reset(previewKind)
		r.setNumber(vVersion, uint64(it.Version))
		r.setFlag(vBodies, it.Bodies)
	default:
		return nil, fmt.Errorf("%w: %T", ErrInvalid, it)
	}
	return nil, err
}

func (r *record) invalid(f int, format string, args ...any) error {
	return fmt.Errorf("%w: %s %s: %s", ErrInvalid, r.kind.name, r.kind.fields[f].name, fmt.Sprintf(format, args...))
}

// setText, setNumber, setSeconds and setNames set fields whose zero value is not written.
func (r *record) setText(f int, v string) {
	if v != "" {
		r.setString(f, v)
	}
}

func (r *record) setNumber(f int, v uint64) {
	if v != 0 {
		r.setUint(f, v)
	}
}

func (r *record) setSeconds(f int, v int64) {
	if v != 0 {
		r.setTime(f, v)
	}
}

func (r *record) setNames(f int, v []string) {
	if v != nil {
		r.setList(f, v)
	}
}

func (r *record) encodeHandshake(h *item.Handshake) error {
	r.setString(hHostname, h.Hostname)
	if h.NamespacePrefixes != nil {
		r.setString(hPrefixes, strings.Join(h.NamespacePrefixes, "\n"))
	}
	r.setText(hBox, h.Box)
	r.setText(hBoxGUID, h.BoxGUID)
	if h.Type != 0 {
		if !strings.ContainsRune("fcs", rune(h.Type)) {
			return r.invalid(hType, "%q", byte(h.Type))
		}
		r.setByte(hType, byte(h.Type))
	}
	r.setFlag(hDebug, h.Debug)
	r.setFlag(hVisible, h.VisibleNamespaces)
	if len(h.Exclude) > 0 {
		r.setList(hExclude, h.Exclude)
	}
	r.setFlag(hRequests, h.SendMailRequests)
	r.setFlag(hBackupSend, h.BackupSend)
	r.setFlag(hBackupRecv, h.BackupReceive)
	r.setNumber(hLock, uint64(h.LockTimeout))
	r.setFlag(hNoMail, h.NoMailSync)
	r.setFlag(hNoOverwrite, h.NoBackupOverwrite)
	r.setFlag(hPurge, h.PurgeRemote)
	r.setFlag(hNoNotify, h.NoNotify)
	if h.Since < 0 || h.Until < 0 {
		return r.invalid(hSince, "a time before the epoch")
	}
	r.setSeconds(hSince, h.Since)
	r.setNumber(hMaxSize, h.MaxSize)
	r.setText(hFlags, h.Flag)
	r.setSeconds(hUntil, h.Until)
	r.setText(hVirtualAll, h.VirtualAllBox)
	r.setFlag(hEmptyHeader, h.EmptyHeaderWorkaround)
	r.setNumber(hCommit, uint64(h.CommitInterval))
	if len(h.HashedHeaders) > 0 {
		r.setList(hHashed, h.HashedHeaders) // without Dovecot's tab at the end, which makes a slave hash another header
	}
	r.setText(hAltChar, h.AltChar)
	r.setNumber(hVersion, uint64(h.Dsyncfs))
	r.setFlag(hLive, h.Live)
	r.setFlag(hHurry, h.Hurry)
	r.setFlag(hDryRun, h.DryRun)
	r.setFlag(hVerify, h.Verify)
	r.setNames(hAllowExpunge, h.AllowExpunge)
	r.setNames(hRestore, h.Restore)
	r.setNames(hBoxes, h.Boxes)
	r.setNumber(hEpoch, h.Epoch)
	return nil
}

func (r *record) encodeState(s *item.State) {
	r.setBytesHex(sGUID, s.GUID[:])
	r.setUint(sUIDValidity, uint64(s.UIDValidity))
	r.setUint(sUID, uint64(s.LastCommonUID))
	r.setUint(sModSeq, uint64(s.LastCommonModSeq))
	r.setUint(sPvtModSeq, uint64(s.LastCommonPvtModSeq))
	r.setUint(sMessages, uint64(s.Messages))
	r.setFlag(sChanges, s.ChangesDuringSync)
	r.setNumber(sEpoch, s.Epoch)
	r.setNumber(sUIDNext, uint64(s.UIDNext))
	r.setNumber(sHighestModSeq, uint64(s.HighestModSeq))
}

// existenceLetters is indexed by mail.Existence.
const existenceLetters = "nyd"

func (r *record) encodeNode(n *item.Node) error {
	if len(n.Parts) == 0 || len(n.Parts) > maxLevels || slices.Contains(n.Parts, "") {
		return r.invalid(nName, "%.100q", n.Parts)
	}
	if int(n.Existence) >= len(existenceLetters) {
		return r.invalid(nExistence, "%d", n.Existence)
	}
	r.setList(nName, n.Parts)
	r.setByte(nExistence, existenceLetters[n.Existence])
	if !n.GUID.IsZero() {
		r.setBytesHex(nGUID, n.GUID[:])
	}
	r.setNumber(nUIDValidity, uint64(n.UIDValidity))
	r.setNumber(nUIDNext, uint64(n.UIDNext))
	r.setSeconds(nRenamed, n.Renamed)
	r.setFlag(nSubscribed, n.Subscribed)
	r.setSeconds(nSubscriptionChanged, n.SubscriptionChanged)
	r.setNumber(nMessages, uint64(n.Messages))
	r.setNumber(nHighestModSeq, uint64(n.HighestModSeq))
	r.setFlag(nNoState, n.NoState)
	return nil
}

func (r *record) encodeDeletes(d *item.Deletes) error {
	if d.Separator == 0 {
		return r.invalid(dSeparator, "none")
	}
	r.setByte(dSeparator, d.Separator)
	r.values[dEscape] = []byte{}
	if d.Escape != 0 {
		r.setByte(dEscape, d.Escape)
	}
	for _, g := range deletionFields {
		r.setDeletions(g.field, g.kind, d.Deletions)
	}
	return nil
}

func (r *record) setDeletions(f int, kind mail.DeletionKind, all []mail.Deletion) {
	has := func(d mail.Deletion) bool { return d.Kind == kind }
	if !slices.ContainsFunc(all, has) {
		return
	}
	r.add(f, func(dst []byte) []byte {
		for _, d := range all {
			if has(d) {
				dst = append(dst, d.ID.String()...)
				dst = append(dst, ' ')
				dst = strconv.AppendInt(dst, d.Time, 10)
				dst = append(dst, ' ')
			}
		}
		return dst[:len(dst)-1]
	})
}

func (r *record) encodeMailbox(b *item.Mailbox) {
	r.setBytesHex(bGUID, b.GUID[:])
	r.setUint(bUIDValidity, uint64(b.UIDValidity))
	r.setUint(bUIDNext, uint64(b.UIDNext))
	r.setUint(bMessages, uint64(b.Messages))
	r.setUint(bFirstRecent, uint64(b.FirstRecent))
	r.setUint(bModSeq, uint64(b.HighestModSeq))
	r.setUint(bPvtModSeq, uint64(b.HighestPvtModSeq))
	r.setFlag(bLost, b.Lost)
	r.setFlag(bIgnore, b.Ignore)
	r.setString(bCacheFields, b.CacheFields)
	r.setFlag(bGUIDs, b.HaveGUIDs)
	r.setFlag(bSaveGUIDs, b.HaveSaveGUIDs)
	r.setFlag(bOnlyGUID128, b.HaveOnlyGUID128)
	r.setFlag(bNoBase, b.NoBase)
	r.setNumber(bSince, uint64(b.Since))
	if !b.Digest.IsZero() {
		r.setBytesHex(bDigest, b.Digest[:])
	}
}

func (r *record) encodeAttribute(a *item.Attribute) (io.Reader, error) {
	if a.Key == "" {
		return nil, r.invalid(aKey, "empty")
	}
	if a.Deleted && (a.Stream != nil || a.Value != "") {
		return nil, r.invalid(aDeleted, "together with a value")
	}
	r.setByte(aType, 'p')
	if a.Shared {
		r.setByte(aType, 's')
	}
	r.setString(aKey, a.Key)
	r.setFlag(aDeleted, a.Deleted)
	r.setFlag(aStream, a.Stream != nil)
	if !a.Deleted && a.Stream == nil {
		r.setString(aValue, a.Value)
	}
	r.setSeconds(aLastChange, a.LastChange)
	r.setNumber(aModSeq, uint64(a.ModSeq))
	if a.Stream == nil {
		return nil, nil
	}
	return a.Stream, nil
}

func (r *record) encodeChange(c *item.Change) error {
	if c.UID == 0 || c.UID > mail.MaxUID {
		return r.invalid(cUID, "%d", c.UID)
	}
	if (c.Add|c.Remove|c.Final)&^mail.AllFlags != 0 || c.Add&c.Remove != 0 {
		return r.invalid(cAdd, "+%x -%x =%x", uint8(c.Add), uint8(c.Remove), uint8(c.Final))
	}
	switch c.Type {
	case item.ChangeSave, item.ChangeFlags:
		r.setString(cGUID, string(c.GUID)) // present even if empty: Dovecot asserts it
	case item.ChangeExpunge:
		if !c.GUID128.IsZero() {
			r.setBytesHex(cGUID, c.GUID128[:])
		}
	default:
		return r.invalid(cType, "%q", byte(c.Type))
	}
	r.setByte(cType, byte(c.Type))
	r.setUint(cUID, uint64(c.UID))
	if c.HasHeaderHash {
		r.setString(cHash, c.HeaderHash)
	}
	r.setNumber(cModSeq, uint64(c.ModSeq))
	r.setNumber(cPvtModSeq, uint64(c.PvtModSeq))
	r.setFlags(cAdd, c.Add)
	r.setFlags(cRemove, c.Remove)
	r.setFlags(cFinal, c.Final)
	r.setFlag(cKeywordsReset, c.KeywordsReset)
	if c.Received > 0 {
		r.setHex(cReceived, uint64(c.Received))
	}
	if c.HasSize {
		r.setHex(cSize, c.VirtualSize)
	}
	if !c.Content.IsZero() {
		r.setBytesHex(cContent, c.Content[:])
	}
	r.setText(cPOP3, c.POP3)
	if c.Size < 0 {
		return r.invalid(cPhysical, "%d", c.Size)
	}
	r.setNumber(cPhysical, uint64(c.Size))
	switch c.Past {
	case item.PastNone:
	case item.PastMet, item.PastBrought, item.PastRenumbered, item.PastTold:
		r.setByte(cPast, byte(c.Past))
	default:
		return r.invalid(cPast, "%q", byte(c.Past))
	}
	return r.setKeywords(c.Keywords)
}

func (r *record) setFlags(f int, v mail.Flags) {
	if v != 0 {
		r.setHex(f, uint64(v))
	}
}

func (r *record) setKeywords(changes []item.KeywordChange) error {
	if len(changes) == 0 {
		return nil
	}
	start := len(r.arena)
	for i, k := range changes {
		if i > 0 {
			r.arena = append(r.arena, '\t')
		}
		from := len(r.arena)
		r.arena = append(append(r.arena, byte(k.Op)), k.Name...)
		if !validKeyword(r.arena[from:]) {
			return r.invalid(cKeywords, "%.100q", r.arena[from:])
		}
	}
	r.values[cKeywords] = r.arena[start:len(r.arena):len(r.arena)]
	return nil
}

func (r *record) encodeRequest(q *item.Request) error {
	if q.GUID == "" && q.UID == 0 {
		return r.invalid(rGUID, "neither guid nor uid")
	}
	r.setText(rGUID, string(q.GUID))
	r.setNumber(rUID, uint64(q.UID))
	r.setNumber(rHave, q.Have)
	r.setText(rMailbox, string(q.Mailbox))
	return nil
}

func (r *record) encodeMail(m *item.Mail) (io.Reader, error) {
	if m.GUID == "" && m.UID == 0 {
		return nil, r.invalid(mGUID, "neither guid nor uid")
	}
	r.setString(mGUID, string(m.GUID)) // present even if empty: Dovecot asserts it
	if m.GUID == "" {
		r.setUint(mUID, uint64(m.UID))
	}
	r.setString(mUIDL, m.POP3UIDL)
	r.setNumber(mOrder, uint64(m.POP3Order))
	if m.Received > 0 {
		r.setTime(mReceived, m.Received)
	}
	r.setSeconds(mSaved, m.Saved)
	r.setFlag(mStream, m.Body != nil)
	r.setNumber(mOffset, m.Offset)
	if m.Body == nil {
		return nil, nil
	}
	return m.Body, nil
}

func (r *record) encodeParcel(p *item.Parcel) error {
	if p.Data == "" {
		return r.invalid(pData, "empty")
	}
	r.setString(pGUID, string(p.GUID))
	r.setNumber(pOffset, p.Offset)
	r.setUint(pSize, p.Size)
	r.setString(pData, p.Data)
	return nil
}

func (r *record) encodeFinish(f *item.Finish) {
	r.setText(fError, f.Error)
	r.setNumber(fMailError, uint64(f.MailError))
	r.setFlag(fFullResync, f.RequireFullResync)
	r.setFlag(fDesync, f.Desync)
	r.setFlag(fGuard, f.Guard)
	r.setFlag(fChanged, f.Changed)
	r.setText(fPlan, f.Plan)
	r.setNumber(fNew, uint64(f.New))
	r.setNumber(fMatched, uint64(f.Matched))
	r.setFlag(fUndecided, f.Undecided)
}
