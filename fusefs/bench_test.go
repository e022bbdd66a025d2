package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkMount compares the mount with the bare directory. Each workload is run by another process on both, alternately;
// the metric "x-native" is the ratio of the medians.
func BenchmarkMount(b *testing.B) {
	const mails = 20_000
	bare, backing := filepath.Join(b.TempDir(), "bare"), filepath.Join(b.TempDir(), "backing")
	for _, dir := range []string{bare, backing} {
		makeMaildir(b, dir)
		if err := workloads["fill"](dir, mails); err != nil {
			b.Fatal(err)
		}
	}
	m := mount(b, backing, "", nil)
	for _, name := range []string{"list", "list-stat", "read-4k", "read-whole", "deliver", "deliver-fsync", "flags", "unlink"} {
		b.Run(name, func(b *testing.B) {
			n := mails
			if name == "deliver-fsync" {
				n = 500
			}
			var took [2][]float64
			for range b.N {
				for i, dir := range []string{bare, m.dir} {
					out, err := helperCommand(b, "workload", name, dir, fmt.Sprint(n)).CombinedOutput()
					if err != nil {
						b.Fatalf("%v: %s", err, out)
					}
					var us float64
					if _, err := fmt.Sscan(string(out), &us); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], us)
				}
			}
			native, mounted := median(took[0]), median(took[1])
			b.ReportMetric(native, "native-us")
			b.ReportMetric(mounted, "mount-us")
			b.ReportMetric(mounted/native, "x-native")
		})
	}
}

func median(v []float64) float64 {
	for i := range v {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
	return v[len(v)/2]
}

// helpWorkload runs a workload after a first run that warms the caches, and prints microseconds a mail.
func helpWorkload(args []string) error {
	name, dir, n := args[0], args[1], atoi(args[2])
	run := workloads[name]
	if !strings.HasPrefix(name, "deliver") && name != "unlink" && name != "flags" {
		if err := run(dir, n); err != nil {
			return err
		}
	}
	if name == "unlink" {
		if err := workloads["deliver"](dir, n); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := run(dir, n); err != nil {
		return err
	}
	fmt.Println(float64(time.Since(start).Microseconds()) / float64(n))
	return nil
}

var workloads = map[string]func(dir string, n int) error{
	"fill": func(dir string, n int) error {
		body := []byte(strings.Repeat("a line of a mail of usual size\n", 260))
		for i := range n {
			if err := os.WriteFile(fmt.Sprintf("%s/cur/%d.M%dP1.host,S=8060:2,", dir, i, i), body, 0o600); err != nil {
				return err
			}
		}
		return nil
	},
	"list": func(dir string, n int) error {
		_, err := names(dir + "/cur")
		return err
	},
	"list-stat": func(dir string, n int) error {
		return each(dir+"/cur", func(path string) error {
			_, err := os.Lstat(path)
			return err
		})
	},
	"read-4k":    func(dir string, n int) error { return readEach(dir, 4096) },
	"read-whole": func(dir string, n int) error { return readEach(dir, 16<<10) },
	"deliver": func(dir string, n int) error {
		for i := range n {
			if err := deliverOne(dir, i, false); err != nil {
				return err
			}
		}
		return nil
	},
	"deliver-fsync": func(dir string, n int) error {
		for i := range n {
			if err := deliverOne(dir, i+1<<30, true); err != nil {
				return err
			}
		}
		return nil
	},
	"flags": func(dir string, n int) error {
		return each(dir+"/cur", func(path string) error {
			base, flags, _ := strings.Cut(path, ":2,")
			if flags == "" {
				return unix.Rename(path, base+":2,S")
			}
			return unix.Rename(path, base+":2,")
		})
	},
	"unlink": func(dir string, n int) error { return each(dir+"/new", unix.Unlink) },
}

func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func each(dir string, f func(path string) error) error {
	list, err := names(dir)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := f(dir + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

func readEach(dir string, size int) error {
	buf := make([]byte, size)
	return each(dir+"/cur", func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(buf)
		return err
	})
}

func deliverOne(dir string, i int, sync bool) error {
	name := fmt.Sprintf("%d.M%dP%d.host", i, i, os.Getpid())
	f, err := os.OpenFile(dir+"/tmp/"+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(make([]byte, 8000)); err == nil && sync {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return unix.Rename(dir+"/tmp/"+name, dir+"/new/"+name)
}
