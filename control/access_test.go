package control

import "testing"

func TestAllowed(t *testing.T) {
	user := func(id uint32) Principal { return Principal{ID: id} }
	group := func(id uint32) Principal { return Principal{Group: true, ID: id} }
	global := Access{"restart": {user(10), group(20)}, "status": {group(30)}}
	app := Access{"restart": {user(11)}, "all": {user(12)}, "clear": {user(13)}}
	const own = 1000
	for _, tt := range []struct {
		name string
		key  string
		peer Peer
		want bool
	}{
		{"root", "shutdown", Peer{UID: 0}, true},
		{"own user", "shutdown", Peer{UID: own}, true},
		{"own user's FIFO", "shutdown", Peer{UID: own, FIFO: true}, true},
		{"stranger", "restart", Peer{UID: 99, GID: 99}, false},
		{"stranger in root's group", "restart", Peer{UID: 99, GID: 0}, false},
		{"user by the whole", "restart", Peer{UID: 10}, true},
		{"user by the whole, another verb", "stop", Peer{UID: 10}, false},
		{"user by the application", "restart", Peer{UID: 11}, true},
		{"group by gid", "restart", Peer{UID: 99, GID: 20}, true},
		{"group by supplementary", "restart", Peer{UID: 99, Groups: []uint32{1, 20}}, true},
		{"group of another verb", "restart", Peer{UID: 99, Groups: []uint32{30}}, false},
		{"a gid is no uid", "restart", Peer{UID: 20}, false},
		{"a uid is no gid", "restart", Peer{UID: 99, GID: 10, Groups: []uint32{11}}, false},
		{"all is no verb", "restart", Peer{UID: 12}, false},
		{"clear is not logs", "logs", Peer{UID: 13}, false},
		{"clear", "clear", Peer{UID: 13}, true},
		{"empty key", "", Peer{UID: 10}, false},
	} {
		if got := Allowed(tt.key, tt.peer, own, global, app); got != tt.want {
			t.Errorf("%s: Allowed(%s, %+v) = %v, want %v", tt.name, tt.key, tt.peer, got, tt.want)
		}
	}
	if Allowed("status", Peer{UID: 30}, own) || Allowed("status", Peer{UID: 30}, own, nil, nil) {
		t.Error("Allowed without any access = true, want false")
	}
}

func TestAccessKey(t *testing.T) {
	for _, tt := range []struct {
		req  Request
		want string
	}{
		{Request{Verb: "logs"}, "logs"},
		{Request{Verb: "tail"}, "logs"},
		{Request{Verb: "logs", Clear: true}, "clear"},
		{Request{Verb: "clear"}, "clear"},
		{Request{Verb: "logs", Self: true}, "maintail"},
		{Request{Verb: "maintail", Clear: true}, "clear"},
		{Request{Verb: "update"}, "reload"},
		{Request{Verb: "status", Clear: true, Self: true}, "status"},
	} {
		req := tt.req
		req.Validate()
		if got := req.AccessKey(); got != tt.want {
			t.Errorf("AccessKey(%+v) = %s, want %s", tt.req, got, tt.want)
		}
	}
}
