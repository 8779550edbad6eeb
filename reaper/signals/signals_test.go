package signals

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Catch is for good: what is tested runs in a child of the test, which is this
// binary again.

const play = "PAZINIT_TEST_PLAY"

var plays = map[string]func(){
	"tell": tell, "count": count, "sendon": playSendOn, "except": playExcept,
	"alarm": playAlarm, "twice": playTwice, "fault": playFault, "preempt": playPreempt, "limit": playLimit,
}

func TestMain(m *testing.M) {
	if f := plays[os.Getenv(play)]; f != nil {
		runtime.LockOSThread()
		f()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// next is Wait for as long as it takes.
func next() Info {
	for {
		if i, ok := Wait(-1); ok {
			return i
		}
	}
}

// threads has the runtime make some more threads, which stay.
func threads(n int) {
	var all sync.WaitGroup
	all.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			all.Done()
			select {}
		}()
	}
	all.Wait()
}

// tell prints each signal, until SIGQUIT.
func tell() {
	threads(3)
	must(Catch())
	fmt.Println("ready")
	for {
		i := next()
		fmt.Println(int(i.Signal), i.Code, i.PID, i.UID)
		if i.Signal == unix.SIGQUIT {
			return
		}
	}
}

// count counts until SIGQUIT, and prints the sums.
func count() {
	threads(3)
	must(Catch())
	fmt.Println("ready")
	var n [MaxSignal + 1]int
	for {
		i := next()
		n[i.Signal]++
		if i.Signal == unix.SIGQUIT {
			break
		}
	}
	for i, ok := Wait(0); ok; i, ok = Wait(0) { // they come in the order of their numbers
		n[i.Signal]++
	}
	fmt.Println(n[34:])
}

// A player is the child.
type player struct {
	*testing.T
	cmd *exec.Cmd
	in  *bufio.Scanner
}

func start(t *testing.T, name string) *player {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), play+"="+name, "GODEBUG=asyncpreemptoff=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &player{t, cmd, bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	if got := p.line(); got != "ready" {
		t.Fatalf("%s says %q, want ready", name, got)
	}
	return p
}

func (p *player) line() string {
	p.Helper()
	if !p.in.Scan() {
		p.Fatalf("it has ended: %v", p.cmd.Wait())
	}
	return p.in.Text()
}

// want fails the test unless the next lines are those.
func (p *player) want(lines ...string) {
	p.Helper()
	for _, want := range lines {
		if got := p.line(); got != want {
			p.Errorf("it says %q, want %q", got, want)
		}
	}
}

func (p *player) pid() int { return p.cmd.Process.Pid }

func (p *player) kill(s unix.Signal) {
	p.Helper()
	if err := unix.Kill(p.pid(), s); err != nil {
		p.Fatal(err)
	}
}

// queue is sigqueue(3), with SI_QUEUE. It reports EAGAIN, when there are too many.
func queue(pid int, s unix.Signal) error {
	var si [128]byte
	put := func(at int, v int32) { *(*int32)(unsafe.Pointer(&si[at])) = v }
	put(0, int32(s))
	put(8, -1) // SI_QUEUE
	put(16, int32(os.Getpid()))
	put(20, int32(os.Getuid()))
	_, _, e := unix.RawSyscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(s), uintptr(unsafe.Pointer(&si)))
	if e != 0 {
		return e
	}
	return nil
}

func (p *player) tids() (out []int) {
	p.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid()))
	if err != nil {
		p.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			p.Fatal(err)
		}
		out = append(out, tid)
	}
	return out
}

// catchable are all signals that can be caught, but for 32 and 33, and those that
// end the plays.
func catchable() (out []unix.Signal) {
	for s := unix.Signal(1); s <= MaxSignal; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGQUIT, 32, 33:
		default:
			out = append(out, s)
		}
	}
	return out
}

// onEveryThread are the signals that Go leaves unblocked on all threads that it
// makes (runtime/sigtab_linux_generic.go).
var onEveryThread = []unix.Signal{
	unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGCHLD, unix.SIGPROF, 34,
}

