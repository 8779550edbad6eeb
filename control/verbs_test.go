package control

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestParseLine(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Request
	}{
		{"status", Request{Verb: "status"}},
		{" list  shop:web ", Request{Verb: "status", Names: []string{"shop:web"}}},
		{"start all", Request{Verb: "start", Names: []string{"all"}}},
		{"start shop:* 'web' \"db\"\tx\\*", Request{Verb: "start", Names: []string{"shop:*", "web", "db", "x*"}}},
		{"stop --signal=INT --timeout 5s web --no-wait", Request{Verb: "stop", Names: []string{"web"}, Signal: "INT", Timeout: "5s", NoWait: true}},
		{"stop --no-wait=false -- -odd", Request{Verb: "stop", Names: []string{"-odd"}}},
		{"signal HUP shop:web shop:db", Request{Verb: "signal", Names: []string{"shop:web", "shop:db"}, Signal: "HUP"}},
		{"signal --group 9 web", Request{Verb: "signal", Names: []string{"web"}, Signal: "9", To: "group"}},
		{"signal RTMIN+2 web --tree", Request{Verb: "signal", Names: []string{"web"}, Signal: "RTMIN+2", To: "tree"}},
		{"scale shop:web=4", Request{Verb: "scale", Names: []string{"shop:web"}, Count: "4"}},
		{"scale web 4", Request{Verb: "scale", Names: []string{"web"}, Count: "4"}},
		{"scale web -1", Request{Verb: "scale", Names: []string{"web"}, Count: "-1"}},
		{"scale web=+1 db=+1", Request{Verb: "scale", Names: []string{"web", "db"}, Count: "+1"}},
		{"scale web=2 db=cpus", Request{Verb: "scale", Names: []string{"web", "db"}, Counts: []string{"2", "cpus"}}},
		{"add shop:job sleep 5", Request{Verb: "add", Names: []string{"shop:job"}, Command: "sleep 5"}},
		{"add shop:job  sh -c 'a  b' | x \"$Y\"  ", Request{Verb: "add", Names: []string{"shop:job"}, Command: `sh -c 'a  b' | x "$Y"`}},
		{"add --count 2 shop:job -- --odd -c x", Request{Verb: "add", Names: []string{"shop:job"}, Count: "2", Command: "--odd -c x"}},
		{"add shop:job 'sleep 5 | cat'", Request{Verb: "add", Names: []string{"shop:job"}, Command: "sleep 5 | cat"}},
		{"remove --force shop:job", Request{Verb: "remove", Names: []string{"shop:job"}, Force: true}},
		{"tail -fn10 web", Request{}}, // an error: switches are not joined
		{"tail -f -n10 web", Request{Verb: "logs", Names: []string{"web"}, Follow: true, Lines: 10}},
		{"logs --lines all --since 10m --stream stderr", Request{Verb: "logs", Lines: -1, Since: "10m", Stream: "stderr"}},
		{"maintail", Request{Verb: "logs", Self: true}},
		{"clear web", Request{Verb: "logs", Clear: true, Names: []string{"web"}}},
		{"events -f --after 7", Request{Verb: "events", Follow: true, After: 7}},
		{"status -w", Request{Verb: "status", Follow: true}},
		{"reread", Request{Verb: "plan"}},
		{"update", Request{Verb: "reload"}},
		{"help start", Request{Verb: "help", Names: []string{"start"}}},

		{"", Request{}},
		{"frob", Request{}},
		{"start", Request{}},
		{"start ''", Request{}},
		{"start --frob x", Request{}},
		{"start x --timeout", Request{}},
		{"start x --timeout=0s", Request{}},
		{"start x --timeout=5", Request{}},
		{"start -n 3 x", Request{}},
		{"start 'x", Request{}},
		{"start x\\", Request{}},
		{"start a\x1b[2Jb", Request{}},
		{"start \xff", Request{}},
		{"stop x --no-wait=perhaps", Request{}},
		{"signal HUP", Request{}},
		{"signal FROB web", Request{}},
		{"signal 0 web", Request{}},
		{"signal 65 web", Request{}},
		{"scale web", Request{}},
		{"scale web=x", Request{}},
		{"scale web=", Request{}},
		{"scale =4", Request{}},
		{"scale web=99999999999999999999", Request{}},
		{"add shop:job", Request{}},
		{"add shop:job ''", Request{}},
		{"reload web", Request{}},
		{"help a b", Request{}},
		{"logs -n -2", Request{}},
		{"logs -n x", Request{}},
		{"logs --stream out", Request{}},
		{"events --after -1", Request{}},
		{"check", Request{}},
		{"status --json", Request{}},
		{"status -h", Request{}},
	} {
		got, err := ParseLine(tt.line)
		if tt.want.Verb == "" {
			if !errors.As(err, new(*UsageError)) {
				t.Errorf("ParseLine(%q) = %+v, %v, want a UsageError", tt.line, got, err)
			}
			continue
		}
		if len(got.namesOrNil()) == 0 && got != nil {
			got.Names = nil
		}
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("ParseLine(%q) = %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
	}
}

func (r *Request) namesOrNil() []string {
	if r == nil {
		return nil
	}
	return r.Names
}

