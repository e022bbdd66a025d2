package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// write makes a settings file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsyncfs.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every setting has a value that -o and a file take, and one that both refuse.
func TestEverySetting(t *testing.T) {
	t.Setenv("HOME", "/home/ann")
	for _, c := range []struct {
		name, value string
		want        any
		bad         string // empty: everything is taken
	}{
		{"mail_location", "maildir:/m", "maildir:/m", ""},
		{"dsync_alt_char", "-", "-", "ab"},
		{"dsync_remote_cmd", "ssh %{host}", "ssh %{host}", ""},
		{"state_dir", "/var/s", "/var/s", ""},
		{"ssh_command", "ssh -4", "ssh -4", ""},
		{"ssh_config", "~/.ssh/other", "/home/ann/.ssh/other", ""},
		{"identity", "/k", "/k", ""},
		{"known_hosts", "/h", "/h", ""},
		{"server_command", "x dsync-server", "x dsync-server", ""},
		{"compress", "yes", "yes", "perhaps"},
		{"timeout", "90", 90 * time.Second, "soon"},
		{"keepalive_interval", "1m30s", 90 * time.Second, "0"},
		{"lock_timeout", "5s", 5 * time.Second, "-1"},
		{"full_sync_interval", "1h", time.Hour, "99999999999999999999"},
		{"poll_interval", "2", 2 * time.Second, "5 minutes"},
		{"max_missing", "10%,5", MaxMissing{10, 5}, "101%"},
		{"commit", "remote", "remote", "elsewhere"},
		{"commit_timeout", "3", 3 * time.Second, "0s"},
		{"ro", "yes", true, "perhaps"},
		{"allow_other", "1", true, ""},
		{"default_permissions", "true", true, "2"},
		{"uid", "1000", 1000, "-2"},
		{"gid", "0", 0, "4294967295"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := write(t, fmt.Sprintf("%s = %q\n", c.name, c.value))
			empty := write(t, "")
			for from, load := range map[string]func() (Config, error){
				"-o":   func() (Config, error) { return Load(empty, []string{c.name + "=" + c.value}) },
				"file": func() (Config, error) { return Load(file, nil) },
			} {
				got, err := load()
				if err != nil {
					t.Fatalf("%s: %v", from, err)
				}
				if f, _ := got.field(c.name); !reflect.DeepEqual(f.Interface(), c.want) {
					t.Errorf("%s: %v, want %v", from, f.Interface(), c.want)
				}
			}
			if c.bad == "" {
				return
			}
			_, err := Load(empty, []string{c.name + "=" + c.bad})
			_, ferr := Load(write(t, fmt.Sprintf("%s = %q\n", c.name, c.bad)), nil)
			for from, err := range map[string]error{"-o": err, "file": ferr} {
				if err == nil || !strings.Contains(err.Error(), c.name) {
					t.Errorf("%s: %q is not refused by name: %v", from, c.bad, err)
				}
			}
		})
	}
	settings := reflect.TypeFor[Config]()
	if got := settings.NumField() - 1; got != 23 {
		t.Errorf("there are %d settings; this table is about 23", got)
	}
}

func TestValuesOfTOML(t *testing.T) {
	got, err := Load(write(t, "timeout = 30\nro = true\nuid = 7\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Timeout != 30*time.Second || !got.ReadOnly || got.UID != 7 {
		t.Errorf("%v %v %v", got.Timeout, got.ReadOnly, got.UID)
	}
}

func TestOverridesAreSplitAsFUSEDoes(t *testing.T) {
	for o, want := range map[string][]string{
		"ro":                                  {"ro"},
		"ro,allow_other,commit=remote":        {"ro", "allow_other", "commit=remote"},
		"mail_location=maildir:/a,b,ro":       {"mail_location=maildir:/a,b", "ro"},
		"max_missing=20%,50,uid=1":            {"max_missing=20%,50", "uid=1"},
		"rw,nosuid,x-gvfs-show,_netdev,uid=1": {"rw", "nosuid", "x-gvfs-show", "_netdev", "uid=1"},
		`mail_location=maildir:/a\,ro,uid=1`:  {"mail_location=maildir:/a,ro", "uid=1"},
		"uid=1,frobnicate=2":                  {"uid=1", "frobnicate=2"},
		"":                                    {""},
	} {
		if got := splitSettings(o); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", o, got, want)
		}
	}
}

