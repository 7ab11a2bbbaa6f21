#!/bin/sh
# Installs PostgreSQL's programs from the system's packages if they are missing. pixeld runs a private cluster with them,
# so Debian's own "main" cluster is neither made nor left running; an installed PostgreSQL is not touched.
set -eu

has_programs() {
    [ -x "$1/initdb" ] && [ -x "$1/pg_ctl" ] && [ -x "$1/postgres" ]
}

# The same places, in the same order, as in src/db/embedded/programs.rs.
found() {
    if [ -n "${PG_BIN:-}" ]; then
        has_programs "$PG_BIN"
        return
    fi
    if pg_ctl=$(command -v pg_ctl) && has_programs "$(dirname "$(readlink -f "$pg_ctl")")"; then
        return 0
    fi
    for bin in /usr/lib/postgresql/*/bin; do
        if has_programs "$bin"; then return 0; fi
    done
    return 1
}

if [ -n "${DATABASE_URL:-}" ] && [ "${1:-}" = --unless-external ]; then exit 0; fi
if found; then exit 0; fi

if [ -n "${PG_BIN:-}" ]; then
    echo "PG_BIN is $PG_BIN, but initdb, pg_ctl and postgres are not there: correct it, or unset it to have PostgreSQL installed." >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "PostgreSQL 14 or newer is needed and there is no apt-get: install its server and psql with this system's packages (often called postgresql-server), or set DATABASE_URL." >&2
    exit 1
fi

here=$(dirname "$0")
"$here/apt-install.sh" postgresql-common

# Only while its package is installed: its first installation is when Debian's "main" cluster would be made, and later
# versions that somebody installs for other uses are none of our business.
conf=/etc/postgresql-common/createcluster.conf
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
as_root cp -p "$conf" "$conf.before-pixeld"
restore() { as_root mv "$conf.before-pixeld" "$conf"; }
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# shellcheck disable=SC2016 # $a is sed's: after the last line
as_root sed -i -E '/^[#[:space:]]*create_main_cluster[[:space:]]*=/d; $a create_main_cluster = false' "$conf"
"$here/apt-install.sh" postgresql

if ! found; then
    echo "The package postgresql is installed, but initdb, pg_ctl and postgres are not in /usr/lib/postgresql/*/bin." >&2
    exit 1
fi
