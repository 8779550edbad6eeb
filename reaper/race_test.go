//go:build race

package reaper

func init() { raceDetector = true }
