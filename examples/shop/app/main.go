// Command shop is the example's application: "shop web" takes orders over
// HTTP, "shop consumer" works them off, "shop tidy" forgets old ones.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	db := redis{address: os.Getenv("REDIS")}
	err := fmt.Errorf("usage: shop web|consumer|tidy")
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "web":
			err = web(ctx, db)
		case "consumer":
			err = consume(ctx, db)
		case "tidy":
			err = tidy(db)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// web counts a visit and queues an order for each request, until ctx ends.
func web(ctx context.Context, db redis) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		visit, err := db.do("INCR", "visits")
		if err == nil {
			_, err = db.do("RPUSH", "orders", "order "+visit)
		}
		var done string
		if err == nil {
			done, err = db.do("LLEN", "done")
		}
		if err != nil {
			http.Error(w, "redis: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Printf("visit %s\n", visit)
		fmt.Fprintf(w, "visit %s, orders done %s, served by %s.%s\n",
			visit, done, os.Getenv("PAZINIT_WORKER"), os.Getenv("PAZINIT_INSTANCE"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(grace)
}

// consume works orders off, one after the other, until ctx ends; the one in
// hand is finished first. Between "orders" and "done" an order is in "doing",
// so that a killed consumer loses none.
func consume(ctx context.Context, db redis) error {
	for { // what an earlier life left unfinished
		order, err := db.do("RPOPLPUSH", "doing", "orders")
		if err != nil {
			return err
		}
		if order == "" {
			break
		}
		fmt.Println("again:", order)
	}
	fmt.Println("waiting for orders")
	for ctx.Err() == nil {
		order, err := db.do("BLMOVE", "orders", "doing", "LEFT", "RIGHT", "1")
		if err == nil && order != "" {
			err = finish(db, order)
		}
		if err != nil { // a redis that was restarted; orders wait in it
			fmt.Fprintln(os.Stderr, "redis:", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

func finish(db redis, order string) error {
	if _, err := db.do("RPUSH", "done", order); err != nil {
		return err
	}
	if _, err := db.do("LREM", "doing", "1", order); err != nil {
		return err
	}
	fmt.Println("done:", order)
	return nil
}

// tidy keeps the last hundred orders that are done.
func tidy(db redis) error {
	before, err := db.do("LLEN", "done")
	if err != nil {
		return err
	}
	if _, err := db.do("LTRIM", "done", "-100", "-1"); err != nil {
		return err
	}
	fmt.Printf("tidied, there were %s orders done\n", before)
	return nil
}
