package dsync

import "fmt"

// Major is the major version of the protocol. A peer with another one is refused.
const Major = 3

// Minor is the minor version that we announce: that of dovecot 2.2.36 to 2.4. Announcing 6 would oblige us, as the source
// of a backup, to send every attribute of every mailbox that is compared.
const Minor = 5

// field is one column of an item.
type field struct {
	name     string
	required bool
	ours     bool // an extension that only two dsyncfs ends use; a Dovecot ignores the name
}

// kind is one row of the item table (dovecot 2.3 dsync-ibc-stream.c: items).
type kind struct {
	letter byte
	name   string
	since  int // first minor version of peers that have the item
	ours   bool
	limit  int // bytes of a line
	fields []field
}

const (
	lineLimit = 1 << 20  // of most items
	longLimit = 16 << 20 // of items that hold a whole log, a long name, a value or a plan
)

// Letters of lines that have no fields.
const (
	letterDone      = 'X'
	letterEndOfList = '.'
)

// Fields of the kinds, in the order in which we send them: Dovecot's own, with ours at the end, so that they are trailing
// absent fields, which are not written, when the peer is a Dovecot.
const (
	hHostname = iota
	hPrefixes
	hBox
	hBoxGUID
	hType
	hDebug
	hVisible
	hExclude
	hRequests
	hBackupSend
	hBackupRecv
	hLock
	hNoMail
	hNoOverwrite
	hPurge
	hNoNotify
	hSince
	hMaxSize
	hFlags
	hUntil
	hVirtualAll
	hEmptyHeader
	hCommit
	hHashed
	hAltChar
	hVersion
	hLive
	hHurry
	hDryRun
	hVerify
	hAllowExpunge
	hRestore
	hBoxes
	hEpoch
)

var handshakeKind = &kind{letter: 'H', name: "handshake", limit: lineLimit, fields: []field{
	hHostname:     {name: "hostname", required: true},
	hPrefixes:     {name: "sync_ns_prefix"},
	hBox:          {name: "sync_box"},
	hBoxGUID:      {name: "sync_box_guid"},
	hType:         {name: "sync_type"},
	hDebug:        {name: "debug"},
	hVisible:      {name: "sync_visible_namespaces"},
	hExclude:      {name: "exclude_mailboxes"},
	hRequests:     {name: "send_mail_requests"},
	hBackupSend:   {name: "backup_send"},
	hBackupRecv:   {name: "backup_recv"},
	hLock:         {name: "lock_timeout"},
	hNoMail:       {name: "no_mail_sync"},
	hNoOverwrite:  {name: "no_backup_overwrite"},
	hPurge:        {name: "purge_remote"},
	hNoNotify:     {name: "no_notify"},
	hSince:        {name: "sync_since_timestamp"},
	hMaxSize:      {name: "sync_max_size"},
	hFlags:        {name: "sync_flags"},
	hUntil:        {name: "sync_until_timestamp"},
	hVirtualAll:   {name: "virtual_all_box"},
	hEmptyHeader:  {name: "empty_hdr_workaround"},
	hCommit:       {name: "import_commit_msgs_interval"},
	hHashed:       {name: "hashed_headers"},
	hAltChar:      {name: "alt_char"},
	hVersion:      {name: "dsyncfs_version", ours: true},
	hLive:         {name: "dsyncfs_live", ours: true},
	hHurry:        {name: "dsyncfs_hurry", ours: true},
	hDryRun:       {name: "dsyncfs_dry_run", ours: true},
	hVerify:       {name: "dsyncfs_verify", ours: true},
	hAllowExpunge: {name: "dsyncfs_allow_expunge", ours: true},
	hRestore:      {name: "dsyncfs_restore", ours: true},
	hBoxes:        {name: "dsyncfs_boxes", ours: true},
	hEpoch:        {name: "dsyncfs_epoch", ours: true},
}}

const (
	sGUID = iota
	sUIDValidity
	sUID
	sModSeq
	sPvtModSeq
	sMessages
	sChanges
	sEpoch
	sUIDNext
	sHighestModSeq
)

var stateKind = &kind{letter: 'S', name: "mailbox_state", limit: lineLimit, fields: []field{
	sGUID:          {name: "mailbox_guid", required: true},
	sUIDValidity:   {name: "last_uidvalidity", required: true},
	sUID:           {name: "last_common_uid", required: true},
	sModSeq:        {name: "last_common_modseq", required: true},
	sPvtModSeq:     {name: "last_common_pvt_modseq", required: true},
	sMessages:      {name: "last_messages_count"},
	sChanges:       {name: "changes_during_sync"},
	sEpoch:         {name: "dsyncfs_epoch", ours: true},
	sUIDNext:       {name: "dsyncfs_uid_next", ours: true},
	sHighestModSeq: {name: "dsyncfs_highest_modseq", ours: true},
}}

