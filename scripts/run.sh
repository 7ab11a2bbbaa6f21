#!/bin/sh
# Starts pixeld as built by `make run`. exec, so that Ctrl-C and SIGTERM reach it and nothing else.
set -eu
cd "$(dirname "$0")/.."
exec "${CARGO_TARGET_DIR:-target}/release/pixeld" serve --sample
