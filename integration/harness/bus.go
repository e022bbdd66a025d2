package harness

import (
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Bus is a real D-Bus of its own, which the programs of an environment take for the system's. The test is its logind.
type Bus struct {
	env  *Env
	conn *dbus.Conn
}

// busConfig lets everybody be anybody on it.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`

// NewBus starts one for what the environment starts from now on.
func (e *Env) NewBus() *Bus {
	e.TB.Helper()
	config, socket := e.Path("bus.conf"), e.Path("bus")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(busConfig, "SOCKET", socket)), 0o600); err != nil {
		e.TB.Fatal(err)
	}
	p := e.StartProgram("dbus-daemon", "--nofork", "--nopidfile", "--print-address", "--config-file="+config)
	address := "unix:path=" + socket
	e.Eventually("the bus is there", 20*time.Second, func() error {
		_, err := os.Stat(socket)
		return err
	})
	conn, err := dbus.Connect(address)
	if err != nil {
		e.TB.Fatalf("bus: %v\n%s", err, p.Output())
	}
	e.TB.Cleanup(func() { conn.Close() })
	if got, err := conn.RequestName("org.freedesktop.login1", dbus.NameFlagDoNotQueue); err != nil || got != dbus.RequestNameReplyPrimaryOwner {
		e.TB.Fatalf("bus: %v, %v", got, err)
	}
	e.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	return &Bus{env: e, conn: conn}
}

// Listened waits until somebody listens to what logind says of sleep.
func (b *Bus) Listened() {
	b.env.TB.Helper()
	b.env.Eventually("somebody listens to logind", 20*time.Second, func() error {
		var all map[string][]string
		call := b.conn.BusObject().Call("org.freedesktop.DBus.Debug.Stats.GetAllMatchRules", 0)
		if err := call.Store(&all); err != nil {
			b.env.TB.Fatal(err)
		}
		for _, rules := range all {
			for _, rule := range rules {
				if strings.Contains(rule, "PrepareForSleep") {
					return nil
				}
			}
		}
		return os.ErrNotExist
	})
}

// Sleep says what logind says before the machine sleeps, and Wake what it says when it woke up.
func (b *Bus) Sleep() { b.emit(true) }
func (b *Bus) Wake()  { b.emit(false) }

func (b *Bus) emit(begins bool) {
	b.env.TB.Helper()
	if err := b.conn.Emit("/org/freedesktop/login1", "org.freedesktop.login1.Manager.PrepareForSleep", begins); err != nil {
		b.env.TB.Fatal(err)
	}
}
