package deploy

import (
	"regexp"
	"strings"
	"testing"
)

// TestDocs lets BuildKit read what docs/containers.md shows of Dockerfiles.
func TestDocs(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```dockerfile\n(.*?)^```$").FindAllStringSubmatch(string(read(t, "docs/containers.md")), -1)
	for _, block := range blocks {
		text := block[1]
		if !strings.HasPrefix(text, "FROM ") {
			text = "FROM scratch\n" + text
		}
		if _, warnings, err := parseDockerfile([]byte(text)); err != nil || len(warnings) != 0 {
			t.Errorf("parse = %v, warnings %q\n%s", err, warnings, text)
		}
	}
	if len(blocks) == 0 {
		t.Error("docs/containers.md shows no Dockerfile")
	}
}
