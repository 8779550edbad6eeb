package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Bounds of an HTTP request's head. Its body is bounded by MaxRequest.
const (
	maxHeadLine = 8 << 10
	maxHead     = 32 << 10
	maxHeaders  = 64
)

// An httpError is a request that is refused with this status.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &httpError{status, fmt.Sprintf(format, args...)}
}

var statusText = map[int]string{
	200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	408: "Request Timeout", 409: "Conflict", 411: "Length Required", 413: "Content Too Large",
	414: "URI Too Long", 417: "Expectation Failed", 431: "Request Header Fields Too Large",
	500: "Internal Server Error", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}

// A httpHead is the part of a request's head that matters here.
type httpHead struct {
	method, path, query string
	old                 bool // HTTP/1.0: no chunks
	length              int64
	expect              bool // 100-continue
}

// readHead reads a request's first line and headers (RFC 9112). Its errors are
// *httpError, or those of in.
func readHead(in *bufio.Reader) (h httpHead, err error) {
	left := maxHead
	next := func(status int) (string, error) {
		line, err := readLine(in, min(maxHeadLine, left))
		if errors.Is(err, errTooLong) {
			return "", refuse(status, "line of the head over %d bytes", maxHeadLine)
		}
		if err != nil {
			return "", err
		}
		left -= len(line)
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		if bytes.ContainsAny(line, "\x00\r") {
			return "", refuse(400, "control character in the head")
		}
		return string(line), nil
	}
	line, err := next(414)
	if err != nil {
		return h, err
	}
	method, rest, ok := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isToken(method) || !strings.HasPrefix(proto, "HTTP/") {
		return h, refuse(400, "neither a JSON object nor an HTTP request: %s", quote(line))
	}
	if proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return h, refuse(505, "speak HTTP/1.1, not %s", quote(proto))
	}
	if !strings.HasPrefix(target, "/") {
		return h, refuse(400, "bad request target %s", quote(target))
	}
	h.method, h.old = method, proto == "HTTP/1.0"
	h.path, h.query, _ = strings.Cut(target, "?")
	h.length = -1
	for n := 0; ; n++ {
		line, err := next(431)
		if err != nil {
			return h, err
		}
		if line == "" {
			break
		}
		if n == maxHeaders || left < 0 {
			return h, refuse(431, "over %d headers or %d bytes of them", maxHeaders, maxHead)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return h, refuse(400, "bad header %s", quote(line))
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-length":
			v, err := strconv.ParseUint(value, 10, 63)
			if err != nil || value[0] == '+' || h.length >= 0 && h.length != int64(v) {
				return h, refuse(400, "bad content-length %s", quote(value))
			}
			h.length = int64(v)
		case "transfer-encoding":
			return h, refuse(411, "send a content-length, not transfer-encoding %s", quote(value))
		case "expect":
			if !strings.EqualFold(value, "100-continue") {
				return h, refuse(417, "cannot expect %s", quote(value))
			}
			h.expect = !h.old
		}
	}
	h.length = max(h.length, 0)
	return h, nil
}

// isToken reports whether s is a token of RFC 9110, short enough for a name.
func isToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlnum(rune(c)) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}

// route finds the request that a method, path and query mean. The body comes
// later and is under the query.
func route(h httpHead) (*Request, error) {
	name, ok := strings.CutPrefix(h.path, "/v1/")
	if !ok {
		return nil, refuse(404, "no path %s; there is /v1/VERB", quote(h.path))
	}
	v := Lookup(name)
	if v == nil || v.Local {
		return nil, refuse(404, "%s", unknownVerb(name))
	}
	req := &Request{Verb: name}
	canonical(req)
	if h.method != "GET" && h.method != "POST" {
		return nil, refuse(405, "%s: no method %s", v.Name, h.method)
	}
	return req, nil
}

// applyQuery puts the parameters of a query, or of a form, into req.
func applyQuery(req *Request, query string) error {
	v := Lookup(req.Verb)
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		k, val, _ := strings.Cut(pair, "=")
		key, ok := unescape(k)
		value, ok2 := unescape(val)
		if !ok || !ok2 {
			return refuse(400, "bad escape in %s", quote(pair))
		}
		switch key {
		case "name":
			req.Names = append(req.Names, value)
			continue
		case "n":
			key = "lines"
		case "no_wait":
			key = "no-wait"
		case "signal":
			req.Signal = value
			continue
		case "to":
			req.To = value
			continue
		case "count":
			req.Counts = append(req.Counts, value)
			continue
		case "command":
			req.Command = value
			continue
		}
		if key == "follow" && v.Name == "status" {
			key = "watch"
		}
		f := v.flag(key)
		if f == nil || f.set == nil {
			return refuse(400, "%s: unknown parameter %s", v.Name, quote(key))
		}
		if err := f.set(req, value); err != nil || value == "" && f.Value != "" {
			return refuse(400, "%s: bad value %s of %s", v.Name, quote(value), key)
		}
	}
	if len(req.Counts) == 1 {
		req.Count, req.Counts = req.Counts[0], nil
	}
	return nil
}

