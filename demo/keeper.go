package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
)

// keeper stands for systemd here: what a step leaves in the background is ended
// with the step, so the application belongs to somebody else. It starts the
// binary that current points to when it is asked to, and holds the
// application's socket, as a .socket unit does.
type keeper struct {
	address string // where it takes the requests of restart
	binary  string
	app     net.Listener
	socket  *os.File // of app, for the application
	server  *http.Server
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
}

func newKeeper(binary string) (*keeper, error) {
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	socket, err := app.(*net.TCPListener).File()
	if err != nil {
		return nil, errors.Join(err, app.Close(), own.Close())
	}
	k := &keeper{address: own.Addr().String(), binary: binary, app: app, socket: socket}
	k.server = &http.Server{Handler: http.HandlerFunc(k.restart)}
	go func() { _ = k.server.Serve(own) }()
	return k, nil
}

// restart ends the application and starts it anew; it answers once the new one
// does. Requests come one after the other: from one restart step at a time.
func (k *keeper) restart(w http.ResponseWriter, r *http.Request) {
	k.end()
	cmd := exec.Command(k.binary)
	cmd.ExtraFiles = []*os.File{k.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := start(cmd); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.cmd, k.exited = cmd, make(chan struct{})
	go func() { _ = cmd.Wait(); close(k.exited) }()
	err := until(r.Context(), func() bool {
		select {
		case <-k.exited:
			return true
		default:
		}
		res, err := client.Get("http://" + k.app.Addr().String())
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	select {
	case <-k.exited:
		err = errors.New("the application ended at once")
	default:
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (k *keeper) end() {
	if k.cmd != nil {
		_ = k.cmd.Process.Kill()
		<-k.exited
		k.cmd = nil
	}
}

func (k *keeper) close() {
	_ = k.server.Close()
	k.end()
	_ = k.socket.Close()
	_ = k.app.Close()
}
