package maildir

import (
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// separate gives different mails that have one base name different ones, as Dovecot does ("Fixed a duplicate"): otherwise
// one of them would be seen by nobody, and could be overwritten. Two names of one file are a mail being moved and are left
// to whoever moves it; if nobody does, one of them goes, as with Dovecot ("Unlinked a duplicate").
func (b *boxScan) separate() error {
	if len(b.files.duplicates) == 0 || b.r.o.DryRun {
		return nil
	}
	remembered, err := b.rememberedFiles()
	if err != nil {
		return err
	}
	ns, err := openDirs(b.s.ns, b.l.dir)
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, d := range b.files.duplicates {
		mine := b.files.file(d.entry)
		differ, forgotten, err := b.differ(mine, d.file)
		switch {
		case err != nil:
			return err
		case forgotten:
			if err := b.unlinkDuplicate(&ns, d.file); err != nil {
				return err
			}
			continue
		case !differ:
			b.hurry = true
			continue
		}
		if remembered[string(b.files.base(d.entry))] == d.file {
			mine, d.file = d.file, mine
			b.files.replace(d.entry, mine[4:], mine[:4] == "cur/")
		}
		if err := b.giveFreshName(&ns, d.file); err != nil {
			return err
		}
	}
	return nil
}

// giveFreshName renames a mail and enters it into the listing.
func (b *boxScan) giveFreshName(ns *dirs, file string) error {
	dir, old := ns.of(file)
	if dir == nil {
		return nil
	}
	f, _ := mail.ParseFileName(old)
	f.Base = b.s.uniqueName()
	name := f.String()
	if err := dir.RenameNew(old, dir, name); err != nil {
		b.hurry = true
		return ignoreGone(err)
	}
	b.files.add(name, len(f.Base), file[:4] == "cur/")
	b.files.notes = append(b.files.notes, joinPath(b.l.dir, file)+": another mail had that name, it is "+name+" now")
	b.hurry = true // the directory is not as it was when it was read
	return nil
}

// rememberedFiles returns where the catalog has the mails of the base names that are there twice.
func (b *boxScan) rememberedFiles() (map[string]string, error) {
	out := make(map[string]string)
	for _, d := range b.files.duplicates {
		out[string(b.files.base(d.entry))] = ""
	}
	if b.l.rec == nil {
		return out, nil
	}
	c := newCursor(b.s.cat, b.l.rec.Status.GUID, 0)
	for {
		r, ok, err := c.next()
		if err != nil || !ok {
			return out, err
		}
		if base := baseOf(r.File); base != "" {
			if _, wanted := out[base]; wanted {
				out[base] = r.File
			}
		}
	}
}

// unlinkDuplicate removes one of two names of a file.
func (b *boxScan) unlinkDuplicate(ns *dirs, file string) error {
	dir, name := ns.of(file)
	if dir == nil {
		return nil
	}
	b.files.notes = append(b.files.notes, joinPath(b.l.dir, file)+": a second name of the same mail, removed")
	b.hurry = true // the directory is not as it was when it was read
	return ignoreGone(dir.Remove(name))
}

// forgottenAge is for how long nothing must have happened to a file with two names for it not to be one being moved (dovecot
// 2.3.19 maildir-sync.c: DUPE_LINKS_DELETE_SECS).
const forgottenAge = 30 * time.Second

// differ reports whether both files are there and are not the same, and if they are the same, whether somebody forgot the one.
func (b *boxScan) differ(x, y string) (differ, forgotten bool, err error) {
	var infos [2]vfs.Info
	for i, file := range []string{x, y} {
		dir, name := b.d.of(file)
		if dir == nil {
			return false, false, nil
		}
		info, err := dir.Stat(name)
		if err != nil {
			return false, false, ignoreGone(err)
		}
		infos[i] = info
	}
	if infos[0].Ino != infos[1].Ino || infos[0].Dev != infos[1].Dev {
		return true, false, nil
	}
	age := b.s.o.Clock().Sub(infos[0].Ctime).Abs()
	return false, infos[0].Nlink > 1 && infos[0].Ctime.Equal(infos[1].Ctime) && age > forgottenAge, nil
}
