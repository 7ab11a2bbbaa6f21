#!/bin/sh
# Says plainly what is missing to build pixeld.
set -eu

if ! command -v cargo >/dev/null; then
    echo "cargo was not found: install Rust (https://rustup.rs), open a new shell, and run this again." >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "A C compiler is needed and cc was not found: install one (Debian, Ubuntu: apt-get install build-essential)." >&2
    exit 1
fi
