package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// web answers as a supervisor would, by the names that it is asked for.
func web(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
	name := strings.Join(req.Names, " ")
	switch codes := map[string]int{"denied": ExitDenied, "unknown": ExitNoName, "broken": ExitFailed, "down": ExitNotRunning, "late": ExitTimeout}; {
	case codes[name] != 0:
		send(&Reply{Done: true, Code: codes[name], Error: name, Status: []Status{}})
	case req.Verb == "status" && req.Follow:
		send(&Reply{Status: []Status{{Name: "a:b.1"}}})
		send(&Reply{})
		send(&Reply{Done: true})
	case req.Verb == "status":
		if name == "shop:web" {
			send(&Reply{Done: true, Status: []Status{{Name: "shop:web.1", State: "RUNNING"}}})
			return
		}
		send(&Reply{Done: true})
	case req.Verb == "events" && name == "":
		send(&Reply{Event: &Event{Seq: req.After + 1}})
		send(&Reply{Missed: 7, Event: &Event{Seq: req.After + 9}})
		if req.Follow {
			<-ctx.Done()
			return
		}
		send(&Reply{Done: true})
	case req.Verb == "events" && name == "none":
		send(&Reply{Done: true})
	case req.Verb == "events":
		send(&Reply{Event: &Event{Seq: 1}})
		send(&Reply{Done: true, Code: ExitFailed, Error: "broke off"})
	case req.Verb == "logs" && !req.Clear:
		send(&Reply{Log: &LogLine{Name: "a:b.1", Stream: "stdout", Line: fmt.Sprintf("%d %s <&>", req.Lines, req.Stream)}})
		send(&Reply{Done: true})
	default:
		b, _ := json.Marshal(req)
		send(&Reply{Done: true, Message: string(b)})
	}
}

