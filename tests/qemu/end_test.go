//go:build qemu

package qemu

import "testing"

// TestEndOfInitOtherwise: it never leaves main, not even where it did not come to
// supervise anything or cannot know that this is a machine.
func TestEndOfInitOtherwise(t *testing.T) {
	for name, tt := range map[string]struct{ start, says, kernel string }{
		"no /proc":    {"umount /proc\nexec pazinit run -c /p.yaml", "powering off, after an end with status 3", "reboot: Power down"},
		"one command": {"exec pazinit -- helper exit 4", "powering off, after an end with status 4", "reboot: Power down"},
		"bad config":  {"exec pazinit run -c /no/such", "rebooting, after an end with status 2", "reboot: Restarting system"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, kernel Kernel) {
				t.Parallel()
				m := boot(t, kernel, "cgroups=v2", "", Files{
					"/start":  []byte(tt.start + "\n"),
					"/p.yaml": []byte("applications: {app: {workers: {job: {run: /bin/helper, args: [exit, '3'], restart: never}}}}\n"),
				})
				m.see(tt.says, 1)
				m.see(tt.kernel, 1)
				m.ends()
			})
		})
	}
}