func TestTheLaterWordCounts(t *testing.T) {
	file := write(t, "timeout = 1\nlock_timeout = 1\n")
	got, err := Load(file, []string{"timeout=2,ro", "timeout=3,ro=no"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Timeout != 3*time.Second || got.LockTimeout != time.Second || got.ReadOnly {
		t.Errorf("%+v", got)
	}
}

func TestMountOptionsOfOthersAreIgnored(t *testing.T) {
	got, err := Load(write(t, ""), []string{"rw,suid,dev,exec,noauto,user=ann,_netdev,nofail,x-systemd.automount,comment=mine,relatime"})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Load(write(t, ""), nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %+v, want %+v", err, got, want)
	}
}

func TestWhatIsWrongWithAFileIsToldAtOnce(t *testing.T) {
	for text, says := range map[string][]string{
		"frobnicate = 1\nuid = \"x\"\nknown = 2": {"frobnicate", "uid=x", "known"},
		"timeout = 1.5":                          {"timeout", "must be a text"},
		"mirror = 1":                             {"mirror must be a table"},
		"[mirror]\nwork = 1":                     {"mirror.work", "must be a table"},
		"[mirror.work]\nremote = \"h\"\ncolour = \"red\"\nmountpoint = true": {"mirror.work", "colour", "mountpoint"},
		"[mirror.work]\nmountpoint = \"/m\"":                                 {"mirror.work", "remote is missing"},
		"timeout = 1\ntimeout = 2":                                           {"line 2"},
		"uid = ":                                                             {"line 1"},
	} {
		path := write(t, text)
		_, err := Load(path, nil)
		if err == nil {
			t.Errorf("%q is not refused", text)
			continue
		}
		for _, want := range append(says, path) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %q does not say %q", text, err, want)
			}
		}
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	t.Setenv("HOME", "/home/ann")
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "identity = \"key\"\n[mirror.work]\nremote = \"h\"\nmountpoint = \"~/Mail\"\n")
	got, err := Load(file, []string{"state_dir=st,known_hosts=~/kh"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{got.Identity, filepath.Join(filepath.Dir(file), "key")}, {got.StateDir, filepath.Join(dir, "st")},
		{got.KnownHosts, "/home/ann/kh"}, {got.Mirrors["work"].Mountpoint, "/home/ann/Mail"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s, want %s", c[0], c[1])
		}
	}
}

func TestWithoutAHomeTheStateMustBeSet(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	file := write(t, "")
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("%v", err)
	}
	if _, err := Load(file, []string{"state_dir=/s"}); err != nil {
		t.Error(err)
	}
}

func TestMakePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := MakePrivate(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o775); err != nil {
		t.Fatal(err)
	}
	if err := MakePrivate(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := MakePrivate(write(t, "")); err == nil {
		t.Error("a file is taken for a state directory")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := MakePrivate(dir); err == nil || !strings.Contains(err.Error(), "65534") {
			t.Errorf("another user's directory: %v", err)
		}
	}
}

func TestCanonicalNamesWhatIsNotThereYet(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "link")
	loop := filepath.Join(root, "loop")
	for from, to := range map[string]string{link: "real", loop: "loop"} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	want := filepath.Join(root, "real", "new")
	if got := Canonical(filepath.Join(link, "new")); got != want {
		t.Errorf("before: %s, want %s", got, want)
	}
	if err := os.MkdirAll(want, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := Canonical(filepath.Join(link, "new")); got != want {
		t.Errorf("when it is there: %s, want %s", got, want)
	}
	Canonical(loop) // ends
	if Canonical("/") != "/" {
		t.Error("the root has another name")
	}
	for _, c := range []struct {
		path, dir string
		want      bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/a", "/a/b", false}, {"/a", "/", true}} {
		if Within(c.path, c.dir) != c.want {
			t.Errorf("Within(%s, %s) is not %v", c.path, c.dir, c.want)
		}
	}
}

func TestADovecotConfiguration(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(conf, []byte("mail_location = maildir:~/M\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if _, err := Load(conf, nil); err == nil || !strings.Contains(err.Error(), "doveconf is not installed") {
		t.Errorf("without doveconf: %v", err)
	}
	// A program of that name, as the real one is not everywhere.
	fake := "#!/bin/sh\n[ \"$*\" = \"-h -c " + conf + " mail_location\" ] || { echo \"doveconf: Fatal: what is $*?\" >&2; exit 89; }\necho maildir:~/M\n"
	if err := os.WriteFile(filepath.Join(dir, "doveconf"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := Load(conf, nil)
	if err != nil || got.MailLocation != "maildir:~/M" {
		t.Errorf("%q, %v", got.MailLocation, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "doveconf"), []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(conf, nil); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("%v", err)
	}
}

// Whatever is in a file, it is read or refused, and what was read is valid.
func FuzzParse(f *testing.F) {
	f.Add("timeout = \"5m\"\n[mirror.work]\nremote = \"h\"\n")
	f.Add("max_missing = \"20%,50\"\nuid = -1\nro = false")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		c.StateDir = "/s"
		if c.parse(text) == nil {
			_ = c.Validate()
		}
	})
}

func FuzzOverride(f *testing.F) {
	f.Add(`mail_location=maildir:/a\,b,ro,timeout=5`)
	f.Fuzz(func(t *testing.T, o string) {
		if strings.Join(splitSettings(o), ",") != strings.ReplaceAll(o, `\,`, ",") && !strings.HasSuffix(o, `\`) {
			t.Errorf("%q: %q", o, splitSettings(o))
		}
		c := Default()
		_ = c.override(o)
	})
}