// TestCatch: each signal comes once, with its sender, however it is sent.
func TestCatch(t *testing.T) {
	p := start(t, "tell")
	self, uid := os.Getpid(), os.Getuid()
	// Go leaves some unblocked on the threads that it makes, and must not answer
	// them. Each such thread takes one in its life.
	for i, tid := range p.tids() {
		if tid == p.pid() {
			continue
		}
		s := onEveryThread[i%len(onEveryThread)]
		if err := unix.Tgkill(p.pid(), tid, s); err != nil {
			t.Fatal(err)
		}
		p.want(fmt.Sprint(int(s), siTkill, self, uid))
	}
	for _, s := range catchable() {
		p.kill(s)
		p.want(fmt.Sprint(int(s), 0, self, uid)) // SI_USER
		if err := queue(p.pid(), s); err != nil {
			t.Fatal(err)
		}
		p.want(fmt.Sprint(int(s), -1, self, uid))
		if err := unix.Tgkill(p.pid(), p.pid(), s); err != nil {
			t.Fatal(err)
		}
		p.want(fmt.Sprint(int(s), siTkill, self, uid))
	}
	p.kill(unix.SIGQUIT) // nothing has come twice
	p.want(fmt.Sprint(int(unix.SIGQUIT), 0, self, uid))
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// playAlarm has the kernel send it a signal.
func playAlarm() {
	must(Catch())
	fmt.Println("ready")
	_, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Value: unix.Timeval{Usec: 1000}})
	must(err)
	i := next()
	fmt.Println(int(i.Signal), i.Code, i.PID, i.UID, i.Sent())
}

// TestKernel: a signal of the kernel has no sender.
func TestKernel(t *testing.T) {
	p := start(t, "alarm")
	p.want("14 128 0 0 false") // SI_KERNEL
}

// TestStorm: of four senders no queued signal is lost, and none ends it.
func TestStorm(t *testing.T) {
	p := start(t, "count")
	const each = 100
	var senders sync.WaitGroup
	for n := range 4 {
		senders.Go(func() {
			for i := range each / 4 {
				for _, s := range catchable() {
					var err error
					for {
						if s < 34 {
							err = unix.Kill(p.pid(), s)
						} else if err = queue(p.pid(), s); errors.Is(err, unix.EAGAIN) {
							runtime.Gosched() // RLIMIT_SIGPENDING
							continue
						}
						break
					}
					if err != nil {
						t.Errorf("sender %d, %d: signal %d: %v", n, i, s, err)
						return
					}
				}
			}
		})
	}
	senders.Wait()
	p.kill(unix.SIGQUIT)
	got := p.line()
	want := fmt.Sprint(slices.Repeat([]int{each}, MaxSignal-33))
	if got != want {
		t.Errorf("got %s,\nwant %s", got, want)
	}
}

// playSendOn sends some signals on to a child and others not.
func playSendOn() {
	must(Catch())
	in, out, err := os.Pipe()
	must(err)
	exe, err := os.Executable()
	must(err)
	child, err := os.StartProcess(exe, []string{exe}, &os.ProcAttr{
		Env: []string{play + "=tell"}, Files: []*os.File{nil, out, os.Stderr}, Sys: &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
	})
	must(err)
	lines := bufio.NewScanner(in)
	lines.Scan()
	Target(-child.Pid)
	SendOn(unix.SIGTERM, unix.SIGTERM)
	SendOn(unix.SIGHUP, unix.SIGUSR1)
	SendOn(40, 41)
	fmt.Println("ready")
	go func() {
		for lines.Scan() {
			fmt.Println("there", lines.Text()[:2])
		}
	}()
	fmt.Println("here", int(next().Signal), SentOn(), SentOn())
	SendOn(unix.SIGTERM, 0)
	fmt.Println("here", int(next().Signal), SentOn())
	must(child.Kill())
	_, err = child.Wait()
	must(err)
}

// TestSendOn: what is sent on is not told, and the rest is not sent on.
func TestSendOn(t *testing.T) {
	p := start(t, "sendon")
	p.kill(unix.SIGTERM)
	p.want("there 15")
	p.kill(unix.SIGHUP)
	p.want("there 10")
	p.kill(40)
	p.want("there 41")
	p.kill(50)
	p.want("here 50 " + fmt.Sprint(bits(unix.SIGTERM, unix.SIGHUP, 40), 0))
	p.kill(unix.SIGTERM)
	p.want("here 15 0")
}

