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
main loadtest/src/main.rs
# members = ["…", "…"]
sed -n 's/^members = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d ' "' | tr ',' '\n' | while read -r member; do library "$member/src/lib.rs"; done
# [[bench]] name = "…"
sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"$/\1/p;}' Cargo.toml | while read -r bench; do main "benches/$bench.rs"; done
