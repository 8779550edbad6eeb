// Package procfile reads the Procfile and the configuration into plain values with positions.
package procfile
