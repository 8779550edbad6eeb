package network

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxNameservers is how many the C libraries ask (resolv.conf(5), MAXNS).
const maxNameservers = 3

// resolvConf is the file's text; "" if there is nothing to say.
func resolvConf(dns []netip.Addr, search []string) string {
	if len(dns) == 0 && len(search) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("# written by pazinit\n")
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for i, a := range dns {
		if i == maxNameservers {
			b.WriteString("# programs ask no more than the first three\n")
		}
		b.WriteString("nameserver " + a.String() + "\n")
	}
	return b.String()
}

// writeResolvConf replaces path, or what path is a symbolic link to, by text. A
// file that can only be written in place (a mount) is.
func writeResolvConf(path, text string) error {
	target, err := follow(path)
	if err != nil {
		return err
	}
	if old, err := readAtMost(target, 64<<10); err == nil && string(old) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	err = replaceFile(target, []byte(text))
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		if inPlace := overwrite(target, text); inPlace == nil {
			return nil
		}
	}
	return err
}

func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return fmt.Errorf("%s is no file", path)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// follow is where path leads, whether or not something is there.
func follow(path string) (string, error) {
	for range 40 { // as many as the kernel follows (MAXSYMLINKS)
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", &fs.PathError{Op: "follow", Path: path, Err: syscall.ELOOP}
}

// replaceFile writes a new file and moves it to path: who reads has the old or
// the new one, whole. A power cut may leave the old one, both are of no worth
// after it.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func readAtMost(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(n)+1))
	if err == nil && len(b) > n {
		err = fmt.Errorf("%s is longer than %d bytes", path, n)
	}
	return b, err
}
