#!/bin/sh
# Counts the instructions of one request, from its bytes to the spool (valgrind), and fails beyond the limit: time is too
# noisy for that, a count is not. The limit is benches/instructions.limit; `scripts/instructions.sh --accept` writes today's
# count there, for a change that is worth its cost (say so in the commit) or a new compiler.
set -eu
cd "$(dirname "$0")/.."

limit_file=benches/instructions.limit
few=2000
many=12000

if ! command -v valgrind >/dev/null; then
    echo "valgrind is needed (Debian, Ubuntu: apt-get install valgrind)." >&2
    exit 1
fi
# Cargo says where it put the program.
program=$(cargo build --release --locked --bench instructions --message-format json |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "the bench was not built" >&2; exit 1; }

count() {
    said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" 2>&1) || {
        echo "$said" >&2
        return 1
    }
    echo "$said" | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

a=$(count $few)
b=$(count $many)
each=$(((b - a) / (many - few)))
if [ "$each" -lt 1000 ]; then
    echo "$each instructions cannot be a request: the bench does not do its work" >&2
    exit 1
fi

if [ "${1:-}" = --accept ]; then
    echo "$each" >"$limit_file"
    echo "instructions a request: $each, accepted"
    exit 0
fi
accepted=$(cat "$limit_file")
most=$((accepted * 110 / 100))
echo "instructions a request, from its bytes to the spool: $each (accepted $accepted, at most $most)"
if [ "$each" -gt "$most" ]; then
    echo "that is more than 10 % over what was accepted; find what costs, or run scripts/instructions.sh --accept and say why" >&2
    exit 1
fi
