package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseDate reads what doveadm's dates look like: seconds since the epoch, YYYY-MM-DD, or an age: 7days, 2 weeks, 12hours.
func parseDate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		return n, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339, "02-Jan-2006"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t.Unix(), nil
		}
	}
	digits := strings.TrimRight(s, " abcdefghijklmnopqrstuvwxyz")
	unit := strings.TrimSuffix(strings.TrimSpace(s[len(digits):]), "s")
	n, err := strconv.ParseUint(digits, 10, 32)
	secs, ok := map[string]int64{"sec": 1, "second": 1, "min": 60, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}[unit]
	if err == nil && ok {
		return time.Now().Unix() - int64(n)*secs, nil
	}
	return 0, fmt.Errorf("%q is no date such as 2026-01-31, 1767261600 or 7days", s)
}

// parseSize reads bytes with an optional K, M or G.
func parseSize(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "KMGB")
	shift := map[string]uint{"": 0, "K": 10, "KB": 10, "M": 20, "MB": 20, "G": 30, "GB": 30}
	n, err := strconv.ParseUint(digits, 10, 64)
	by, ok := shift[strings.ToUpper(s)[len(digits):]]
	if err != nil || !ok || n == 0 || n > 1<<62>>by {
		return 0, fmt.Errorf("%q is no size such as 500K or 20M", s)
	}
	return n << by, nil
}