// httpClient is Go's own, as an independent reader of what the server writes.
func httpClient(t *testing.T, path string) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestHTTP(t *testing.T) {
	s := serve(t, ServerOptions{Handler: web})
	hc := httpClient(t, s.Path())
	const null = `"time":"0001-01-01T00:00:00Z"`
	event := func(seq int) string {
		return fmt.Sprintf(`{"seq":%d,%s,"kind":"","name":"","run":0,"from":"","to":"","reason":""}`, seq, null)
	}
	for _, tt := range []struct {
		method, target, body string
		status               int
		want                 string // exactly, or a part of it when it begins with …
	}{
		{"GET", "/v1/status", "", 200, "[]\n"},
		{"GET", "/v1/list", "", 200, "[]\n"},
		{"GET", "/v1/status?name=shop:web", "", 200, `…[{"name":"shop:web.1",`},
		{"GET", "/v1/status?name=shop%3Aweb&", "", 200, `…[{"name":"shop:web.1",`},
		{"GET", "/v1/status?name=down", "", 200, "[]\n"},
		{"GET", "/v1/status?name=unknown", "", 404, `{"done":true,"code":4,"error":"unknown"}` + "\n"},
		{"GET", "/v1/status?follow=1", "", 200, `…"a:b.1"`},
		{"GET", "/v1/events?after=41", "", 200, event(42) + "\n" + `{"missed":7}` + "\n" + event(50) + "\n"},
		{"GET", "/v1/events?name=none", "", 200, ""},
		{"GET", "/v1/events?name=x", "", 200, event(1) + "\n" + `{"code":1,"error":"broke off"}` + "\n"},
		{"GET", "/v1/events?name=unknown", "", 404, `{"done":true,"code":4,"error":"unknown"}` + "\n"},
		{"GET", "/v1/logs?n=5&stream=stderr", "", 200, `{` + null + `,"name":"a:b.1","stream":"stdout","line":"5 stderr <&>"}` + "\n"},
		{"GET", "/v1/logs?n=all", "", 200, `…-1 `},
		{"POST", "/v1/start?name=a&name=b&no_wait=1", "", 200, `…{\"verb\":\"start\",\"names\":[\"a\",\"b\"],\"no_wait\":true}`},
		{"POST", "/v1/start", `{"names":["a"],"timeout":"5s","new":1}`, 200, `…{\"verb\":\"start\",\"names\":[\"a\"],\"timeout\":\"5s\"}`},
		{"POST", "/v1/start", `{"verb":"start","names":["a"]}`, 200, `…\"a\"`},
		{"POST", "/v1/start", `name=a+&name=b%2B`, 400, `…bad name`},
		{"POST", "/v1/start?name=b", `name=a`, 200, `…[\"a\",\"b\"]`},
		{"POST", "/v1/scale?name=a&count=%2B1", "", 200, `…\"count\":\"+1\"`},
		{"POST", "/v1/scale?name=a&count=1&name=b&count=2", "", 200, `…\"counts\":[\"1\",\"2\"]`},
		{"POST", "/v1/signal?name=a&signal=HUP&to=tree", "", 200, `…\"to\":\"tree\"`},
		{"POST", "/v1/signal?name=a&signal=HUP&group", "", 200, `…\"to\":\"group\"`},
		{"POST", "/v1/add?name=a:b&command=sleep%205", "", 200, `…\"command\":\"sleep 5\"`},
		{"POST", "/v1/clear?name=a", "", 200, `…\"clear\":true`},
		{"POST", "/v1/update", "", 200, `…{\"verb\":\"reload\"}`},
		{"POST", "/v1/shutdown", "", 200, `…shutdown`},
		{"GET", "/v1/help", "", 200, `…start`},
		{"POST", "/v1/start?name=denied", "", 403, `…denied`},
		{"POST", "/v1/start?name=unknown", "", 404, `…unknown`},
		{"POST", "/v1/signal?name=down&signal=HUP", "", 409, `…down`},
		{"POST", "/v1/start?name=broken", "", 500, `…broken`},
		{"POST", "/v1/start?name=late", "", 504, `…late`},
		{"GET", "/v1/start?name=a", "", 405, `…wants POST`},
		{"GET", "/v1/clear?name=a", "", 405, `…wants POST`},
		{"GET", "/v1/logs?clear=1", "", 405, `…wants POST`},
		{"POST", "/v1/status", "", 405, `…wants GET`},
		{"DELETE", "/v1/status", "", 405, `…no method DELETE`},
		{"GET", "/", "", 404, `…/v1/VERB`},
		{"GET", "/v1/", "", 404, `…unknown verb`},
		{"GET", "/v1/frob", "", 404, `…unknown verb`},
		{"GET", "/v1/check", "", 404, `…unknown verb`},
		{"GET", "/v1/status/x", "", 404, `…unknown verb`},
		{"POST", "/v1/start", "", 400, `…needs NAME`},
		{"POST", "/v1/start", `{"names":`, 400, `…read body`},
		{"POST", "/v1/start", `{"verb":"stop","names":["a"]}`, 400, `…the path's start`},
		{"POST", "/v1/start?frob=1", "", 400, `…unknown parameter`},
		{"POST", "/v1/start?timeout=", "", 400, `…bad value`},
		{"GET", "/v1/status?name=%zz", "", 400, `…bad escape`},
		{"GET", "/v1/status?name=%0a", "", 400, `…bad name`},
		{"GET", "/v1/status?json=1", "", 400, `…unknown parameter`},
		{"POST", "/v1/start?name=" + strings.Repeat("x", 9000), "", 414, `…over 8192 bytes`},
		{"POST", "/v1/start", strings.Repeat("x", 65537), 413, `…over 65536 bytes`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://x"+tt.target, strings.NewReader(tt.body))
		if err != nil {
			req, _ = http.NewRequest(tt.method, "http://x/", strings.NewReader(tt.body))
			req.URL.Opaque = tt.target
		}
		res, err := hc.Do(req)
		if err != nil {
			t.Errorf("%s %.60s: %v", tt.method, tt.target, err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		ok := string(body) == tt.want
		if part, cut := strings.CutPrefix(tt.want, "…"); cut {
			ok = bytes.Contains(body, []byte(part))
		}
		if res.StatusCode != tt.status || !ok || err != nil {
			t.Errorf("%s %.60s %q = %d %q, %v, want %d %q", tt.method, tt.target, tt.body, res.StatusCode, body, err, tt.status, tt.want)
		}
		if tt.status == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", tt.method, tt.target)
		}
	}
}

// What a well-behaved client never sends.
func TestHTTPOddities(t *testing.T) {
	s := serve(t, ServerOptions{Handler: web})
	for _, tt := range []struct{ in, want string }{
		{"GET /v1/status HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		{"GET /v1/status HTTP/1.0\n\n", "HTTP/1.1 200 OK\r\n"},
		{"GET /v1/status HTTP/1.1\r\nX: " + strings.Repeat("x", 8000) + "\r\n\r\n", " 200 "},
		{"GET /v1/status HTTP/1.1\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", " 431 "},
		{"GET /v1/status HTTP/1.1\r\n" + strings.Repeat("X: x\r\n", 64) + "\r\n", " 200 "},
		{"GET /v1/status HTTP/1.1\r\n" + strings.Repeat("X: x\r\n", 65) + "\r\n", " 431 "},
		{"GET /v1/status HTTP/1.1\r\n" + strings.Repeat("X: "+strings.Repeat("x", 4000)+"\r\n", 9) + "\r\n", " 431 "},
		{strings.Repeat("x", 100000), " 414 "},
		{"status\n", " 400 "},
		{"GET /v1/status\r\n\r\n", " 400 "},
		{"GET  /v1/status HTTP/1.1\r\n\r\n", " 400 "},
		{"GET http://x/v1/status HTTP/1.1\r\n\r\n", " 400 "},
		{"G\x00T /v1/status HTTP/1.1\r\n\r\n", " 400 "},
		{"GET /v1/status HTTP/1.1\r\nA\r\n\r\n", " 400 "},
		{"GET /v1/status HTTP/1.1\r\nA : b\r\n\r\n", " 400 "},
		{"GET /v1/status HTTP/1.1\r\nA: b\r\n c\r\n\r\n", " 400 "},
		{"GET /v1/status HTTP/1.1\r\nA: b\rc\r\n\r\n", " 400 "},
		{"GET /v1/status HTTP/2.0\r\n\r\n", " 505 "},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", " 505 "},
		{"\x16\x03\x01\x02\x00\x01\x00\n", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", " 411 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\nx", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n", " 200 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: -1\r\n\r\n", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: +0\r\n\r\n", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: \r\n\r\n", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", " 400 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: 9223372036854775807\r\nExpect: 100-continue\r\n\r\n", " 413 "},
		{"POST /v1/reload HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"},
		{"POST /v1/reload HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", "HTTP/1.1 200 OK\r\n"},
		{"POST /v1/reload HTTP/1.1\r\nExpect: a miracle\r\n\r\n", " 417 "},
	} {
		out := talk(t, s.Path(), tt.in)
		if line := out[:min(len(out), 60)]; !strings.Contains(line, tt.want) {
			t.Errorf("%.80q answers %q, want %q", tt.in, line, tt.want)
		}
	}
	// To an old client a stream comes without chunks and ends with the connection.
	out := talk(t, s.Path(), "GET /v1/events HTTP/1.0\r\n\r\n")
	if strings.Contains(out, "chunked") || !strings.Contains(out, "\r\n\r\n{\"seq\":1,") || !strings.HasSuffix(out, "}\n") {
		t.Errorf("HTTP/1.0 stream = %q", out)
	}
}

func TestHTTPFollow(t *testing.T) {
	left := make(chan struct{})
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, p Peer, req *Request, send func(*Reply) error) {
		web(ctx, p, req, send)
		close(left)
	}})
	res, err := httpClient(t, s.Path()).Get("http://x/v1/events?follow=1&after=10")
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(res.Body).ReadString('\n') // before the stream ends
	if err != nil || !strings.HasPrefix(line, `{"seq":11,`) {
		t.Errorf("first line = %q, %v", line, err)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("Content-Type = %q", ct)
	}
	res.Body.Close()
	<-left
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skipf("needs curl: %v", err)
	}
	s := serve(t, ServerOptions{Handler: web})
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"http://x/v1/status"}, "[]\n"},
		{[]string{"-XPOST", "http://x/v1/start?name=shop:web"}, `{"done":true,"code":0,"message":"{\"verb\":\"start\",\"names\":[\"shop:web\"]}"}` + "\n"},
		{[]string{"-d", "name=shop:web", "http://x/v1/start"}, `{"done":true,"code":0,"message":"{\"verb\":\"start\",\"names\":[\"shop:web\"]}"}` + "\n"},
		{[]string{"-d", `{"names":["shop:web"]}`, "http://x/v1/start"}, `{"done":true,"code":0,"message":"{\"verb\":\"start\",\"names\":[\"shop:web\"]}"}` + "\n"},
		{[]string{"-N", "http://x/v1/events?name=x"}, `{"seq":1,"time":"0001-01-01T00:00:00Z","kind":"","name":"","run":0,"from":"","to":"","reason":""}` + "\n" + `{"code":1,"error":"broke off"}` + "\n"},
		{[]string{"-H", "Expect: 100-continue", "-d", "name=down", "-d", "signal=HUP", "-o", "/dev/null", "-w", "%{http_code}", "http://x/v1/signal"}, "409"},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "--unix-socket", s.Path()}, tt.args...)...).CombinedOutput()
		if err != nil || string(out) != tt.want {
			t.Errorf("curl %q = %q, %v, want %q", tt.args, out, err, tt.want)
		}
	}
}

func FuzzHTTP(f *testing.F) {
	for _, s := range []string{
		"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/start?name=a&no_wait=1 HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"names\":[\"b\"]}",
		"POST /v1/scale HTTP/1.0\nContent-Length: 18\nExpect: 100-continue\n\nname=a%3ab&count=2",
		"GET /v1/events?follow=1&after=7 HTTP/1.1\r\nAccept: */*\r\n\r\n",
		"GET /v1/logs?n=all&stream=stderr&self=true HTTP/1.1\r\n\r\n",
		"POST /v1/clear?name=%2a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\n:\r\n\r\n", "\x16\x03\x01",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		req, h, err := readHTTP(bufio.NewReader(bytes.NewReader(in)), 1000, func() error { return nil })
		var bad *httpError
		switch {
		case errors.As(err, &bad):
			if statusText[bad.status] == "" || len(bad.text) > 2000 {
				t.Errorf("%q: status %d, text of %d bytes", in, bad.status, len(bad.text))
			}
		case err != nil:
		case req.Validate() != nil || Lookup(req.Verb) == nil:
			t.Errorf("%q: %+v is no request", in, req)
		case method(req) != h.method:
			t.Errorf("%q: %s for %+v", in, h.method, req)
		}
	})
}
