package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
)

// A screen is what is known of where the output goes.
type screen struct {
	fd            int
	tty, color    bool
	dumb          bool // a terminal without a cursor to move
	width, height int  // 0 when not known: no limit
}

func screenOf(w io.Writer) (s screen) {
	f, ok := w.(*os.File)
	if !ok {
		return s
	}
	s.fd = int(f.Fd())
	_, err := unix.IoctlGetTermios(s.fd, unix.TCGETS)
	s.tty = err == nil
	s.dumb = os.Getenv("TERM") == "dumb"
	s.color = s.tty && !s.dumb && os.Getenv("NO_COLOR") == ""
	s.measure()
	return s
}

func (s *screen) measure() {
	if !s.tty {
		return
	}
	if ws, err := unix.IoctlGetWinsize(s.fd, unix.TIOCGWINSZ); err == nil {
		s.width, s.height = int(ws.Col), int(ws.Row)
	}
}

// status asks for the status and, to watch, shows each that comes.
func (k *client) status(ctx context.Context, cl *control.Client) (*control.Reply, error) {
	if !k.req.Follow {
		return cl.Do(ctx, k.req, nil)
	}
	if k.screen.tty && !k.screen.dumb && !k.json {
		return k.watch(ctx, cl)
	}
	first := true
	return cl.Do(ctx, k.req, func(r *control.Reply) error {
		if !first && !k.json {
			fmt.Fprintln(k.out)
		}
		first = false
		k.showStatus(r)
		return k.out.Flush()
	})
}

