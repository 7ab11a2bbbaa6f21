#!/bin/sh
# Installs what the tests need and this machine lacks: PostgreSQL, curl, Chromium and its driver (show that an image is
# not broken, and use the admin page), Python, Node and PHP (make links as senders do), Redis and openssl (a certificate
# for it), PgBouncer (which pixeld tells from PostgreSQL), nginx and h2load (pixeld behind its edge), systemd (systemd-analyze, for the unit), and util-linux (setpriv,
# mount: a small file system that fills up); and axe-core and promtool, into target/. No test is skipped for want of one.
set -eu
here=$(dirname "$0")

"$here/install-postgresql.sh"
"$here/install-nginx.sh"
# Also where a user's PATH does not look.
if [ ! -x /usr/sbin/pgbouncer ] && ! command -v pgbouncer >/dev/null; then
    "$here/install-without-service.sh" pgbouncer
fi

has_any() {
    for program in "$@"; do
        if command -v "$program" >/dev/null; then return 0; fi
    done
    return 1
}

missing=
has_any curl || missing="$missing curl"
has_any setpriv || missing="$missing util-linux"
has_any mount || missing="$missing mount"
has_any ldd || missing="$missing libc-bin"
has_any python3 || missing="$missing python3"
has_any node nodejs || missing="$missing nodejs"
has_any php || missing="$missing php-cli"
has_any openssl || missing="$missing openssl"
has_any psql || missing="$missing postgresql-client"
# Not redis-server, which is a service that would run from now on: its program is that of redis-check-rdb, under another
# name, and comes with redis-tools, which starts nothing.
has_any redis-server redis-check-rdb || missing="$missing redis-tools"
# Puts a clock wrong for one program.
[ -e "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1" ] || missing="$missing libfaketime"
has_any h2load || missing="$missing nghttp2-client"
has_any systemd-analyze || missing="$missing systemd"
has_any chromium chromium-browser google-chrome || missing="$missing chromium"
has_any chromedriver || missing="$missing chromium-driver"
fetch() {
    "$here/install-promtool.sh"
    "$here/install-axe.sh"
}
if [ -z "$missing" ]; then
    fetch
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "The tests need these and there is no apt-get to install them:$missing" >&2
    exit 1
fi
# shellcheck disable=SC2086 # one word a package
if ! "$here/apt-install.sh" $missing; then
    # Ubuntu has Chromium as a snap only.
    echo "Install these by hand, then run make test again:$missing" >&2
    exit 1
fi
fetch
