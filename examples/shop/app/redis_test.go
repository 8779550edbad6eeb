package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestAnswer(t *testing.T) {
	for _, test := range []struct {
		in, want, err string
	}{
		{"+OK\r\n", "OK", ""},
		{":42\r\n", "42", ""},
		{"$7\r\norder 1\r\n", "order 1", ""},
		{"$-1\r\n", "", ""},
		{"*-1\r\n", "", ""},
		{"-LOADING wait\r\n", "", "LOADING wait"},
		{"$99999999\r\n", "", errProtocol.Error()},
		{"*2\r\n", "", errProtocol.Error()},
		{"?\r\n", "", errProtocol.Error()},
		{"\r\n", "", errProtocol.Error()},
		{"$7\r\nord", "", "unexpected EOF"},
		{"", "", "EOF"},
	} {
		got, err := answer(bufio.NewReader(strings.NewReader(test.in)))
		if message(err) != test.err || err == nil && got != test.want {
			t.Errorf("answer(%q) = %q, %v, want %q, %q", test.in, got, err, test.want, test.err)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
