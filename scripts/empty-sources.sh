#!/bin/sh
# Makes an empty file for each source that the manifests name and that is not there, so that cargo can build the
# dependencies alone: for the Dockerfile. In a work tree, where all are there, it does nothing.
set -eu
cd "$(dirname "$0")/.."

main() {
    if [ -e "$1" ]; then return 0; fi
    mkdir -p "$(dirname "$1")"
    echo 'fn main() {}' >"$1"
}
library() {
    if [ -e "$1" ]; then return 0; fi
    mkdir -p "$(dirname "$1")"
    : >"$1"
}

main src/main.rs
library src/lib.rs
library crates/core/src/lib.rs
library crates/spool/src/lib.rs
library crates/edge/src/lib.rs
library crates/testkit/src/lib.rs
main loadtest/src/main.rs
library loadtest/src/lib.rs
# [[bench]] name = "…"
sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"$/\1/p;}' Cargo.toml | while read -r bench; do main "benches/$bench.rs"; done
