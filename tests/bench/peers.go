package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// peers are the other supervisors that are installed. A worker's run is a link
// to the program itself, which finds its FIFO in the environment: no shell.
func peers() (out []contender) {
	// They begin a service at most once a second; 20 at a time, taken in turns,
	// are old enough when theirs comes.
	const rest, copies = 1200 * time.Millisecond, 20
	scan := func(b *bench, dir string, n int) (string, error) {
		root := filepath.Join(dir, "scan")
		for i := range n {
			d := filepath.Join(root, "w"+strconv.Itoa(i))
			if err := os.MkdirAll(d, 0o755); err != nil {
				return "", err
			}
			if err := os.Symlink(b.stamp, filepath.Join(d, "run")); err != nil {
				return "", err
			}
		}
		return root, nil
	}
	if s6 := installed("s6-svscan"); s6 != "" {
		out = append(out, contender{name: "s6", rest: rest, copies: copies, setUp: func(b *bench, dir string, n int, _ string) (job, error) {
			root, err := scan(b, dir, n)
			return job{argv: []string{s6, "-c", strconv.Itoa(max(n, 500)), root}}, err
		}})
	}
	if runsvdir := installed("runsvdir"); runsvdir != "" {
		out = append(out, contender{name: "runit", rest: rest, copies: copies, setUp: func(b *bench, dir string, n int, _ string) (job, error) {
			root, err := scan(b, dir, n)
			return job{argv: []string{runsvdir, root}, stop: func(pid int) { _ = unix.Kill(pid, unix.SIGHUP) }}, err
		}})
	}
	if svscan, svc := installed("svscan"), installed("svc"); svscan != "" && svc != "" {
		out = append(out, contender{name: "daemontools", rest: rest, copies: copies, setUp: func(b *bench, dir string, n int, _ string) (job, error) {
			root, err := scan(b, dir, n)
			return job{argv: []string{svscan, root}, stop: func(pid int) {
				_ = unix.Kill(pid, unix.SIGTERM)
				services, _ := filepath.Glob(filepath.Join(root, "*"))
				_ = exec.Command(svc, append([]string{"-dx"}, services...)...).Run()
			}}, err
		}})
	}
	if supervisord := installed("supervisord"); supervisord != "" {
		// 1,000 of its workers take it the better part of a minute.
		out = append(out, contender{name: "supervisor", rest: rest, copies: copies, atScale: 100, setUp: func(b *bench, dir string, n int, fifo string) (job, error) {
			return supervisorJob(supervisord, dir, n, b.stamp+" "+fifo, "NONE")
		}})
	}
	return out
}

func supervisorJob(supervisord, dir string, n int, command, log string) (job, error) {
	text := fmt.Sprintf(`[supervisord]
nodaemon=true
user=root
logfile=/dev/null
logfile_maxbytes=0
pidfile=%[1]s/pid
childlogdir=%[1]s
[unix_http_server]
file=%[1]s/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:w]
command=%[2]s
process_name=w%%(process_num)d
numprocs=%[3]d
startsecs=0
autorestart=true
stdout_logfile=%[4]s
stdout_logfile_maxbytes=%[5]d
stdout_logfile_backups=%[6]d
stderr_logfile=NONE
`, dir, command, n, log, rotateSize, rotateKeep)
	cfg := filepath.Join(dir, "supervisord.conf")
	return job{argv: []string{supervisord, "-n", "-c", cfg}}, os.WriteFile(cfg, []byte(text), 0o600)
}

// loggers are the peers of output: a logger reads the worker's pipe.
func loggers() (out []capturer) {
	add := func(name string, argv func(dir string) []string) {
		path := installed(name)
		if path == "" {
			return
		}
		out = append(out, capturer{name, func(_ *bench, dir string, worker []string) (job, error) {
			if err := os.Mkdir(filepath.Join(dir, "log.d"), 0o755); err != nil {
				return job{}, err
			}
			line := strings.Join(worker, " ") + " | exec " + path + " " + strings.Join(argv(filepath.Join(dir, "log.d")), " ")
			return job{argv: []string{"/bin/sh", "-c", line}, stop: killTree}, nil
		}})
	}
	add("s6-log", func(dir string) []string { return []string{"n5", "s10485760", dir} })
	add("multilog", func(dir string) []string { return []string{"n5", "s10485760", dir} })
	add("svlogd", func(dir string) []string { return []string{dir} })
	if supervisord := installed("supervisord"); supervisord != "" {
		out = append(out, capturer{"supervisor", func(_ *bench, dir string, worker []string) (job, error) {
			return supervisorJob(supervisord, dir, 1, strings.Join(worker, " "), filepath.Join(dir, "out"))
		}})
	}
	return out
}

func killTree(root int) {
	for _, pid := range tree(root) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}
