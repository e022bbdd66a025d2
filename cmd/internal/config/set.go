package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// field returns the field of that setting.
func (c *Config) field(name string) (reflect.Value, bool) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("toml") == name && v.Field(i).Kind() != reflect.Map {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func known(name string) bool {
	_, ok := new(Config).field(name)
	return ok
}

// Set gives one setting a value as -o does. Without a value it is a switch.
func (c *Config) Set(name, value string, hasValue bool) error {
	if ignored(name) {
		return nil
	}
	f, ok := c.field(name)
	if !ok {
		return fmt.Errorf("unknown setting %q", name)
	}
	if !hasValue && f.Kind() != reflect.Bool {
		return fmt.Errorf("setting %s needs a value", name)
	}
	if err := setField(f, value, hasValue); err != nil {
		return fmt.Errorf("setting %s=%s: %w", name, value, err)
	}
	return nil
}

func setField(f reflect.Value, value string, hasValue bool) error {
	switch p := f.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(value))
	case *string:
		*p = value
	case *bool:
		return setBool(p, value, hasValue)
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("must be a number")
		}
		*p = n
	case *time.Duration:
		return setDuration(p, value)
	default:
		return errors.New("cannot be set here")
	}
	return nil
}

func setBool(p *bool, value string, hasValue bool) error {
	switch value {
	case "yes", "true", "1", "on":
		*p = true
	case "no", "false", "0", "off":
		*p = false
	case "":
		if hasValue {
			return errors.New("must be yes or no")
		}
		*p = true
	default:
		return errors.New("must be yes or no")
	}
	return nil
}

// setDuration takes Go's form or a plain number of seconds.
func setDuration(p *time.Duration, value string) error {
	if _, err := strconv.Atoi(value); err == nil {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return errors.New("must be a time such as 30s or 5m")
	}
	*p = d
	return nil
}
