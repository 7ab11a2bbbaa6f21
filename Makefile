# The commands of the README. What they do stands in scripts/, where a shell can check it.

.PHONY: help run build test lint

help:
	@echo "make run    install PostgreSQL if it is missing, build, and serve (Ctrl-C stops everything)"
	@echo "make test   install what the tests need, and run them all"
	@echo "make lint   formatting, clippy, documentation, licenses and advisories, scripts"
	@echo "make build  build target/release/pixeld"

build:
	@scripts/check-rust.sh
	cargo build --release --locked

run: build
	@scripts/install-postgresql.sh --unless-external
	@scripts/run.sh

test:
	@scripts/check-rust.sh
	@scripts/install-test-tools.sh
	cargo test --release --locked --workspace

lint:
	@scripts/check-rust.sh
	@scripts/lint.sh
