package control

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const docs = "../docs/control.md"

// docServer answers as the supervisor of the documentation's examples.
func docServer(_ context.Context, _ Peer, req *Request, send func(*Reply) error) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	last := &Reply{Done: true}
	switch req.Verb {
	case "status":
		last.Status = []Status{{Name: "shop:web.1", App: "shop", Worker: "web", Instance: 1, State: "RUNNING", Ready: true, PID: 42, Run: 7,
			Since: at, UptimeS: 90, Restarts: 6, Command: "./web", Autostart: true, InFile: true,
			LastExit: &Exit{Code: 137, Signal: "SIGKILL", Time: at, Run: 6, PID: 41}}}
	case "events":
		send(&Reply{Event: &Event{Seq: req.After + 1, Time: at, Kind: "state", Name: "shop:web.1", Run: 7, From: "STARTING", To: "RUNNING", Reason: "started", PID: 42}})
	default:
		for _, n := range req.Names {
			if n == "shop:web" {
				last.Results = append(last.Results, Result{Name: n + ".1", OK: true, State: "RUNNING", PID: 43})
			} else {
				last.Code = ExitNoName
				last.Results = append(last.Results, Result{Name: n, Message: "no such name", Code: ExitNoName})
			}
		}
	}
	send(last)
}

// Each example of the documentation does what stands there.
func TestDocs(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("needs curl: %v", err)
	}
	log := newLog()
	reqs := make(chan Request, 10)
	s := serve(t, ServerOptions{Path: filepath.Join(privateDir(t), "pazinit.sock"), Log: log.add, Handler: func(ctx context.Context, p Peer, req *Request, send func(*Reply) error) {
		if p.FIFO {
			reqs <- *req
		}
		docServer(ctx, p, req, send)
	}})
	conn := raw(t, s.Path())
	in := bufio.NewReader(conn)
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range strings.Split(string(b), "\n```")[1:] {
		kind, text, _ := strings.Cut(block, "\n")
		switch kind {
		case "json":
			for _, line := range strings.Split(text, "\n") {
				if ask, ok := strings.CutPrefix(line, "> "); ok {
					io.WriteString(conn, ask+"\n")
					n++
				} else if want, ok := strings.CutPrefix(line, "< "); ok {
					if got, err := in.ReadString('\n'); err != nil || got != want+"\n" {
						t.Errorf("answer = %s, %v, want %s", got, err, want)
					}
				}
			}
		case "sh":
			for _, example := range strings.Split("\n"+text, "\n$ ")[1:] {
				command, want, _ := strings.Cut(example+"\n", "\n")
				cmd := exec.Command("sh", "-c", command)
				cmd.Env = append(os.Environ(), "S="+s.Path())
				out, err := cmd.CombinedOutput()
				if strings.TrimSpace(string(out)) != strings.TrimSpace(want) || err != nil {
					t.Errorf("%s = %s, %v, want %s", command, out, err, want)
				}
				n++
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d examples found", n)
	}
	for _, want := range []string{"restart [shop:web]", "scale [shop:web shop:db]"} {
		if r := <-reqs; fmt.Sprint(r.Verb, " ", r.Names) != want {
			t.Errorf("by the FIFO: %s %v, want %s", r.Verb, r.Names, want)
		}
	}
}

// The documentation's table of verbs is the code's.
func TestDocsVerbs(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| verb | HTTP | does | options |\n| --- | --- | --- | --- |\n")
	for _, v := range Verbs() {
		name := "`" + v.Synopsis() + "`"
		if len(v.Aliases) > 0 {
			name += " (also `" + strings.Join(v.Aliases, "`, `") + "`)"
		}
		how := method(&Request{Verb: v.Name})
		if v.Local {
			how = "client only"
		}
		var flags []string
		for _, f := range v.Flags {
			flags = append(flags, "`"+strings.ReplaceAll(f.Synopsis(), "|", "\\|")+"`")
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", name, how, v.Short, strings.Join(flags, " "))
	}
	table.WriteString("\n`maintail` is `logs --self`, `clear` is `logs --clear` (POST).\n")
	begin, end := []byte("-update -->\n"), []byte("<!-- end -->")
	i, j := bytes.Index(b, begin)+len(begin), bytes.Index(b, end)
	if i < len(begin) || j < i {
		t.Fatal("the table's marks are not there")
	}
	if got := string(b[i:j]); got != table.String() {
		if *update {
			b = append(append(append([]byte{}, b[:i]...), table.String()...), b[j:]...)
			if err := os.WriteFile(docs, b, 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("table of verbs = %s, want %s", got, table.String())
	}
	for code := ExitDone; code <= ExitTimeout; code++ {
		if !strings.Contains(string(b), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("exit status %d is not documented", code)
		}
	}
}

// Each field on the wire is documented.
func TestDocsFields(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"status", "event", "logline", "request"} {
		golden, err := os.ReadFile(filepath.Join("testdata", "json", file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(golden), "\n") {
			if name, _, ok := strings.Cut(strings.TrimSpace(part), `":`); ok && !strings.Contains(string(b), "`"+name[1:]+"`") {
				t.Errorf("field %s of %s is not documented", name[1:], file)
			}
		}
	}
}
