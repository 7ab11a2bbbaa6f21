#!/bin/sh
# Installs what the comparison with nginx needs and this machine lacks: nginx, psql, taskset, PostgreSQL. With a program's
# name: only that one.
set -eu
here=$(dirname "$0")

missing=
wants() { command -v "$1" >/dev/null || missing="$missing $2"; }
if [ $# -gt 0 ]; then
    case $1 in
        h2load) wants h2load nghttp2-client ;;
        *) wants "$1" "$1" ;;
    esac
else
    "$here/install-postgresql.sh"
    "$here/install-nginx.sh"
    wants psql postgresql-client
    wants taskset util-linux
fi
if [ -z "$missing" ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then
    echo "These are needed and there is no apt-get to install them:$missing" >&2
    exit 1
fi
# shellcheck disable=SC2086 # one word a package
"$here/apt-install.sh" $missing