const (
	nName = iota
	nExistence
	nGUID
	nUIDValidity
	nUIDNext
	nRenamed
	nSubscribed
	nSubscriptionChanged
	nMessages
	nHighestModSeq
	nNoState
)

var nodeKind = &kind{letter: 'N', name: "mailbox_tree_node", limit: longLimit, fields: []field{
	nName:                {name: "name", required: true},
	nExistence:           {name: "existence", required: true},
	nGUID:                {name: "mailbox_guid"},
	nUIDValidity:         {name: "uid_validity"},
	nUIDNext:             {name: "uid_next"},
	nRenamed:             {name: "last_renamed_or_created"},
	nSubscribed:          {name: "subscribed"},
	nSubscriptionChanged: {name: "last_subscription_change"},
	nMessages:            {name: "dsyncfs_messages", ours: true},
	nHighestModSeq:       {name: "dsyncfs_highest_modseq", ours: true},
	nNoState:             {name: "dsyncfs_no_state", ours: true},
}}

const (
	dSeparator = iota
	dEscape
	dMailboxes
	dDirs
	dUnsubscribes
)

var deletesKind = &kind{letter: 'D', name: "mailbox_delete", limit: longLimit, fields: []field{
	dSeparator:    {name: "hierarchy_sep", required: true},
	dEscape:       {name: "escape_char"},
	dMailboxes:    {name: "mailboxes"},
	dDirs:         {name: "dirs"},
	dUnsubscribes: {name: "unsubscribes"},
}}

const (
	bGUID = iota
	bUIDValidity
	bUIDNext
	bMessages
	bFirstRecent
	bModSeq
	bPvtModSeq
	bLost
	bIgnore
	bCacheFields
	bGUIDs
	bSaveGUIDs
	bOnlyGUID128
	bNoBase
	bSince
	bDigest
)

var mailboxKind = &kind{letter: 'B', name: "mailbox", limit: lineLimit, fields: []field{
	bGUID:        {name: "mailbox_guid", required: true},
	bUIDValidity: {name: "uid_validity", required: true},
	bUIDNext:     {name: "uid_next", required: true},
	bMessages:    {name: "messages_count", required: true},
	bFirstRecent: {name: "first_recent_uid", required: true},
	bModSeq:      {name: "highest_modseq", required: true},
	bPvtModSeq:   {name: "highest_pvt_modseq", required: true},
	bLost:        {name: "mailbox_lost"},
	bIgnore:      {name: "mailbox_ignore"},
	bCacheFields: {name: "cache_fields"},
	bGUIDs:       {name: "have_guids"},
	bSaveGUIDs:   {name: "have_save_guids"},
	bOnlyGUID128: {name: "have_only_guid128"},
	bNoBase:      {name: "dsyncfs_no_base", ours: true},
	bSince:       {name: "dsyncfs_since", ours: true},
	bDigest:      {name: "dsyncfs_digest", ours: true},
}}

const (
	aType = iota
	aKey
	aValue
	aStream
	aDeleted
	aLastChange
	aModSeq
)

var attributeKind = &kind{letter: 'A', name: "mailbox_attribute", since: 1, limit: longLimit, fields: []field{
	aType:       {name: "type", required: true},
	aKey:        {name: "key", required: true},
	aValue:      {name: "value"},
	aStream:     {name: "stream"},
	aDeleted:    {name: "deleted"},
	aLastChange: {name: "last_change"},
	aModSeq:     {name: "modseq"},
}}

const (
	cType = iota
	cUID
	cGUID
	cHash
	cModSeq
	cPvtModSeq
	cAdd
	cRemove
	cFinal
	cKeywordsReset
	cKeywords
	cReceived
	cSize
	cContent
	cPOP3
	cPhysical
	cPast
)

var changeKind = &kind{letter: 'C', name: "mail_change", limit: lineLimit, fields: []field{
	cType:          {name: "type", required: true},
	cUID:           {name: "uid", required: true},
	cGUID:          {name: "guid"},
	cHash:          {name: "hdr_hash"},
	cModSeq:        {name: "modseq"},
	cPvtModSeq:     {name: "pvt_modseq"},
	cAdd:           {name: "add_flags"},
	cRemove:        {name: "remove_flags"},
	cFinal:         {name: "final_flags"},
	cKeywordsReset: {name: "keywords_reset"},
	cKeywords:      {name: "keyword_changes"},
	cReceived:      {name: "received_timestamp"},
	cSize:          {name: "virtual_size"},
	cContent:       {name: "dsyncfs_content", ours: true},
	cPOP3:          {name: "dsyncfs_pop3", ours: true},
	cPhysical:      {name: "dsyncfs_physical_size", ours: true},
	cPast:          {name: "dsyncfs_past", ours: true},
}}

const (
	rGUID = iota
	rUID
	rHave
	rMailbox
)

var requestKind = &kind{letter: 'R', name: "mail_request", limit: lineLimit, fields: []field{
	rGUID:    {name: "guid"},
	rUID:     {name: "uid"},
	rHave:    {name: "dsyncfs_have", ours: true},
	rMailbox: {name: "dsyncfs_mailbox", ours: true},
}}

