package syslog

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxDatagram = 16 << 10 // of a message; the rest of a longer one is cut off
	maxLine     = 48 << 10 // of a line, with what was escaped in it
	maxName     = 64
	maxID       = 64
	noPriority  = 1<<3 | 5 // user.notice, as RFC 3164, 4.3.3 has it
)

// A Message is what a program or the kernel said. All text in it is valid UTF-8
// without control characters but tabs.
type Message struct {
	Kernel   bool // it was read from the kernel's buffer, where programs may write, too
	PID      int  // who sent it, in our PID namespace; 0: not known, or in another one
	UID      uint32
	Group    uint64 // the sender's control group (v2), by its number, which is its folder's inode; 0: not known
	Facility int
	Severity int    // 0 emergency to 7 debug
	Name     string // of the program, as it says; may be empty
	ID       string // what it puts into brackets behind: mostly its pid; may be empty
	Text     string
}

var levels = [8]string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}

// Level is the severity as a word.
func (m *Message) Level() string { return levels[m.Severity&7] }

// Line is the message as people know it: name[pid]: text.
func (m *Message) Line() string {
	var b strings.Builder
	id := m.ID
	if id == "" && m.PID > 0 {
		id = strconv.Itoa(m.PID)
	}
	b.WriteString(m.Name)
	if id != "" && (m.Name != "" || !m.Kernel) {
		b.WriteString("[" + id + "]")
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(m.Text)
	return b.String()
}

// parse reads a datagram, as RFC 3164 or RFC 5424 or as nothing at all.
func parse(b []byte) *Message {
	m := &Message{}
	b = bytes.TrimRight(b, "\x00\r\n ")
	pri, rest := priority(b)
	m.Facility, m.Severity = pri>>3, pri&7
	if m.modern(rest) {
		return m
	}
	rest, stamped := cutStamp(rest)
	m.classic(rest, stamped)
	return m
}

// priority takes <PRI> off. Without a good one the message is user.notice.
func priority(b []byte) (pri int, rest []byte) {
	if len(b) == 0 || b[0] != '<' {
		return noPriority, b
	}
	n := 0
	for i := 1; i < len(b) && i <= 4; i++ {
		if b[i] == '>' && i > 1 {
			if n > 191 { // local7.debug is the last one
				break
			}
			return n, b[i+1:]
		}
		if b[i] < '0' || b[i] > '9' {
			break
		}
		n = n*10 + int(b[i]-'0')
	}
	return noPriority, b
}

// modern reads what RFC 5424 has behind <PRI>: 1 TIME HOST APP PROCID MSGID SD MSG.
func (m *Message) modern(b []byte) bool {
	b, ok := bytes.CutPrefix(b, []byte("1 "))
	if !ok {
		return false
	}
	var f [5][]byte
	for i := range f {
		j := bytes.IndexByte(b, ' ')
		if j <= 0 || j > 255 {
			return false
		}
		f[i], b = b[:j], b[j+1:]
	}
	if string(f[0]) != "-" && !isISO(f[0]) {
		return false
	}
	data, msg, ok := cutData(b)
	if !ok {
		data, msg = nil, b
	}
	nilled := func(b []byte) []byte {
		if string(b) == "-" {
			return nil
		}
		return b
	}
	m.Name = clean(nilled(f[2]), maxName)
	m.ID = clean(nilled(f[3]), maxID)
	var text []byte
	for _, part := range [][]byte{nilled(f[4]), data, bytes.TrimPrefix(msg, []byte("\ufeff"))} {
		if len(part) > 0 {
			if len(text) > 0 {
				text = append(text, ' ')
			}
			text = append(text, part...)
		}
	}
	m.Text = clean(text, maxLine)
	return true
}

// cutData takes the structured data off. timeQuality, which logger(1) adds to
// every message, is left out.
func cutData(b []byte) (data, rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '-' && (len(b) == 1 || b[1] == ' ') {
		return nil, bytes.TrimPrefix(b[1:], []byte(" ")), true
	}
	for len(b) > 0 && b[0] == '[' {
		quoted, end := false, -1
		for i := 1; i < len(b) && end < 0; i++ {
			switch {
			case quoted && b[i] == '\\':
				i++
			case b[i] == '"':
				quoted = !quoted
			case !quoted && b[i] == ']':
				end = i + 1
			}
		}
		if end < 0 {
			return nil, nil, false
		}
		if !bytes.HasPrefix(b, []byte("[timeQuality ")) {
			data = append(data, b[:end]...)
		}
		b, ok = b[end:], true
	}
	if !ok || len(b) > 0 && b[0] != ' ' {
		return nil, nil, false
	}
	return data, bytes.TrimPrefix(b, []byte(" ")), true
}

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// cutStamp takes the time off: that of RFC 3164, perhaps with a fraction, or
// that of RFC 3339.
func cutStamp(b []byte) (rest []byte, ok bool) {
	if i := bytes.IndexByte(b, ' '); i > 0 && isISO(b[:i]) {
		return b[i+1:], true
	}
	const like = "Mmm dd hh:mm:ss"
	if len(b) <= len(like) {
		return b, false
	}
	if i := strings.Index(months, string(b[:3])); i < 0 || i%3 != 0 {
		return b, false
	}
	for i := 3; i < len(like); i++ {
		switch c := b[i]; like[i] {
		case ' ', ':':
			if c != like[i] {
				return b, false
			}
		default:
			if (c < '0' || c > '9') && (i != 4 || c != ' ') {
				return b, false
			}
		}
	}
	rest = b[len(like):]
	if rest[0] == '.' {
		n := 1
		for n < len(rest) && n < 10 && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		rest = rest[n:]
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return b, false
	}
	return rest[1:], true
}

// isISO reports whether b begins as 2026-11-22T18:00:00 does and has an end like
// one.
func isISO(b []byte) bool {
	const like = "dddd-dd-ddTdd:dd:dd"
	if len(b) < len(like) || len(b) > 40 {
		return false
	}
	for i, c := range b {
		switch {
		case i >= len(like):
			if (c < '0' || c > '9') && strings.IndexByte(".+-:Z", c) < 0 {
				return false
			}
		case like[i] == 'd':
			if c < '0' || c > '9' {
				return false
			}
		case c != like[i]:
			return false
		}
	}
	return true
}

// classic reads what RFC 3164 has behind the time: TAG[PID]: TEXT. On /dev/log no
// host stands before it; some put one there all the same.
func (m *Message) classic(b []byte, stamped bool) {
	name, id, text, ok := cutTag(b)
	if !ok && stamped {
		if i := bytes.IndexByte(b, ' '); i > 0 && i <= 255 {
			name, id, text, ok = cutTag(b[i+1:])
		}
	}
	if !ok {
		name, id, text = nil, nil, b
	}
	m.Name, m.ID, m.Text = clean(name, maxName), clean(id, maxID), clean(text, maxLine)
}

// cutTag takes "name: " or "name[id]: " off.
func cutTag(b []byte) (name, id, text []byte, ok bool) {
	i := bytes.IndexAny(b[:min(len(b), maxName+1)], ":[ \t")
	if i <= 0 {
		return nil, nil, nil, false
	}
	name, b = b[:i], b[i:]
	if b[0] == '[' {
		j := bytes.IndexAny(b[:min(len(b), maxID+2)], "] ")
		if j < 2 || b[j] != ']' {
			return nil, nil, nil, false
		}
		id, b = b[1:j], b[j+1:]
	}
	if len(b) == 0 || b[0] != ':' || len(b) > 1 && b[1] != ' ' && b[1] != '\t' {
		return nil, nil, nil, false
	}
	return name, id, bytes.TrimPrefix(b[1:], []byte(" ")), true
}

// clean makes one line of b that is valid UTF-8 and moves no cursor, of at most
// limit bytes: what is not, and what is beyond, is shown.
func clean(b []byte, limit int) string {
	const hex = "0123456789abcdef"
	var out strings.Builder
	out.Grow(min(len(b), limit))
	for i := 0; i < len(b); {
		if out.Len() > limit-len(`\xff\xff\xff\xff...`) && len(b)-i > limit-out.Len() {
			out.WriteString("...")
			break
		}
		r, n := rune(b[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(b[i:])
		}
		if r >= ' ' && r < 0x7f || r == '\t' || r > 0x9f && (r != utf8.RuneError || n > 1) {
			out.Write(b[i : i+n])
		} else {
			for _, c := range b[i : i+n] {
				out.WriteString(`\x`)
				out.WriteByte(hex[c>>4])
				out.WriteByte(hex[c&15])
			}
		}
		i += n
	}
	return out.String()
}
