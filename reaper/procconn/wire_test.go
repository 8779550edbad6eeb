package procconn

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"
)

// message builds one by include/uapi/linux/netlink.h, connector.h and cn_proc.h.
func message(what, cpu, seq uint32, at uint64, data ...uint32) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, sizeWhole) // nlmsg_len
	b = ne.AppendUint16(b, 3)            // NLMSG_DONE
	b = ne.AppendUint16(b, 0)
	b = ne.AppendUint32(b, seq)
	b = ne.AppendUint32(b, 0)
	for _, w := range []uint32{1, 1, seq, 0} { // idx, val, seq, ack
		b = ne.AppendUint32(b, w)
	}
	b = ne.AppendUint16(b, 40) // len
	b = ne.AppendUint16(b, 0)
	b = ne.AppendUint32(b, what)
	b = ne.AppendUint32(b, cpu)
	b = ne.AppendUint64(b, at)
	data = append(slices.Clone(data), make([]uint32, 6)...)[:6]
	for _, w := range data {
		b = ne.AppendUint32(b, w)
	}
	return b
}

func name(s string) [sizeComm]byte {
	var c [sizeComm]byte
	copy(c[:], s)
	return c
}

func words(s string) (w []uint32) {
	c := name(s)
	for i := 0; i < sizeComm; i += 4 {
		w = append(w, binary.NativeEndian.Uint32(c[i:]))
	}
	return w
}

// TestDecode: every kind of event, as the header lays it out.
func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		want event
	}{
		{"ack", message(0, 1, 2, 3, 1), event{what: 0, cpu: 1, seq: 2, at: 3}},
		{"fork", message(1, 1, 2, 3, 10, 11, 12, 13), event{what: whatFork, cpu: 1, seq: 2, at: 3, parent: 11, pid: 12, tgid: 13}},
		{"exec", message(2, 1, 2, 3, 12, 13), event{what: whatExec, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13}},
		{"uid", message(4, 1, 2, 3, 12, 13, 1000, 1001), event{what: whatUID, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13, uid: 1000}},
		{"gid", message(0x40, 1, 2, 3, 12, 13, 7, 7), event{what: 0x40, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13}},
		{"sid", message(0x80, 1, 2, 3, 12, 13), event{what: 0x80, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13}},
		{"ptrace", message(0x100, 1, 2, 3, 12, 13, 14, 15), event{what: 0x100, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13}},
		{"comm", message(0x200, 1, 2, 3, append([]uint32{12, 13}, words("gc-worker")...)...), event{what: whatComm, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13, comm: name("gc-worker")}},
		{"coredump", message(0x40000000, 1, 2, 3, 12, 13, 10, 11), event{what: whatCoredump, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13, parent: 11}},
		{"exit", message(0x80000000, 1, 2, 3, 12, 13, 0x8b, 17, 10, 11), event{what: whatExit, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13, code: 0x8b, parent: 11}},
		{"unknown", message(0x400, 1, 2, 3, 12, 13, 14), event{what: 0x400, cpu: 1, seq: 2, at: 3, pid: 12, tgid: 13}},
	} {
		got, rest, err := decode(tt.b)
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %d bytes left, %v; want %+v", tt.name, got, len(rest), err, tt.want)
		}
		for n := range tt.b { // cut off anywhere
			if _, _, err := decode(tt.b[:n]); err == nil {
				t.Errorf("%s: %d bytes are enough", tt.name, n)
			}
		}
	}
}

// TestDecodeMore: several messages at once, and what is none of ours between them.
func TestDecodeMore(t *testing.T) {
	foreign := message(1, 0, 0, 0)
	binary.NativeEndian.PutUint32(foreign[sizeHeader+4:], 9)
	odd := append(message(1, 0, 1, 0, 1, 1, 2, 2), 0xff) // a byte more, and three that align
	binary.NativeEndian.PutUint32(odd, uint32(len(odd)))
	odd = append(odd, 0, 0, 0)
	b := slices.Concat(odd, foreign, message(2, 0, 2, 0, 2, 2))
	var seqs []uint32
	for len(b) > 0 {
		e, rest, err := decode(b)
		if errors.Is(err, errForeign) {
			e.seq = 100
		} else if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, e.seq)
		b = rest
	}
	if !slices.Equal(seqs, []uint32{1, 100, 2}) {
		t.Errorf("%v", seqs)
	}
	long := message(1, 0, 0, 0)
	binary.NativeEndian.PutUint32(long, 1<<31)
	if _, rest, err := decode(long); !errors.Is(err, errShort) || len(rest) > 0 {
		t.Errorf("%v, %d left", err, len(rest))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message(whatExit, 1, 2, 3, 12, 13, 0x8b, 17, 10, 11))
	f.Add(slices.Concat(message(whatFork, 0, 1, 1, 1, 1, 2, 2), message(whatExec, 0, 2, 2, 2, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, rest, err := decode(b)
			if len(rest) >= len(b) {
				t.Fatalf("%d bytes left of %d: %v", len(rest), len(b), err)
			}
			b = rest
		}
	})
}

// TestRequest: what the kernel is sent, by the headers.
func TestRequest(t *testing.T) {
	ne := binary.NativeEndian
	for _, filter := range []uint32{0, wanted} {
		b := request(opListen, filter)
		data := 4
		if filter != 0 {
			data = 8
		}
		if len(b) != sizeHeader+sizeCn+data || int(ne.Uint32(b)) != len(b) || ne.Uint16(b[4:]) != 3 {
			t.Errorf("header of % x", b)
		}
		if m := b[sizeHeader:]; ne.Uint32(m) != 1 || ne.Uint32(m[4:]) != 1 || int(ne.Uint16(m[16:])) != data || ne.Uint32(m[20:]) != 1 ||
			filter != 0 && ne.Uint32(m[24:]) != filter {
			t.Errorf("message of % x", b)
		}
	}
}

func TestParseStat(t *testing.T) {
	const tail = " 1 2 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 4 0 12345 99999 1 18446744073709551615 1 2"
	for _, tt := range []struct {
		line string
		want stat
		ok   bool
	}{
		{"42 (web) S 7" + tail, stat{42, 7, 'S', 4, 12345 * userTick, "web"}, true},
		{"42 (a) R 1 (b) Z 7" + tail, stat{42, 7, 'Z', 4, 12345 * userTick, "a) R 1 (b"}, true},
		{"42 (new\nline) S 0" + tail, stat{42, 0, 'S', 4, 12345 * userTick, "new\nline"}, true},
		{"42 () S 7" + tail, stat{42, 7, 'S', 4, 12345 * userTick, ""}, true},
		{"0 (web) S 7" + tail, stat{}, false},
		{"42 (web) S 7 1 2", stat{}, false},
		{"42 web S", stat{}, false},
		{"(web) S", stat{}, false},
		{"", stat{}, false},
	} {
		got, err := parseStat([]byte(tt.line))
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: %+v, %v", tt.line, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (web) S 7 1 2 3 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 4 0 12345 99999"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && s.pid <= 0 {
			t.Errorf("%+v", s)
		}
	})
}
