package syslog

import (
	"bytes"
	"strconv"
)

// maxRecord is PRINTK_MESSAGE_MAX of kernel/printk/internal.h; a shorter read is
// EINVAL.
const maxRecord = 8 << 10

// parseRecord reads one record of /dev/kmsg: PRI,SEQ,TIME,FLAGS[,...];TEXT and
// then lines that name the device, which are left out.
func parseRecord(b []byte) (m *Message, seq uint64, ok bool) {
	head, text, ok := bytes.Cut(b, []byte(";"))
	pri, rest, ok1 := bytes.Cut(head, []byte(","))
	num, _, ok2 := bytes.Cut(rest, []byte(","))
	if !ok || !ok1 || !ok2 {
		return nil, 0, false
	}
	p, err := strconv.ParseUint(string(pri), 10, 16)
	if err != nil {
		return nil, 0, false
	}
	if seq, err = strconv.ParseUint(string(num), 10, 64); err != nil {
		return nil, 0, false
	}
	m = &Message{Kernel: true, Facility: int(p >> 3), Severity: int(p & 7)}
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	text = unescape(text)
	if m.Facility == 0 {
		m.Name, m.Text = "kernel", clean(text, maxLine)
		return m, seq, true
	}
	text, stamped := cutStamp(text)
	m.classic(bytes.TrimRight(text, "\x00\r\n "), stamped)
	return m, seq, true
}

// unescape undoes what the kernel did to bytes that are not printable ASCII
// (msg_add_ext_text of kernel/printk/printk.c).
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
			if v, err := strconv.ParseUint(string(b[i+2:i+4]), 16, 8); err == nil {
				out = append(out, byte(v))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}
