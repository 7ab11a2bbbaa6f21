#!/bin/sh
# Everything that is checked without running the program. Stops at the first complaint.
set -eu
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets -- --deny warnings
RUSTDOCFLAGS="--deny warnings" cargo doc --release --locked --workspace --no-deps --document-private-items
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check bans licenses sources
    advisories=$(cargo deny --locked check advisories 2>&1) || case $advisories in
        *"failed to fetch advisory database"*)
            echo "the advisory database cannot be reached: advisories were NOT checked." ;;
        *)
            echo "$advisories" >&2
            exit 1 ;;
    esac
else
    echo "cargo deny is not installed: licenses, advisories and sources were NOT checked (cargo install cargo-deny)."
fi
if command -v shellcheck >/dev/null; then
    shellcheck scripts/*.sh
else
    echo "shellcheck is not installed: scripts were NOT checked (Debian, Ubuntu: apt-get install shellcheck)."
fi
