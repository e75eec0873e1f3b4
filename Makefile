# What a user and a developer type. Everything works in a fresh clone.
BINARY  := build/deployhook
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
PREFIX  ?= /usr/local
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test check bench install tools clean

build: ## the binary, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/deployhook

demo: ## a push that is deployed, one that is not, a rollback: needs Go and git
	@go run ./demo

test: tools ## all tests
	go test -timeout 20m ./...

check: ## form, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "these files are not formatted: gofmt -w ."; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

bench: tools ## figures next to adnanh/webhook, as a table
	@./bench/tools
	@go run ./bench

install: build ## binary and unit, below DESTDIR
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/deployhook
	install -D -m 0644 systemd/deployhook.service $(DESTDIR)/etc/systemd/system/deployhook.service
	install -D -m 0644 deploy.yaml.example $(DESTDIR)$(PREFIX)/share/doc/deployhook/deploy.yaml.example

tools: ## what the tests need beside Go
	@./scripts/tools

clean:
	rm -rf build