const (
	mGUID = iota
	mUID
	mUIDL
	mOrder
	mReceived
	mSaved
	mStream
	mOffset
)

var mailKind = &kind{letter: 'M', name: "mail", limit: lineLimit, fields: []field{
	mGUID:     {name: "guid"},
	mUID:      {name: "uid"},
	mUIDL:     {name: "pop3_uidl"},
	mOrder:    {name: "pop3_order"},
	mReceived: {name: "received_date"},
	mSaved:    {name: "saved_date"},
	mStream:   {name: "stream"},
	mOffset:   {name: "dsyncfs_offset", ours: true},
}}

const (
	fError = iota
	fMailError
	fFullResync
	fDesync
	fGuard
	fChanged
	fPlan
	fNew
	fMatched
	fUndecided
)

var finishKind = &kind{letter: 'F', name: "finish", since: 3, limit: longLimit, fields: []field{
	fError:      {name: "error"},
	fMailError:  {name: "mail_error"},
	fFullResync: {name: "require_full_resync"},
	fDesync:     {name: "dsyncfs_desync", ours: true},
	fGuard:      {name: "dsyncfs_guard", ours: true},
	fChanged:    {name: "dsyncfs_changed", ours: true},
	fPlan:       {name: "dsyncfs_plan", ours: true},
	fNew:        {name: "dsyncfs_new", ours: true},
	fMatched:    {name: "dsyncfs_matched", ours: true},
	fUndecided:  {name: "dsyncfs_undecided", ours: true},
}}

// cacheFieldKind is never an item of its own: it is the form of the records in a mailbox's cache_fields.
var cacheFieldKind = &kind{letter: 'c', name: "mailbox_cache_field", limit: 0, fields: []field{
	{name: "name", required: true},
	{name: "decision", required: true},
	{name: "last_used"},
}}

const wMailboxes = 0

var wakeKind = &kind{letter: 'W', name: "dsyncfs_wake", ours: true, limit: lineLimit, fields: []field{
	wMailboxes: {name: "dsyncfs_mailboxes", ours: true},
}}

const (
	pGUID = iota
	pOffset
	pSize
	pData
)

var parcelKind = &kind{letter: 'P', name: "dsyncfs_parcel", ours: true, limit: lineLimit, fields: []field{
	pGUID:   {name: "dsyncfs_guid", required: true, ours: true},
	pOffset: {name: "dsyncfs_offset", ours: true},
	pSize:   {name: "dsyncfs_size", required: true, ours: true},
	pData:   {name: "dsyncfs_data", required: true, ours: true},
}}

const (
	kGUID = iota
	kGot
)

var receiptKind = &kind{letter: 'K', name: "dsyncfs_receipt", ours: true, limit: lineLimit, fields: []field{
	kGUID: {name: "dsyncfs_guid", required: true, ours: true},
	kGot:  {name: "dsyncfs_got", required: true, ours: true},
}}

const (
	vVersion = iota
	vBodies
)

var previewKind = &kind{letter: 'V', name: "dsyncfs_preview", ours: true, limit: lineLimit, fields: []field{
	vVersion: {name: "dsyncfs_version", ours: true},
	vBodies:  {name: "dsyncfs_bodies", ours: true},
}}

// kinds is the table, in the order in which Dovecot sends the field lists; ours comes last.
var kinds = [...]*kind{
	handshakeKind, stateKind, nodeKind, deletesKind, mailboxKind, attributeKind,
	changeKind, requestKind, mailKind, finishKind, cacheFieldKind, wakeKind, parcelKind, receiptKind, compressionKind, previewKind,
}

// kindOf returns the row of a letter, nil if there is none.
func kindOf(letter byte) *kind {
	for _, k := range kinds {
		if k.letter == letter {
			return k
		}
	}
	return nil
}

// errorf says what is wrong with a received item of this kind.
func (k *kind) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrProtocol, k.name, fmt.Sprintf(format, args...))
}

// Features is what a peer's minor version means for the conversation (dovecot 2.3 dsync-ibc-stream.c,
// DSYNC_PROTOCOL_MINOR_HAVE_*).
type Features struct {
	Attributes    bool // there are Attribute items; without, there is not even the end of their list, in either direction
	SaveGUIDs     bool // Mailbox.HaveSaveGUIDs is told; without, HaveGUIDs implies it (Recv does that)
	Finish        bool // the slave ends with a Finish; without, the end of the stream is success
	HeaderHash    int  // version of the header hash: 1 or 3
	AllAttributes bool // the source of a backup sends every attribute
}

func featuresOf(minor int) Features {
	f := Features{
		Attributes: minor >= 1, SaveGUIDs: minor >= 2, Finish: minor >= 3,
		HeaderHash: 1, AllAttributes: minor >= 6,
	}
	if minor >= 4 {
		f.HeaderHash = 3
	}
	return f
}
