package sum

import (
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

func TestTotal(t *testing.T) {
	if got := Total(10); got != 45 {
		t.Fatal(got)
	}
}

func TestProcessesSignalsSockets(t *testing.T) {
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	<-heard
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
}
