// Package control carries the requests, replies and events on the socket and the FIFO, and is their client.
package control
