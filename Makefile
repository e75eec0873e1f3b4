# What a user and a developer type. Everything works in a fresh clone.
BINARY  := build/deployhook
PREFIX  ?= /usr/local
UNITDIR ?= /etc/systemd/system
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# make dist: where to, for what, who answers for it, and with which tools.
DIST       ?= dist
ARCHS      ?= amd64 arm64
PACKAGERS  ?= deb rpm
MAINTAINER ?= deployhook maintainers <maintainers@deployhook.invalid>
NFPM       := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
CYCLONEDX  := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# Within a git hook these name another repository, also to Go's own look at it.
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_NAMESPACE
GIT := env -u GIT_DIR -u GIT_WORK_TREE -u GIT_INDEX_FILE git

# The version is the tag, where there is one; deployhook version adds the commit.
VERSION ?= $(or $(shell $(GIT) describe --tags --match 'v[0-9]*' --dirty 2>/dev/null | sed 's/^v//'),0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# A clone of another user, or none at all, is no reason not to build.
VCS := $(shell $(GIT) status >/dev/null 2>&1 && echo auto || echo false)

# Go keeps its caches below HOME; cron jobs and containers may have none.
WRITABLE = $(shell test -n "$(1)" && test -w "$(1)" && echo "$(1)")
ifeq ($(call WRITABLE,$(shell echo "$$HOME")),)
export HOME := $(or $(call WRITABLE,$(shell getent passwd "$$(id -u)" | cut -d: -f6)),$(CURDIR)/build/home)
$(shell mkdir -p "$(HOME)")
endif

.PHONY: build demo test test-forge check bench bench-notify install dist dist-again tools docs clean

build: ## the binary, static
	CGO_ENABLED=0 go build -buildvcs=$(VCS) -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/deployhook

demo: ## a push that is deployed, one that is not, a rollback: needs Go and git
	@command -v go >/dev/null || { echo "make demo needs Go: https://go.dev/dl, or the package golang-go" >&2; exit 1; }
	@env -u GOOS -u GOARCH go build -buildvcs=false -o build/demo ./demo
	@exec build/demo

test: tools ## all tests
	go test $(if $(PACKAGES),-p $(PACKAGES)) -timeout 20m ./...

test-forge: tools ## deploys from a real Gitea, which is built the first time (about 7 minutes, needs gcc)
	@forge=$$(./scripts/forge) && DEPLOYHOOK_FORGE=$$forge go test ./internal/daemon -run RealForge -count=1 -timeout 15m -v

check: ## form, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "these files are not formatted: gofmt -w ."; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

bench: tools ## figures next to adnanh/webhook, as a table
	@./bench/tools
	@go run ./bench

bench-notify: ## figures of notifications and of the application's events, as a table: ten minutes
	@go run ./bench events direct sick kills

# Not made anew by root, whose PATH may have no Go, when make build has made it.
install: ## binary, units and users, below DESTDIR
	@test -x $(BINARY) || $(MAKE) build
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/deployhook
	install -d $(DESTDIR)$(UNITDIR)
	@for unit in systemd/*.service systemd/*.socket; do \
		if [ -e $$unit ]; then \
			set -e; echo "install $$unit"; \
			sed 's|/usr/local/bin/|$(PREFIX)/bin/|g' $$unit > $(DESTDIR)$(UNITDIR)/$${unit##*/}; \
			chmod 0644 $(DESTDIR)$(UNITDIR)/$${unit##*/}; \
		fi; \
	done
	install -D -m 0644 systemd/deployhook.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/deployhook.conf
	install -D -m 0644 deploy.yaml.example $(DESTDIR)$(PREFIX)/share/doc/deployhook/deploy.yaml.example
	install -D -m 0644 contrib/nginx/deployhook.conf $(DESTDIR)$(PREFIX)/share/doc/deployhook/contrib/nginx/deployhook.conf
	install -D -m 0644 contrib/caddy/Caddyfile $(DESTDIR)$(PREFIX)/share/doc/deployhook/contrib/caddy/Caddyfile

dist: ## what a release consists of, in DIST: .tar.gz, .deb, .rpm, SBOM, SHA256SUMS
	@VERSION='$(VERSION)' VCS='$(VCS)' LDFLAGS='$(LDFLAGS)' DIST='$(DIST)' ARCHS='$(ARCHS)' PACKAGERS='$(PACKAGERS)' \
		MAINTAINER='$(MAINTAINER)' NFPM='$(NFPM)' CYCLONEDX='$(CYCLONEDX)' packaging/build

dist-again: ## builds them once more from a clone elsewhere: they must be the same as in DIST
	@DIST='$(DIST)' packaging/again

docs: ## the pages that are made from the program itself
	go test ./internal/config -run Reference -update
	go test ./cmd/deployhook -run Reference -update

tools: ## what the tests need beside Go
	@./scripts/tools

clean:
	@chmod -R u+w build 2>/dev/null || true # Go makes its module cache read-only
	rm -rf build dist