// unescape resolves + and %XX.
func unescape(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil || s[i+1] == '+' {
				return "", false
			}
			b = append(b, byte(n))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

// readHTTP reads a whole request; goOn is called when the client waits for a
// word before it sends the body.
func readHTTP(in *bufio.Reader, maxBody int, goOn func() error) (req *Request, h httpHead, err error) {
	if h, err = readHead(in); err != nil {
		return nil, h, err
	}
	if req, err = route(h); err != nil {
		return nil, h, err
	}
	if h.length > int64(maxBody) {
		return nil, h, refuse(413, "body of over %d bytes", maxBody)
	}
	if h.length > 0 {
		if h.expect {
			if err := goOn(); err != nil {
				return nil, h, err
			}
		}
		body := make([]byte, h.length)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, h, err
		}
		verb := req.Verb
		if b := bytes.TrimSpace(body); len(b) > 0 && b[0] == '{' {
			if err := json.Unmarshal(b, req); err != nil {
				return nil, h, refuse(400, "read body: %v", err)
			}
			if v := canonical(req); v == nil || v.Name != verb {
				return nil, h, refuse(400, "the body's verb is %s, the path's %s", quote(req.Verb), verb)
			}
		} else if err := applyQuery(req, string(b)); err != nil {
			return nil, h, err
		}
	}
	if err := applyQuery(req, h.query); err != nil {
		return nil, h, err
	}
	if want := method(req); h.method != want {
		return nil, h, refuse(405, "%s wants %s, not %s", req.Verb, want, h.method)
	}
	if err := req.Validate(); err != nil {
		return nil, h, refuse(400, "%v", err)
	}
	return req, h, nil
}

// method is POST for what changes something, else GET.
func method(r *Request) string {
	if r.mutates() {
		return "POST"
	}
	return "GET"
}

// serveHTTP answers one request and leaves the connection to be closed.
func (c *conn) serveHTTP() {
	req, h, err := readHTTP(c.in, c.s.opt.MaxRequest, func() error {
		return c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	})
	out := &httpSink{c: c, old: h.old, verb: h.path}
	var bad *httpError
	switch {
	case err == nil:
		out.verb, out.lines = req.Verb, req.Verb == "events" || req.Verb == "logs" && !req.Clear
		c.answer(req, out)
	case errors.As(err, &bad):
		if bad.status == 405 {
			out.allow = "GET, POST"
			if v := Lookup(strings.TrimPrefix(h.path, "/v1/")); v != nil && v.Mutates {
				out.allow = "POST"
			}
		}
		out.whole(bad.status, &Reply{Done: true, Code: ExitUsage, Error: bad.text})
	case errors.Is(err, os.ErrDeadlineExceeded) && c.s.ctx.Err() == nil:
		out.whole(408, &Reply{Done: true, Code: ExitUsage, Error: fmt.Sprintf("no whole request within %v", c.s.opt.IdleTimeout)})
	}
}

// A httpSink writes a reply as an HTTP response: one JSON value, or, once a line
// comes that is not the last, and always for logs and events, a stream of them.
type httpSink struct {
	c      *conn
	verb   string
	old    bool
	allow  string
	lines  bool // the answer is a stream even when nothing comes
	stream bool // the head of a stream is out
}

// A trouble is a line of a stream that is neither an event nor a log line.
type trouble struct {
	Missed uint64 `json:"missed,omitempty"`
	Code   int    `json:"code,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (o *httpSink) send(r *Reply) error {
	failed := r.Code != ExitDone || r.Error != ""
	if !o.stream {
		if r.Done && (failed || !o.lines) {
			status := httpStatus(r.Code)
			if o.verb == "status" && status == 409 { // it says that something does not run, which is an answer
				status = 200
			}
			if o.verb == "status" && status == 200 {
				return o.whole(status, list(r.Status))
			}
			return o.whole(status, r)
		}
		if !r.Done || o.lines {
			if err := o.begin(); err != nil {
				return err
			}
		}
	}
	var b []byte
	if r.Missed > 0 {
		b = AppendJSON(b, trouble{Missed: r.Missed})
	}
	switch {
	case r.Event != nil:
		b = AppendJSON(b, r.Event)
	case r.Log != nil:
		b = AppendJSON(b, r.Log)
	case failed:
		b = AppendJSON(b, trouble{Code: r.Code, Error: r.Error})
	case r.Done && o.lines || r.Missed > 0:
	case o.verb == "status":
		b = AppendJSON(b, list(r.Status))
	default:
		b = AppendJSON(b, r)
	}
	return o.chunk(b, r.Done)
}

func list(s []Status) []Status {
	if s == nil {
		s = []Status{}
	}
	return s
}

// begin writes the head of a stream.
func (o *httpSink) begin() error {
	o.stream = true
	te := "Transfer-Encoding: chunked\r\n"
	if o.old {
		te = ""
	}
	return o.c.write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" + te + "Connection: close\r\n\r\n"))
}

// chunk writes one chunk, and the end of the stream if it is the last.
func (o *httpSink) chunk(b []byte, last bool) error {
	if o.old {
		return o.c.write(b)
	}
	var out []byte
	if len(b) > 0 {
		out = strconv.AppendInt(out, int64(len(b)), 16)
		out = slices.Concat(out, []byte("\r\n"), b, []byte("\r\n"))
	}
	if last {
		out = append(out, "0\r\n\r\n"...)
	}
	if len(out) == 0 {
		return nil
	}
	return o.c.write(out)
}

// whole writes a response that is one JSON value.
func (o *httpSink) whole(status int, v any) error {
	body := AppendJSON(nil, v)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", status, statusText[status], len(body))
	if o.allow != "" {
		fmt.Fprintf(&b, "Allow: %s\r\n", o.allow)
	}
	b.WriteString("Connection: close\r\n\r\n")
	b.Write(body)
	return o.c.write(b.Bytes())
}

// httpStatus is the status that says what an exit status does.
func httpStatus(code int) int {
	switch code {
	case ExitDone, ExitChanges:
		return 200
	case ExitUsage:
		return 400
	case ExitDenied:
		return 403
	case ExitNoName:
		return 404
	case ExitNotRunning:
		return 409
	case ExitTimeout:
		return 504
	}
	return 500
}
