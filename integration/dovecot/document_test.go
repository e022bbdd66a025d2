package dovecot

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// blocks are the code blocks of a section of docs/dovecot.md, in their order.
func blocks(t *testing.T, section string) []string {
	t.Helper()
	root, err := harness.ModuleRoot()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "dovecot.md"))
	must(t, err)
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the document has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```\n(.*?)^```$").FindAllStringSubmatch(rest, -1) {
		all = append(all, m[1])
	}
	return all
}

// machine is one on which the commands of the document run as written: a Dovecot with a user "user" runs, doveadm and dsyncfs
// are in the PATH, and "host" can be reached by ssh.
type machine struct {
	*pair
	bin    string
	server *harness.Process
}

func newMachine(t *testing.T, more string) *machine {
	t.Helper()
	e := harness.New(t)
	owner, group := mailUser()
	users := e.Path("users")
	dove := newAccountWith(e, "dove", "sdbox", "/", fmt.Sprintf(usersSettings, users, owner, group)+more)
	m := &machine{pair: &pair{e, t, newAccount(e, "ours", "maildir"), dove}, bin: e.Path("bin")}
	uid, gid := strings.TrimSpace(e.Must("id", "-u", owner)), strings.TrimSpace(e.Must("id", "-g", owner))
	must(t, os.WriteFile(users, []byte(fmt.Sprintf("user:{PLAIN}x:%s:%s::%s::\n", uid, gid, dove.home)), 0o644))
	must(t, os.Mkdir(m.bin, 0o755))
	dove.own()
	m.server = e.StartProgram("dovecot", "-F", "-c", dove.conf)
	e.Eventually("users are looked up", 30*time.Second, func() error {
		if r := dove.try(nil, "user", "user"); r.status != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	return m
}

// program puts a script into the PATH of the machine, or of another one.
func (m *machine) program(dir, name, script string) {
	m.t.Helper()
	must(m.t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// doveadmScript is doveadm with the configuration of the machine's Dovecot. PATH is for what it runs.
func (m *machine) doveadmScript() string {
	words := append(m.dove.environment(), m.Vars()...)
	words = append(words, "PATH="+m.bin+":"+filepath.Dir(harness.Binary(m.t))+":/usr/bin:/bin")
	return "exec env -i '" + strings.Join(words, "' '") + "' /usr/bin/doveadm -c " + m.dove.conf + ` "$@"`
}

// shell runs a line of the document. It has to succeed in silence.
func (m *machine) shell(line string) {
	m.t.Helper()
	m.t.Logf("$ %s", line)
	out := m.Must("bash", "-c", "exec 2>&1; export PATH="+m.bin+":$PATH; "+line)
	m.ours.own()
	if out = strings.TrimSpace(out); out != "" {
		m.t.Errorf("%s: %s", line, out)
	}
}

// quiet fails the test if the Dovecot has logged something above info.
func (m *machine) quiet() {
	m.t.Helper()
	for line := range strings.SplitSeq(m.server.Output(), "\n") {
		if strings.Contains(line, "Warning: ") || strings.Contains(line, "Error: ") || strings.Contains(line, "Fatal: ") || strings.Contains(line, "Panic: ") {
			m.t.Errorf("Dovecot's log: %s", line)
		}
	}
}

// sshTo makes "host" a machine that ssh and dsyncfs reach.
func (m *machine) sshTo(r *harness.Remote) {
	m.t.Helper()
	text, err := os.ReadFile(r.ConfigFile)
	must(m.t, err)
	config := filepath.Join(m.Home, ".ssh", "config")
	must(m.t, os.MkdirAll(filepath.Dir(config), 0o700))
	must(m.t, os.WriteFile(config, []byte(strings.Replace(string(text), "Host sshd", "Host host", 1)), 0o600))
	m.program(m.bin, "ssh", `exec /usr/bin/ssh -F `+config+` "$@"`) // it would take the home of the one who runs the tests
}

// The commands of the document, with dsyncfs as master, run as written.
func TestDocumentedCommandsOfAMaster(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "")
	m.program(m.bin, "doveadm", m.doveadmScript())
	there := m.Path("there") // the host has a Dovecot and no dsyncfs
	must(t, os.Mkdir(there, 0o755))
	m.program(there, "doveadm", m.doveadmScript())
	m.sshTo(m.NewRemote(fmt.Sprintf("SetEnv PATH=%s:/usr/bin:/bin", there)))
	m.dove.doveadm("mailbox", "create", "Work")
	m.dove.save("INBOX", note("there"))
	m.ours.maildir().Create(t, "INBOX", "Lists")
	m.ours.maildir().Deliver(t, "Lists", "1767261600.here.test", "S", note("here"))
	m.ours.own()
	must(t, os.Symlink(m.ours.maildir().Path, filepath.Join(m.Home, "Maildir")))
	must(t, os.Mkdir(filepath.Join(m.Home, "Mail"), 0o700))

	commands := strings.Split(strings.TrimSpace(blocks(t, "dsyncfs starts, Dovecot answers")[0]), "\n")
	if len(commands) != 3 {
		t.Fatalf("%q", commands)
	}
	for i, command := range commands {
		m.shell(command)
		if strings.HasPrefix(command, "dsyncfs mount ") {
			m.shell("dsyncfs sync ~/Mail")
			m.shell("dsyncfs umount ~/Mail")
			mail := newAccount(m.Env, "mail", "maildir")
			m.Must("cp", "-a", filepath.Join(m.Home, "Mail"), mail.maildir().Path)
			mail.own()
			same(t, mail, m.dove)
		} else {
			same(t, m.ours, m.dove)
		}
		m.dove.save("Work", note(fmt.Sprint("news ", i)))
		if i == 0 {
			m.ours.save("INBOX", note("from here"))
			m.shell(command) // the second time
			same(t, m.ours, m.dove)
		}
	}
	m.quiet()
}

// The commands of the document, with a Dovecot as master, run as written.
func TestDocumentedCommandsOfASlave(t *testing.T) {
	t.Parallel()
	all := blocks(t, "Dovecot starts, dsyncfs answers")
	if len(all) != 3 {
		t.Fatalf("%q", all)
	}
	me, err := user.Current()
	must(t, err)
	m := newMachine(t, strings.ReplaceAll(all[1], "vmail", me.Username))
	m.program(m.bin, "doveadm", m.doveadmScript())
	r := m.NewRemote()
	m.sshTo(r)
	m.dove.doveadm("mailbox", "create", "Work")
	m.dove.save("INBOX", note("there"))
	m.dove.save("Work", note("work"))
	must(t, os.MkdirAll(m.Path("srv", "mail"), 0o755))
	settings := filepath.Join(r.Home, "config", "dsyncfs", "dsyncfs.toml")
	must(t, os.MkdirAll(filepath.Dir(settings), 0o700))

	commands := strings.Split(strings.TrimSpace(all[0]), "\n")
	places := []string{m.Path("srv", "copy"), filepath.Join(r.Home, "Maildir"), m.Path("srv", "mail", "user")}
	if len(commands) != len(places) {
		t.Fatalf("%q", commands)
	}
	for i, command := range commands {
		if i == 2 {
			must(t, os.WriteFile(settings, []byte(strings.ReplaceAll(all[2], "/srv", m.Path("srv"))), 0o600))
		}
		for range 2 {
			m.dove.save("Work", note("news"))
			m.shell(strings.ReplaceAll(command, "/srv", m.Path("srv")))
			copied := newAccount(m.Env, fmt.Sprint("copy", i), "maildir")
			m.Must("sh", "-c", "rm -rf "+copied.maildir().Path+"; cp -a "+places[i]+" "+copied.maildir().Path)
			copied.own()
			same(t, copied, m.dove)
		}
	}
	m.quiet()
}
