package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSetClock(t *testing.T) {
	at := func(year int) time.Time { return time.Date(year, 5, 6, 7, 8, 9, 0, time.UTC) }
	seed := filepath.Join(t.TempDir(), "seed")
	write(t, seed, "")
	if err := os.Chtimes(seed, at(2025), at(2025)); err != nil {
		t.Fatal(err)
	}
	none := errors.New("no clock")
	for _, c := range []struct {
		name       string
		now, rtc   time.Time
		rtcErr     error
		want       time.Time // zero: the clock is left
		from, says string
	}{
		{"right", at(2026), time.Time{}, none, time.Time{}, "", ""},
		{"unset", at(1970), at(2026), nil, at(2026), "the real-time clock", ""},
		{"behind the seed", at(2024), at(2026), nil, at(2026), "the real-time clock", ""},
		{"no clock", at(1970), time.Time{}, none, at(2025), seed, "no clock"},
		{"dead battery", at(1970), at(2000), nil, at(2025), seed, "real-time clock says 2000-05-06T07:08:09Z, which is before 2025-05-06T07:08:09Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var set time.Time
			from, err := setClock(c.now, at(2020), []string{seed, seed + ".none"},
				func() (time.Time, error) { return c.rtc, c.rtcErr },
				func(t time.Time) error { set = t; return nil })
			if !set.Equal(c.want) || from != c.from || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("setClock = %q, %v at %v, want %q, %q at %v", from, err, set, c.from, c.says, c.want)
			}
		})
	}
	from, err := setClock(at(1970), at(2020), nil, func() (time.Time, error) { return at(2021), nil },
		func(time.Time) error { return unix.EPERM })
	if from != "" || !errors.Is(err, os.ErrPermission) || !strings.HasPrefix(err.Error(), "set clock to 2021-05-06T07:08:09Z: ") {
		t.Errorf("a clock that may not be set = %q, %v", from, err)
	}
	from, err = setClock(at(1970), at(2020), nil, func() (time.Time, error) { return time.Time{}, none },
		func(time.Time) error { return nil })
	if from != "this program's build" || !errors.Is(err, none) {
		t.Errorf("without anything = %q, %v", from, err)
	}
}

// One wrong time must not come back at each boot.
func TestSetClockFarAhead(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "seed")
	write(t, seed, "")
	at := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	rtc := func() (time.Time, error) { return at(2026), nil }
	for _, c := range []struct {
		built time.Time
		seed  int
		want  int
	}{{at(2026), 2099, 0}, {at(2026), 2040, 2040}, {time.Time{}, 2040, 2040}, {at(1970), 2040, 2040}} {
		if err := os.Chtimes(seed, at(c.seed), at(c.seed)); err != nil {
			t.Fatal(err)
		}
		got := 0
		_, _ = setClock(at(2027), c.built, []string{seed}, rtc, func(t time.Time) error { got = t.UTC().Year(); return nil })
		if got != c.want {
			t.Errorf("built %v, seed of %d: set to %d, want %d (0: left)", c.built, c.seed, got, c.want)
		}
	}
}

func TestRTCTime(t *testing.T) {
	for _, want := range []time.Time{
		time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC),
		time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
		time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got := fromRTC(toRTC(want.In(time.FixedZone("", 7200)))); !got.Equal(want) {
			t.Errorf("fromRTC(toRTC(%v)) = %v", want, got)
		}
	}
}

func TestBuildTime(t *testing.T) {
	if built := buildTime(); built.Year() < 2024 || built.After(time.Now().Add(time.Minute)) {
		t.Errorf("buildTime = %v", built)
	}
}

// TestReadRTC reads this machine's clock, where it has one.
func TestReadRTC(t *testing.T) {
	got, err := readRTC()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		need(t, "rtc", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got.Year() < 1970 || got.Year() > 2200 {
		t.Errorf("the clock says %v", got)
	}
}

// TestSetClockForReal is for a virtual machine, and PAZINIT_TEST_MUST=rtc.
func TestSetClockForReal(t *testing.T) {
	if !must("rtc") {
		t.Skip("rtc: not asked for by PAZINIT_TEST_MUST")
	}
	before := time.Now()
	if from, err := SetClock(); from != "" || err != nil {
		t.Errorf("a clock that is right: %q, %v", from, err)
	}
	if err := SaveClock(); err != nil {
		t.Error(err)
	}
	if err := setTime(time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	from, err := SetClock()
	if off := time.Until(before.Round(0)).Abs(); from != "the real-time clock" || err != nil || off > time.Minute {
		t.Errorf("SetClock = %q, %v, and is %v off", from, err, off)
	}
}
