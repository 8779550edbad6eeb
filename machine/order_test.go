package machine

import (
	"slices"
	"strings"
	"testing"
)

func TestParentsFirst(t *testing.T) {
	for _, c := range []struct{ list, want string }{
		{"", ""},
		{"/b /a /c", "/b /a /c"},
		{"/srv/data/x /tmp /srv /srv/data/", "/srv /srv/data/ /srv/data/x /tmp"},
		{"/a/b/c/d /ab /a", "/a /a/b/c/d /ab"},
		{"/a/b / /a", "/ /a /a/b"},
		{"//a//b /a", "/a //a//b"},
		{"relative/x relative", "relative relative/x"}, // refused later
		{"/" + strings.Repeat("x/", 2000) + " /x", "/x /" + strings.Repeat("x/", 2000)},
	} {
		var list []Mount
		for target := range strings.FieldsSeq(c.list) {
			list = append(list, Mount{Target: target})
		}
		var got []string
		for _, m := range ParentsFirst(list) {
			got = append(got, m.Target)
		}
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("ParentsFirst(%.60s) = %.200q, want %.60s", c.list, got, c.want)
		}
	}
	got := ParentsFirst([]Mount{{Source: "1", Target: "/x"}, {Source: "3", Target: "/y"}, {Source: "2", Target: "/x/"}})
	if len(got) != 3 || got[0].Source != "1" || got[1].Source != "2" {
		t.Errorf("two on one target: %+v, want them in their order", got)
	}
}