func TestParseArgs(t *testing.T) {
	req, local, err := ParseArgs([]string{"add", "--socket", "/s", "shop:job", "--", "echo", "it's", "a b", "--json"})
	if err != nil || req.Command != `echo 'it'\''s' 'a b' --json` || local["socket"] != "/s" || len(local) != 1 {
		t.Errorf("ParseArgs(add …) = %+v, %v, %v", req, local, err)
	}
	req, local, err = ParseArgs([]string{"status", "-c", "f.yaml", "--json", "-w", "web"})
	if _, ok := local["json"]; err != nil || !ok || local["config"] != "f.yaml" || !req.Follow {
		t.Errorf("ParseArgs(status …) = %+v, %v, %v", req, local, err)
	}
	req, local, err = ParseArgs([]string{"start", "-h"}) // no complaint about the names
	if _, ok := local["help"]; err != nil || !ok || req.Verb != "start" {
		t.Errorf("ParseArgs(start -h) = %+v, %v, %v", req, local, err)
	}
	if _, _, err := ParseArgs([]string{"status", "--json=x"}); err == nil {
		t.Error("ParseArgs(status --json=x) = nil, want an error")
	}
}

// Whatever the table says can be asked for, named and explained.
func TestVerbs(t *testing.T) {
	want := "status start stop restart signal scale add remove logs events plan reload pid reopen shutdown poweroff reboot halt kexec version help check doctor initramfs completion"
	var names []string
	seen := make(map[string]bool)
	for _, v := range Verbs() {
		names = append(names, v.Name)
		for _, n := range append([]string{v.Name}, v.Aliases...) {
			if seen[n] {
				t.Errorf("%s stands twice in the table", n)
			}
			seen[n] = true
			if got := Lookup(n); got == nil || got.Name != v.Name {
				t.Errorf("Lookup(%s) = %v, want %s", n, got, v.Name)
			}
		}
		if v.Short == "" || v.Long == "" || unicode.IsUpper(rune(v.Short[0])) || strings.HasSuffix(v.Short, ".") {
			t.Errorf("%s: texts %q, %q", v.Name, v.Short, v.Long)
		}
		short := make(map[string]bool)
		for _, f := range append(append([]Flag{}, v.Flags...), Global...) {
			if f.Help == "" || f.Local == (f.set != nil) {
				t.Errorf("%s --%s: no help, or local and not", v.Name, f.Name)
			}
			if short[f.Name] || f.Short != "" && short[f.Short] {
				t.Errorf("%s --%s stands twice in the table", v.Name, f.Name)
			}
			short[f.Name], short[f.Short] = true, true
			if !strings.Contains(v.Help(), "--"+f.Name) && v.flag(f.Name) != nil && f.set != nil {
				t.Errorf("the help of %s does not tell of --%s", v.Name, f.Name)
			}
		}
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("verbs = %s, want %s", got, want)
	}
	for alias, want := range map[string]string{"list": "status", "log": "logs", "tail": "logs", "reread": "plan", "update": "reload", "maintail": "logs", "clear": "logs"} {
		if v := Lookup(alias); v == nil || v.Name != want {
			t.Errorf("Lookup(%s) = %v, want %s", alias, v, want)
		}
	}
	for word, want := range map[string]string{"stauts": "status", "strat": "start", "lst": "status", "frobnicate": "", "restrat": "restart", "": "", strings.Repeat("x", 1<<20): ""} {
		if got := Suggest(word); got != want {
			t.Errorf("Suggest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{"HUP": 1, "SIGHUP": 1, "hup": 1, "1": 1, "64": 64, "KILL": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "WINCH": 28,
		"": 0, "0": 0, "65": 0, "-1": 0, "+": 0, "RTMIN+": 0, "RTMIN+31": 0, "RTMIN-1": 0, "RTMAX+1": 0, "SIG": 0, "SIGSIGHUP": 0} {
		got, err := ParseSignal(s)
		if int(got) != want || (err == nil) != (want != 0) {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"status", "scale web=4 db=-1", `add a:b -- sh -c 'x "y"' | z`, "signal --group HUP x", "logs -fn 10", "tail -n10 --since=1h a", "stop 'a", "\\", "--", "clear -- -x", "scale a -1", "help x", `{"verb":"status"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		req, err := ParseLine(line)
		if err != nil {
			if !errors.As(err, new(*UsageError)) || len(err.Error()) > 2000 {
				t.Errorf("ParseLine(%q) = %v, want a UsageError that one can read", line, err)
			}
			return
		}
		// What the client takes, the server does, after a way over the wire too.
		if err := req.Validate(); err != nil {
			t.Errorf("ParseLine(%q) = %+v, Validate() = %v", line, req, err)
		}
		again, err := parseJSON(AppendJSON(nil, req))
		if err != nil {
			t.Fatalf("ParseLine(%q): %v", line, err)
		}
		if err := again.Validate(); err != nil {
			t.Errorf("ParseLine(%q) over the wire = %+v, Validate() = %v", line, again, err)
		}
		if again.AccessKey() != req.AccessKey() || again.mutates() != req.mutates() {
			t.Errorf("ParseLine(%q) over the wire = %+v, was %+v", line, again, req)
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{`{"verb":"status"}`, `{"verb":"shutdown"}`, `{"verb":"scale","names":["a","b"],"counts":["1","+2"]}`, `{"Verb":"clear","names":null}`, `{"verb":"logs","lines":-1,"after":18446744073709551615}`, `{"verb":"add","names":["a:b"],"command":"x"}`, `{`, `[]`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		req, err := parseJSON(line)
		if err != nil {
			return
		}
		if req.Validate() == nil {
			v := Lookup(req.Verb)
			if v == nil || v.Name != req.Verb {
				t.Errorf("%s: verb %q is not in the table", line, req.Verb)
			}
			for i := range req.Names {
				if req.Verb == "scale" && !isCount(req.CountOf(i)) {
					t.Errorf("%s: count %q", line, req.CountOf(i))
				}
			}
			if _, err := json.Marshal(req); err != nil {
				t.Error(err)
			}
		}
	})
}
