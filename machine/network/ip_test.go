package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseIP(t *testing.T) {
	addr := netip.MustParseAddr
	static := func(name, p string, gw ...string) Interface {
		in := Interface{Name: name, Addresses: []netip.Prefix{netip.MustParsePrefix(p)}}
		for _, g := range gw {
			in.Gateways = append(in.Gateways, addr(g))
		}
		return in
	}
	any := Interface{Name: Any, DHCP: true}
	for _, c := range []struct {
		values string // with spaces between
		want   Config
	}{
		{"dhcp", Config{Interfaces: []Interface{any}}},
		{"on", Config{Interfaces: []Interface{any}}},
		{"any", Config{Interfaces: []Interface{any}}},
		{"off", Config{}},
		{"none", Config{}},
		{":::::eth0:dhcp", Config{Interfaces: []Interface{{Name: "eth0", DHCP: true}}}},
		{":::::eth0", Config{Interfaces: []Interface{{Name: "eth0", DHCP: true}}}},
		{":::::eth0:off", Config{}},
		{"::::vm7::dhcp", Config{Interfaces: []Interface{any}, Hostname: "vm7"}},
		{"192.0.2.7::192.0.2.1:255.255.255.0::eth0:off", Config{Interfaces: []Interface{static("eth0", "192.0.2.7/24", "192.0.2.1")}}},
		{"192.0.2.7:192.0.2.9:192.0.2.1:24:vm7.example.org:eth0:none:192.0.2.53:192.0.2.54:192.0.2.123", Config{
			Interfaces: []Interface{static("eth0", "192.0.2.7/24", "192.0.2.1")}, Hostname: "vm7.example.org",
			DNS: []netip.Addr{addr("192.0.2.53"), addr("192.0.2.54")},
		}},
		{"10.0.0.7::::::", Config{Interfaces: []Interface{static(Any, "10.0.0.7/8")}}},
		{"172.16.0.7:", Config{Interfaces: []Interface{static(Any, "172.16.0.7/16")}}},
		{"192.0.2.7:0.0.0.0:0.0.0.0:255.255.255.255::eth0:dhcp", Config{Interfaces: []Interface{static("eth0", "192.0.2.7/32")}}},
		{":::::eth0:dhcp :::::eth1:dhcp", Config{Interfaces: []Interface{{Name: "eth0", DHCP: true}, {Name: "eth1", DHCP: true}}}},
		{":::::eth0:dhcp 192.0.2.7:::24::eth0", Config{Interfaces: []Interface{static("eth0", "192.0.2.7/24")}}},
		{":::::eth0:dhcp off", Config{}},
	} {
		got, err := ParseIP(strings.Fields(c.values))
		if err != nil || !reflect.DeepEqual(norm(got), norm(c.want)) {
			t.Errorf("ParseIP(%q) = %+v, %v; want %+v", c.values, got, err, c.want)
		}
		if err := got.Check(); err != nil {
			t.Errorf("ParseIP(%q) is no configuration: %v", c.values, err)
		}
	}
	if got, err := ParseIP([]string{""}); err != nil || len(got.Interfaces) != 0 {
		t.Errorf("ParseIP(\"\") = %+v, %v", got, err)
	}
	for value, want := range map[string]string{
		"[2001:db8::7]::[2001:db8::1]:64::eth0:off": "IPv6",
		"bootp":                         "bootp is not spoken",
		"yes":                           `"yes" is none of`,
		"dhcp,1,abc":                    "client identifier",
		"192.0.2.0:::24":                "no host's address",
		"192.0.2.255:::24":              "no host's address",
		"224.0.0.1:::24":                "client: 224.0.0.1",
		"127.0.0.1:::8":                 "client: 127.0.0.1",
		"192.0.2.7:::255.0.255.0":       "mask",
		"192.0.2.7:::33":                "mask",
		"192.0.2.7:::0.0.0.0":           "mask",
		"192.0.2:::24":                  "client",
		"192.0.2.7::x:24":               "gateway",
		"192.0.2.7:x::24":               "server",
		":::::lo:dhcp":                  `"lo"`,
		":::::a/b:dhcp":                 `"a/b"`,
		":::::sixteencharacter:dhcp":    "no device",
		"::::-a::dhcp":                  "no host name",
		"::::a\nb::dhcp":                "no host name",
		":::::eth0:dhcp:256.0.0.1":      "dns0",
		":::::eth0:dhcp::224.0.0.1":     "dns1",
		":::::eth0:dhcp:::x":            "ntp0",
		":::::eth0:dhcp:::::":           "12 parts",
		strings.Repeat("1", 2000) + ":": "longer",
	} {
		if got, err := ParseIP([]string{"dhcp", value}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ip=") {
			t.Errorf("ParseIP(%q) = %+v, %v; want an error with %q", value, got, err, want)
		}
	}
}

