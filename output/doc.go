// Package output carries what workers print: it captures their pipes, keeps the
// tail of each in a ring, and writes to the console, to rotated files, to
// loggers and to io.Writers.
//
// One goroutine waits on one epoll instance for all pipes. A stream that has
// something to read is queued for a few runners, which live only while there is
// work. A stream whose sink cannot take more (a full console, a busy or stalled
// file, a slow logger) is parked as a list entry before anything is read: it
// holds neither a goroutine nor a buffer, and its worker waits in write(2). A
// silent worker costs its descriptors and a few hundred bytes.
//
// Files by topic: hub.go has the loop, the queue and the timers; source.go the
// pipes of an instance; stream.go what happens to bytes that were read; ring.go,
// console.go, file.go, logger.go, writer.go and log.go are where they go;
// tail.go and follow.go read them back.
package output
