#!/bin/sh
# What nginx costs a request: the CPU time of nginx, with the configuration in nginx/, and of pixeld behind it, under one
# load after the other; each is h2load on this machine with 64 connections. It needs a machine that does nothing else, and the
# ratio says more than the figures.
#
# scripts/nginx-cost.sh [REQUESTS]     of each load; 200000 if not given
set -eu
cd "$(dirname "$0")/.."

requests=${1:-200000}
program=${CARGO_TARGET_DIR:-target}/release/pixeld
[ -x "$program" ] || { echo "make build comes first." >&2; exit 1; }
nginx=/usr/sbin/nginx
[ -x "$nginx" ] || nginx=nginx

work=$(mktemp -d)
chmod 755 "$work"
pixeld_pid=
nginx_pid=
stop() {
    for pid in $nginx_pid $pixeld_pid; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

unset DATABASE_URL REDIS_URL
export PIXELD_LISTEN=127.0.0.1:18080 PIXELD_ADMIN_LISTEN=127.0.0.1:18081 PIXELD_DATA_DIR="$work/data"
export PIXELD_TRUSTED_PROXIES=127.0.0.1 PIXELD_ADDRESS_RATE=off PIXELD_THROTTLE=off PIXELD_LOG=warn
"$program" serve &
pixeld_pid=$!
tries=0
until curl --silent --fail --output /dev/null http://127.0.0.1:18081/readyz; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { echo "pixeld does not start." >&2; exit 1; }
    sleep 0.5
done
printf 'GIF89a\001\000\001\000\200\000\000\000\000\000\377\377\377!\371\004\001\000\000\000\000,\000\000\000\000\001\000\001\000\000\002\002D\001\000;' >"$work/pixel.gif"
image=$("$program" image add "$work/pixel.gif")
until curl --silent --fail --output /dev/null "http://127.0.0.1:18080/image/$image.gif"; do sleep 0.2; done

cp -r nginx "$work/nginx"
nginx/make-certificate.sh "$work/nginx/certificates" localhost >/dev/null
state=$work/state
mkdir "$state"
chmod 777 "$state"
sed -i -e "s#/var/log/nginx/error.log#$state/error.log#" \
    -e "s#include http.conf;#&client_body_temp_path $state/a; proxy_temp_path $state/b;#" "$work/nginx/nginx.conf"
for file in public.conf admin.conf; do
    sed -i -E -e '/listen \[::\]/d' -e 's/listen +(443|80) /listen 127.0.0.1:18\1 /' "$work/nginx/$file"
done
# 18443, and 1880.
sed -i 's/127.0.0.1:80/127.0.0.1:180/' "$work/nginx/upstreams.conf" "$work/nginx/status.conf"
"$nginx" -c "$work/nginx/nginx.conf" -e "$state/early.log" -g "daemon off; pid $state/pid;" 2>"$state/stderr" &
nginx_pid=$!
sleep 1

# Hundredths of a second of a process, of all its threads; and of a tree, of those that it has started, too.
cpu() {
    pids=$1
    if [ "${2:-}" = tree ]; then pids="$pids $(cat /proc/"$1"/task/*/children)"; fi
    for pid in $pids; do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ sum += $12 + $13 } END { print sum }'
}

load() {
    name=$1
    url=$2
    shift 2
    awk -v url="$url" -v image="$image" 'BEGIN {
        for (n = 0; n < 50000; n++)
            printf "%s/image/%s_00000000-0000-4000-8000-0000000077c4_%08x-0000-4000-8000-%012x.gif\n", url, image, n, n
    }' >"$work/urls"
    before_nginx=$(cpu "$nginx_pid" tree)
    before_pixeld=$(cpu "$pixeld_pid")
    said=$(h2load --requests "$requests" --clients 64 --input-file "$work/urls" "$@")
    answered=$(echo "$said" | sed -n 's/^status codes: \([0-9]*\) 2xx.*/\1/p')
    # Until every hit is in PostgreSQL.
    until curl --silent http://127.0.0.1:18081/metrics | grep --quiet '^pixeld_hits_spooled 0$'; do sleep 0.2; done
    sleep 1
    awk -v name="$name" -v answered="$answered" -v nginx=$(($(cpu "$nginx_pid" tree) - before_nginx)) \
        -v pixeld=$(($(cpu "$pixeld_pid") - before_pixeld)) \
        -v rate="$(echo "$said" | sed -n 's/^finished in [^,]*, \([^ ]*\) req.*/\1/p')" 'BEGIN {
        printf "%-34s %10d %12.1f %12.1f %12d\n", name, answered, nginx * 1e4 / answered, pixeld * 1e4 / answered, rate
    }'
    [ "$answered" -eq "$requests" ] || { echo "$said" >&2; exit 1; }
}

printf '%-34s %10s %12s %12s %12s\n' "" answered "nginx µs" "pixeld µs" requests/s
load "pixeld alone, HTTP/1.1" http://127.0.0.1:18080 --h1
load "nginx, HTTP/1.1" http://127.0.0.1:1880 --h1
load "nginx, HTTP/1.1 over TLS" https://127.0.0.1:18443 --h1
load "nginx, HTTP/2, 8 streams at a time" https://127.0.0.1:18443 --max-concurrent-streams 8