// norm makes empty lists nil.
func norm(c Config) Config {
	if len(c.Interfaces) == 0 {
		c.Interfaces = nil
	}
	return c
}

func FuzzParseIP(f *testing.F) {
	for _, s := range []string{"dhcp", "192.0.2.7:192.0.2.9:192.0.2.1:24:vm7.example.org:eth0:none:192.0.2.53:192.0.2.54:192.0.2.123", "[::1]", ":::::eth0"} {
		f.Add(s, "dhcp")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		c, err := ParseIP([]string{a, b})
		if err != nil {
			if len(err.Error()) > 4000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if err := c.Check(); err != nil {
			t.Errorf("ParseIP(%q, %q) is no configuration: %v", a, b, err)
		}
	})
}

func TestConfigGoesThroughJSON(t *testing.T) {
	yes := true
	want := Config{
		Interfaces: []Interface{{
			Name: "eth0", DHCP: true, Addresses: prefixes("192.0.2.7/24", "2001:db8::7/64"), Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			Routes: []Route{{To: netip.MustParsePrefix("10.0.0.0/8")}, {To: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.0.2.2"), Metric: 7}},
			MTU:    1400, IPv6RA: &yes, Optional: true,
		}, {Name: "v", VLAN: 7, Parent: "eth0"}, {Name: "br", Bridge: []string{"eth1"}, IsBridge: true}},
		DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, Search: []string{"example.org"}, Hostname: "h",
	}
	if err := want.Check(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s\n= %+v, %v\nwant %+v", b, got, err, want)
	}
}

func TestCheck(t *testing.T) {
	addr := netip.MustParseAddr
	for want, in := range map[string]Interface{
		"no name of a device":           {Name: "a b"},
		"lo has addresses":              {Name: "lo", DHCP: true},
		"needs a name":                  {Name: Any, IsBridge: true},
		"0.0.0.0/8 is no host's":        {Name: "e", Addresses: prefixes("0.0.0.0/8")},
		"192.0.2.255/24 is no host":     {Name: "e", Addresses: prefixes("192.0.2.255/24")},
		"224.0.0.1 is no gateway":       {Name: "e", Gateways: []netip.Addr{addr("224.0.0.1")}},
		"a second gateway":              {Name: "e", Gateways: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}},
		"10.0.0.1/8 is no network":      {Name: "e", Routes: []Route{{To: netip.MustParsePrefix("10.0.0.1/8")}}},
		"2001:db8::1 is no gateway to":  {Name: "e", Routes: []Route{{To: netip.MustParsePrefix("10.0.0.0/8"), Via: addr("2001:db8::1")}}},
		"mtu 60":                        {Name: "e", MTU: 60},
		"needs a number from 1 to 4094": {Name: "e", VLAN: 4095, Parent: "p"},
		"and a parent":                  {Name: "e", VLAN: 1},
		"both a VLAN and a bridge":      {Name: "e", VLAN: 1, Parent: "p", IsBridge: true},
		`"e" is no device that it can`:  {Name: "e", Bridge: []string{"e"}},
		"more than 256":                 {Name: "e", Routes: slices.Repeat([]Route{{To: netip.MustParsePrefix("10.0.0.0/8")}}, 257)},
	} {
		c := Config{Interfaces: []Interface{in}}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%+v) = %v, want %q", in, err, want)
		}
	}
	for want, c := range map[string]Config{
		"is there twice":  {Interfaces: []Interface{{Name: "e"}, {Name: "e"}}},
		"no address of a": {DNS: []netip.Addr{addr("0.0.0.0")}},
		"is no domain":    {Search: []string{"a\nb"}},
		"is no host name": {Hostname: "a b"},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%+v) = %v, want %q", c, err, want)
		}
	}
}

func TestBroadcastOf(t *testing.T) {
	for p, want := range map[string]string{"192.0.2.7/24": "192.0.2.255", "10.1.2.3/8": "10.255.255.255", "192.0.2.7/29": "192.0.2.7", "192.0.2.8/29": "192.0.2.15"} {
		if got := fmt.Sprint(broadcastOf(netip.MustParsePrefix(p))); got != want {
			t.Errorf("broadcastOf(%s) = %s, want %s", p, got, want)
		}
	}
}
