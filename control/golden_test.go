package control

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew; fields may only be added")

// The JSON contract: testdata/json holds each type in full and at its emptiest.
func TestGoldenJSON(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	next := at.Add(time.Minute)
	exit := &Exit{Code: 137, Signal: "SIGKILL", Core: true, Error: "execute /bin/x: no such file or directory", Time: at, Run: 6, PID: 41}
	status := Status{Name: "shop:web.1", App: "shop", Worker: "web", Instance: 1, State: "RUNNING", Ready: true, PID: 42, Run: 7,
		Since: at, UptimeS: 1.5, Restarts: 6, Command: "./web <in >out & \u00e9", LastExit: exit, Reason: "started", NextTry: &next,
		Failures: 2, Autostart: true, Port: 5000, InFile: true}
	event := Event{Seq: 9, Time: at, Kind: "state", Name: "shop:web.1", Run: 7, From: "STARTING", To: "RUNNING", Reason: "started",
		PID: 42, Exit: exit, Delay: 0.1, Try: 2}
	line := LogLine{Time: at, Name: "shop:web.1", Stream: "stdout", Line: "hello", Bytes: []byte{0xff}, Partial: true, Level: "warning"}
	result := Result{Name: "shop:web.1", OK: true, State: "RUNNING", PID: 42, Message: "started", Code: 1}
	change := Change{Op: "change", Name: "shop:web", Keys: []string{"command_line"}, Message: "restart 2 instances"}
	request := Request{Verb: "start", Names: []string{"shop:web"}, NoWait: true, Timeout: "10s", Signal: "HUP", To: "tree", Count: "4",
		Counts: []string{"4"}, Command: "./web", Force: true, Lines: 10, Since: "10m", Follow: true, Stream: "stdout", Self: true, Clear: true, After: 8}
	reply := Reply{Done: true, Code: 1, Error: "e", Message: "m", Results: []Result{result}, Status: []Status{status},
		Plan: &Plan{Changes: []Change{change}}, Event: &event, Log: &line, Missed: 3, Version: "1", Place: "PID 1 of a container", Panics: 3, Orphans: 2, PID: 1}
	for name, v := range map[string]any{
		"status": []Status{status, {}}, "event": []Event{event, {}}, "logline": []LogLine{line, {}},
		"request": []Request{request, {}}, "reply": []Reply{reply, {}}, "plan": []Plan{{Changes: []Change{change}}, {Changes: []Change{}}},
	} {
		full := reflect.ValueOf(v).Index(0)
		for i := range full.NumField() {
			if full.Field(i).IsZero() {
				t.Errorf("%s: field %s is not in the golden file", name, full.Type().Field(i).Name)
			}
		}
		var got bytes.Buffer
		if err := json.Indent(&got, AppendJSON(nil, v), "", "  "); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "json", name+".json")
		if *update {
			os.MkdirAll(filepath.Dir(file), 0o755)
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s = %s, want %s, %v", name, got.Bytes(), want, err)
		}
	}
}

// What a client of another age reads and writes is understood.
func TestFieldsOfAnotherAge(t *testing.T) {
	req, err := parseJSON([]byte(`{"verb":"status","added_later":[{}],"names":["a"]}`))
	if err != nil || req.Verb != "status" || len(req.Names) != 1 {
		t.Errorf("request with a field of a newer client = %+v, %v", req, err)
	}
	var r Reply
	if err := json.Unmarshal([]byte(`{"done":true,"code":3,"added_later":1,"status":[{"name":"a:b.1","added_later":{}}]}`), &r); err != nil || r.Code != 3 || r.Status[0].Name != "a:b.1" {
		t.Errorf("reply with a field of a newer server = %+v, %v", r, err)
	}
}
