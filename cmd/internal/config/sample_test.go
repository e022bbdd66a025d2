package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// sample is the documented settings file.
const sample = "../../../docs/dsyncfs.toml"

func TestSampleShowsTheDefaults(t *testing.T) {
	got, err := Load(sample, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Mirrors = map[string]Mirror{"work": {
		Local: "maildir:/home/ann/Work", Remote: "ann@mail.example.org", Mountpoint: "/home/ann/Mail/work",
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the sample sets\n%+v\nwhich differs from the defaults\n%+v", got, want)
	}
}

func TestSampleNamesEverySetting(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	// With its examples switched on it must load too.
	all := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAll(text, []byte("$1"))
	file := filepath.Join(t.TempDir(), "dsyncfs.toml")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err != nil {
		t.Error(err)
	}
	settings := reflect.TypeFor[Config]()
	for i := range settings.NumField() {
		name := settings.Field(i).Tag.Get("toml")
		if !regexp.MustCompile(`(?m)^(` + name + ` = |\[` + name + `\.)`).Match(all) {
			t.Errorf("setting %s is not in the sample", name)
		}
	}
}
