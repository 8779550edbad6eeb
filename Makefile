# Targets; `make` alone lists them. It calls go and scripts, it holds no logic.
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
FLAGS  := -trimpath -ldflags "-s -w -X=runtime.godebugDefault=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0 -E=github.com/pazinit/pazinit/reaper/internal/early.entry -X=main.commit=$(COMMIT)"
PREFIX ?= /usr/local
LINT   := go tool -modfile=tools/go.mod golangci-lint
ROOT   := $(if $(filter-out 0,$(shell id -u)),sudo -E,env)

.PHONY: help build install image shop programs run test root-test vm vm-test lint generate check bench seeds oracle soak clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 	/p' Makefile | expand -t 12

build: ## out/pazinit and out/pazinit-arm64, static, and out/pazimage
	CGO_ENABLED=0 go build $(FLAGS) -o out/pazinit ./cmd/pazinit
	CGO_ENABLED=0 GOARCH=arm64 go build $(FLAGS) -o out/pazinit-arm64 ./cmd/pazinit
	cd cmd/pazimage && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o ../../out/pazimage .

shop:
	CGO_ENABLED=0 go build -trimpath -o out/shop/bin/shop ./examples/shop/app
	mkdir -p out/shop/redis out/shop/nginx

programs: build shop # what the tests run
	scripts/install-deps test
	cc -static -O2 -Wall -Wextra -Werror -o out/helper tests/helpers/helper.c

run: build shop ## run examples/shop: curl http://127.0.0.1:19000/
	scripts/install-deps run
	exec out/pazinit run -c examples/shop/pazinit.yaml

# -count=1: most tests try the program, of which the cache of go test knows nothing.
test: programs ## every test but those of make vm-test that take minutes
	-scripts/fetch-kernel
	-scripts/fetch-kernel arm64
	-scripts/fetch-inits
	go vet ./... && go vet -tags qemu ./tests/qemu
	go test -race -count=1 -timeout 25m ./...
	cd tools/containers && go vet ./... && go test ./...
	cd cmd/pazimage && go vet ./... && go test ./...
	cd tests/qemu && CGO_ENABLED=0 go test -tags qemu -short -count=1 -timeout 25m

root-test: programs ## the tests as root, where what root can do must not be skipped
	PAZINIT_TEST_MUST=root,cgroup2 go test -count=1 -exec "$(ROOT)" ./...

install: build ## below PREFIX, /usr/local by default: the program, man pages, completions
	install -D -m 755 out/pazinit $(DESTDIR)$(PREFIX)/bin/pazinit
	install -D -m 755 out/pazimage $(DESTDIR)$(PREFIX)/bin/pazimage
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 cmd/pazinit/pazinit.8 cmd/pazimage/pazimage.8
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 procfile/pazinit-procfile.5 procfile/pazinit.yaml.5
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	out/pazinit completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pazinit

image: build ## out/pazinit.oci.tar: a container image of both, with pazinit alone
	cd tools/containers && go run ./image -o ../../out/pazinit.oci.tar ../../out/pazinit ../../out/pazinit-arm64

vm: build shop ## boots the shop in QEMU, with its console here: curl http://127.0.0.1:19000/
	scripts/install-deps run
	scripts/fetch-kernel
	go run ./tests/qemu/boot out/pazinit examples/vm/pazinit.yaml $(CMDLINE)

vm-test: programs ## the tests in QEMU: pazinit as PID 1 of real kernels
	scripts/fetch-kernel
	scripts/fetch-kernel arm64
	scripts/fetch-crun
	scripts/fetch-inits
	cd tests/qemu && CGO_ENABLED=0 go test -tags qemu -count=1 -timeout 5h

lint: ## golangci-lint (gofmt, vet, staticcheck, the import rules), also for arm64
	$(LINT) run ./...
	cd tools/containers && go vet ./...
	cd cmd/pazimage && go vet ./... && go tool -modfile=../../tools/go.mod golangci-lint run ./...
	GOARCH=arm64 go vet ./...

generate: ## what is generated from the sources
	go generate ./...

check: lint generate ## all that a change must pass
	git diff --exit-code
	$(MAKE) test

bench: ## numbers for this build on this machine; PEERS=1 adds other supervisors
	$(if $(PEERS),scripts/install-deps peers)
	-scripts/fetch-kernel
	-scripts/fetch-inits
	go run ./tests/bench $(BENCH)

seeds: programs ## which rows of the older supervisors' list pass
	-@scripts/fetch-kernel && scripts/fetch-inits
	-@go test -count=1 -v ./tests/seeds >out/seeds.log 2>&1
	-@CGO_ENABLED=0 go test -tags qemu -count=1 -timeout 1h -v -run '^TestSeeds$$' ./tests/qemu >>out/seeds.log 2>&1
	@awk -f tests/seeds/list.awk out/seeds.log

oracle: build ## as root: the test-suites of tini and dumb-init, fetched from Debian, against pazinit by their names
	tests/oracle/run

soak: programs ## the tests that take minutes
	go test -count=1 -timeout 2h -tags soak ./...

clean: ## remove out/
	rm -rf out
