# The commands of the README. Their scripts are in scripts/, where a shell can check them.

.PHONY: help run build test lint bench load compare nginx-cost instructions

help:
	@echo "make run           install PostgreSQL if it is missing, build, and serve (Ctrl-C stops everything)"
	@echo "make test          install what the tests need, and run them all"
	@echo "make lint          formatting, clippy, documentation, licenses and advisories, scripts, containers, nginx"
	@echo "make build         build target/release/pixeld"
	@echo "make bench         time the parts of the path, a request, the drain into PostgreSQL, the rollup, and pages with 10 M hits"
	@echo "make load          one load, reconciled with PostgreSQL (options: make load ARGS='--rate 20000 --seconds 30')"
	@echo "make compare       pixeld against nginx, several rounds; writes loadtest/RESULTS.md"
	@echo "make nginx-cost    what nginx before pixeld costs a request, over HTTP/1.1, TLS and HTTP/2"
	@echo "make instructions  count a request's instructions, and fail beyond the limit"

build:
	@scripts/check-rust.sh
	cargo build --release --locked

run: build
	@scripts/install-postgresql.sh --unless-external
	@scripts/run.sh

# The integration tests share the machine out among themselves (tests/it/kit/support.rs), so all may wait for it at once.
test:
	@scripts/check-rust.sh
	@scripts/install-test-tools.sh
	cargo test --release --locked --workspace --lib --bins
	cargo test --release --locked --workspace --doc
	cargo test --release --locked --test it -- --test-threads=100

lint:
	@scripts/check-rust.sh
	@scripts/install-lint-tools.sh
	@scripts/lint.sh

bench:
	@scripts/check-rust.sh
	@scripts/install-postgresql.sh
	cargo bench --locked --bench hot_path --bench request --bench drain --bench rollup --bench pages

load:
	@scripts/check-rust.sh
	@scripts/install-postgresql.sh
	cargo build --release --locked --workspace
	cargo run --release --locked --package loadtest -- run $(ARGS)

compare:
	@scripts/check-rust.sh
	@scripts/install-load-tools.sh
	cargo build --release --locked --workspace
	cargo run --release --locked --package loadtest -- compare $(ARGS)

nginx-cost:
	@scripts/check-rust.sh
	@scripts/install-load-tools.sh
	@scripts/install-load-tools.sh h2load
	cargo build --release --locked
	@scripts/nginx-cost.sh $(ARGS)

instructions:
	@scripts/check-rust.sh
	@scripts/install-load-tools.sh valgrind
	@scripts/instructions.sh
