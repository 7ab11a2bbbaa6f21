#!/bin/sh
# Puts promtool, which checks Prometheus's alert rules, into target/tools/, out of Debian's package prometheus. The
# package itself is not installed: it would run a server from then on.
set -eu
cd "$(dirname "$0")/.."

tool=target/tools/promtool
if [ -x "$tool" ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then
    echo "promtool is needed and there is no apt-get to fetch it: put it into $tool by hand (it comes with Prometheus)." >&2
    exit 1
fi

mkdir -p target/tools
dir=$(mktemp -d target/tools/promtool.XXXXXX)
trap 'rm -rf "$dir"' EXIT
fetch() { (cd "$dir" && apt-get download --quiet prometheus >/dev/null 2>&1); }
if ! fetch; then
    # The package lists may be missing or old.
    if [ "$(id -u)" -eq 0 ]; then apt-get update --quiet; else sudo apt-get update --quiet; fi
    fetch || {
        echo "The package prometheus could not be fetched: put promtool into $tool by hand." >&2
        exit 1
    }
fi
dpkg-deb --extract "$dir"/prometheus_*.deb "$dir"
mv "$dir/usr/bin/promtool" "$tool"