// watch draws the table on a terminal's second screen, anew at each change and
// each second, and leaves the first screen as it was.
func (k *client) watch(ctx context.Context, cl *control.Client) (last *control.Reply, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	_, _ = k.out.WriteString(enter)
	defer func() {
		_, _ = k.out.WriteString(leave)
		_ = k.out.Flush()
	}()
	replies := make(chan *control.Reply)
	go func() {
		last, err = cl.Do(ctx, k.req, func(r *control.Reply) error {
			select {
			case replies <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(replies)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var shown *control.Reply
	var came time.Time
	for {
		select {
		case r, ok := <-replies:
			if !ok {
				return last, err
			}
			shown, came = r, time.Now()
		case <-tick.C:
		}
		if shown == nil {
			continue
		}
		k.screen.measure()
		lines := k.table(shown.Status, time.Now(), time.Since(came))
		if h := k.screen.height; h > 2 && len(lines) > h-1 {
			lines = append(lines[:h-2], fmt.Sprintf("… and %d more", len(lines)-(h-2)))
		}
		_, _ = k.out.WriteString("\x1b[H")
		for _, line := range lines {
			_, _ = k.out.WriteString(line + "\x1b[K\n")
		}
		_, _ = k.out.WriteString("\x1b[J")
		if err := k.out.Flush(); err != nil {
			stop()
			for range replies {
			}
			return nil, err
		}
	}
}

func (k *client) showStatus(r *control.Reply) {
	if k.json {
		list := r.Status
		if list == nil {
			list = []control.Status{}
		}
		_, _ = k.out.Write(control.AppendJSON(nil, list))
		return
	}
	if len(r.Status) == 0 {
		if len(r.Results) == 0 {
			fmt.Fprintln(k.out, "there are no workers")
		}
		return
	}
	for _, line := range k.table(r.Status, time.Now(), 0) {
		fmt.Fprintln(k.out, line)
	}
}

// The columns of the table. A narrow terminal shows fewer of them.
const (
	colName = iota
	colState
	colPID
	colUptime
	colRestarts
	colReason
	numCols
)

var heads = [numCols]string{"NAME", "STATE", "PID", "UPTIME", "RESTARTS", "REASON"}

// leastReason is how much of a reason is worth showing.
const leastReason = 12

// table is one line for each instance below a head. late is how long ago the
// supervisor told of them.
func (k *client) table(list []control.Status, now time.Time, late time.Duration) []string {
	rows := [][]string{slices.Clone(heads[:])}
	for i := range list {
		rows = append(rows, row(&list[i], now, late))
	}
	if w := k.screen.width; w > 0 {
		narrow(rows, w)
	}
	lines := align(rows, []int{colPID, colUptime, colRestarts})
	for i, line := range lines {
		line = cut(line, k.screen.width)
		if k.screen.color {
			line = colored(line, rows[i], i == 0)
		}
		lines[i] = line
	}
	return lines
}

// narrow empties columns, the least important ones first, until rows fit.
func narrow(rows [][]string, width int) {
	drop := func(col int) {
		for _, r := range rows {
			r[col] = ""
		}
	}
	if width-lengthTo(rows, colReason) < leastReason {
		drop(colRestarts)
	}
	if width-lengthTo(rows, colReason) < leastReason {
		drop(colReason)
	}
	for _, col := range []int{colUptime, colPID} {
		if lengthTo(rows, colReason) > width+2 {
			drop(col)
		}
	}
}

func row(s *control.Status, now time.Time, late time.Duration) []string {
	r := make([]string, numCols)
	r[colName], r[colState], r[colPID], r[colUptime] = s.Name, s.State, "-", "-"
	if s.PID != 0 {
		r[colPID] = strconv.Itoa(s.PID)
		r[colUptime] = uptime(time.Duration(s.UptimeS*float64(time.Second)) + late)
	}
	r[colRestarts] = strconv.Itoa(s.Restarts)
	r[colReason] = reason(s, now)
	return r
}

// reason is what is worth knowing of an instance's past and future.
func reason(s *control.Status, now time.Time) string {
	var parts []string
	say := func(text string, since time.Time) {
		if text == "" {
			return
		}
		if !since.IsZero() {
			text += ", " + ago(now.Sub(since)) + " ago"
		}
		parts = append(parts, text)
	}
	switch s.State {
	case "RUNNING":
		if !s.Ready {
			say("not ready", time.Time{})
		}
		if s.LastExit != nil {
			say("last exit: "+exitText(s.LastExit), s.LastExit.Time)
		}
	case "STARTING", "STOPPING", "BACKOFF":
		say(s.Reason, time.Time{})
	default:
		say(s.Reason, s.Since)
	}
	if s.NextTry != nil {
		say("next try in "+shortly(s.NextTry.Sub(now)), time.Time{})
	}
	if !s.InFile {
		say("not in the file", time.Time{})
	}
	return strings.Join(parts, "; ")
}

func exitText(e *control.Exit) string {
	switch {
	case e.Error != "":
		return e.Error
	case e.Core:
		return "killed by " + e.Signal + ", core dumped"
	case e.Signal != "":
		return "killed by " + e.Signal
	}
	return "exited with status " + strconv.Itoa(e.Code)
}

// uptime is d as 3d 06:53:57.
func uptime(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = strconv.FormatInt(days, 10) + "d " + text
	}
	return text
}

// ago is d in its largest unit.
func ago(d time.Duration) string {
	switch s := int64(max(d, 0) / time.Second); {
	case s < 60:
		return strconv.FormatInt(s, 10) + "s"
	case s < 3600:
		return strconv.FormatInt(s/60, 10) + "m"
	case s < 86400:
		return strconv.FormatInt(s/3600, 10) + "h"
	default:
		return strconv.FormatInt(s/86400, 10) + "d"
	}
}

// shortly is a delay for people.
func shortly(d time.Duration) string {
	d = max(d, 0)
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// columns are the widths of all columns but the last.
func columns(rows [][]string) []int {
	var widths []int
	for _, r := range rows {
		for i, cell := range r[:len(r)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// lengthTo is where the column col begins.
func lengthTo(rows [][]string, col int) (n int) {
	for _, w := range columns(rows)[:col] {
		if w > 0 {
			n += w + 2
		}
	}
	return n
}

// align makes lines of rows, the columns in right flush right. A column with
// nothing in it is left out.
func align(rows [][]string, right []int) []string {
	widths := columns(rows)
	lines := make([]string, len(rows))
	var b strings.Builder
	for i, r := range rows {
		b.Reset()
		for j, cell := range r[:len(r)-1] {
			if widths[j] == 0 {
				continue
			}
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if slices.Contains(right, j) {
				b.WriteString(pad + cell + "  ")
			} else {
				b.WriteString(cell + pad + "  ")
			}
		}
		b.WriteString(r[len(r)-1])
		lines[i] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// cut shortens line to width; 0 is no limit.
func cut(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}

var stateColors = map[string]string{
	"RUNNING": "32", "STARTING": "36", "STOPPING": "36", "BACKOFF": "33", "FATAL": "31", "EXITED": "35", "STOPPED": "2",
}

// colored colours the state in a line, or the whole head.
func colored(line string, cells []string, head bool) string {
	if head {
		return "\x1b[1m" + line + "\x1b[0m"
	}
	state := cells[colState]
	before, after, ok := strings.Cut(line, " "+state)
	if code := stateColors[state]; ok && code != "" {
		return before + " \x1b[" + code + "m" + state + "\x1b[0m" + after
	}
	return line
}