// playExcept leaves one signal to os/signal.
func playExcept() {
	c := make(chan os.Signal, 10)
	signal.Notify(c, unix.SIGCHLD)
	must(Catch(unix.SIGCHLD))
	fmt.Println("ready")
	go func() {
		for s := range c {
			fmt.Println("notified", s)
		}
	}()
	for {
		fmt.Println(int(next().Signal))
	}
}

// TestExcept: a signal that is left alone is Go's.
func TestExcept(t *testing.T) {
	p := start(t, "except")
	for range 3 {
		p.kill(unix.SIGCHLD)
		p.want("notified child exited")
		p.kill(unix.SIGUSR2)
		p.want("12")
	}
}

func playTwice() {
	must(Catch())
	fmt.Println("ready")
	fmt.Println(Catch())
}

// TestTwice: there is one that waits.
func TestTwice(t *testing.T) {
	p := start(t, "twice")
	p.want("catch signals: they are caught already")
}

// playFault makes true faults: of this thread, and of another one.
func playFault() {
	must(Catch())
	fmt.Println("ready")
	debug.SetPanicOnFault(true)
	fault := func() (what any) {
		defer func() { what = recover() }()
		var p *int
		return *p
	}
	fmt.Println(fault())
	other := make(chan any)
	go func() { other <- fault() }()
	fmt.Println(<-other)
	fmt.Println(int(next().Signal))
	fmt.Println(fault()) // and after a wait, and after one that was sent
	go func() {
		runtime.LockOSThread()
		must(unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGHUP))
		other <- fault()
	}()
	fmt.Println(int(next().Signal))
	fmt.Println(<-other)
}

// TestFault: Go makes a panic of a true fault still, and a sent SIGSEGV is a signal.
func TestFault(t *testing.T) {
	p := start(t, "fault")
	const text = "runtime error: invalid memory address or nil pointer dereference"
	p.want(text, text)
	p.kill(unix.SIGSEGV)
	p.want("11", text, "1", text)
}

// playPreempt works on other threads, which Go preempts by SIGURG, and tells of
// all signals that come.
func playPreempt() {
	must(Catch())
	fmt.Println("ready")
	go func() {
		for n := 0; ; n++ { // no call, so no other way to stop it
			_ = n
		}
	}()
	go func() {
		for range 10 {
			runtime.GC()
		}
		must(unix.Kill(os.Getpid(), unix.SIGUSR1)) // done
	}()
	for {
		i := next()
		fmt.Println(int(i.Signal), i.PID == os.Getpid())
		if i.Signal == unix.SIGUSR2 {
			return
		}
	}
}

// TestPreempt: the runtime's own SIGURG is nobody's signal, another's is.
func TestPreempt(t *testing.T) {
	p := start(t, "preempt")
	p.want("10 true")
	p.kill(unix.SIGURG)
	p.want("23 false")
	p.kill(unix.SIGUSR2)
	p.want("12 false")
}

// playLimit waits for a while.
func playLimit() {
	must(Catch())
	fmt.Println("ready")
	begin := time.Now()
	_, ok := Wait(20 * time.Millisecond)
	fmt.Println(ok, time.Since(begin) >= 20*time.Millisecond)
	_, ok = Wait(0)
	fmt.Println(ok)
	fmt.Println(int(next().Signal))
	must(unix.Kill(os.Getpid(), unix.SIGUSR1))
	i, ok := Wait(time.Minute) // another thread may have to queue it to us
	fmt.Println(ok, int(i.Signal), i.Sent(), testing.AllocsPerRun(10, func() {
		_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
		Wait(0)
	}))
}

// TestLimit: Wait ends without a signal, and after a stop, and takes no memory.
func TestLimit(t *testing.T) {
	p := start(t, "limit")
	p.want("false true", "false")
	p.kill(unix.SIGSTOP)
	p.kill(unix.SIGCONT)
	p.want("18", "true 10 true 0")
}
