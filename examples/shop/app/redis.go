package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

var errProtocol = errors.New("redis answered what was not asked")

// redis is a server that speaks RESP. Each command has a connection of its own:
// on loopback that is cheap, and a restarted server needs no care.
type redis struct{ address string }

// do sends a command and returns its answer as text, "" for none. A server that
// is just being started is tried again for some seconds.
func (r redis) do(args ...string) (string, error) {
	var conn net.Conn
	var err error
	for range 50 {
		if conn, err = net.DialTimeout("tcp", r.address, time.Second); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return "", err
	}
	return answer(bufio.NewReader(conn))
}

// answer reads one simple, number, bulk or error answer.
func answer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return "", errProtocol
	}
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '-':
		return "", errors.New(line[1:])
	case '$', '*':
		size, err := strconv.Atoi(line[1:])
		if err != nil || line[0] == '*' && size > 0 || size > 1<<20 {
			return "", errProtocol
		}
		if size < 0 || line[0] == '*' {
			return "", nil
		}
		body := make([]byte, size+2)
		_, err = io.ReadFull(r, body)
		return string(body[:size]), err
	}
	return "", errProtocol
}
