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
    shellcheck scripts/*.sh nginx/*.sh
else
    echo "shellcheck is not installed: scripts were NOT checked (Debian, Ubuntu: apt-get install shellcheck)."
fi

# How it is shipped. The tools are those that scripts/install-lint-tools.sh has put there.
python=target/tools/lint-python/bin
if [ -x "$python/hadolint" ]; then
    "$python/hadolint" Dockerfile
else
    echo "hadolint is not installed: the Dockerfile was NOT checked (scripts/install-lint-tools.sh says why)."
fi
dclint=target/tools/dclint-3.1.0/node_modules/.bin/dclint
if [ -x "$dclint" ]; then
    "$dclint" --max-warnings 0 docker-compose.yml
else
    echo "dclint is not installed: docker-compose.yml was NOT checked (scripts/install-lint-tools.sh says why)."
fi

# nginx's configuration as it is on a host and in a container, with a certificate that is thrown away.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/nginx"
cp nginx/*.conf "$work/nginx/"
nginx/make-certificate.sh "$work/nginx/certificates" pixels.example.com pixel-admin.example.com >/dev/null
nginx=/usr/sbin/nginx
[ -x "$nginx" ] || nginx=$(command -v nginx || true)
for place in '' .compose; do
    cp "nginx/workers$place.conf" "$work/nginx/workers.conf"
    # Only there has that name an address.
    sed 's/pixeld:80/127.0.0.1:80/' "nginx/upstreams$place.conf" >"$work/nginx/upstreams.conf"
    if [ -x "$python/gixy" ]; then
        # Not asked, for these reasons. host_spoofing: $host loses the port, by which the admin page knows its own
        # name; pixeld answers only names that it knows, and pixels name no host. hsts_header: pixels are served over plain HTTP, too, for old emails, and each
        # answer would be larger; the admin page has it, which a test sees. proxy_pass_normalized: that is what
        # /opt-out/ is for. ssl_stapling_without_resolver: nginx then uses the address that it found at its start, which
        # a test sees, too.
        "$python/gixy" --skips host_spoofing,hsts_header,proxy_pass_normalized,ssl_stapling_without_resolver "$work/nginx/nginx.conf" >"$work/gixy" || {
            cat "$work/gixy" >&2
            exit 1
        }
    else
        echo "gixy is not installed: nginx/ was NOT checked with it (scripts/install-lint-tools.sh says why)."
    fi
    if [ -z "$nginx" ]; then
        echo "nginx is not installed: nginx/ was NOT checked with it (scripts/install-nginx.sh)."
        continue
    fi
    # Its log, its process id and what it keeps for a while would lie in the system's folders, and only root has the
    # ports.
    state="$work/state"
    mkdir -p "$state"
    sed -e "s#/var/log/nginx/error.log#$state/error.log#" \
        -e "s#include http.conf;#&client_body_temp_path $state/a; proxy_temp_path $state/b; fastcgi_temp_path $state/c; uwsgi_temp_path $state/d; scgi_temp_path $state/e;#" \
        nginx/nginx.conf >"$work/nginx/nginx.conf"
    for file in public.conf admin.conf; do
        sed -E 's/^( *listen +(\[::\]:)?)(80|443) /\110\3 /' "nginx/$file" >"$work/nginx/$file"
        [ -e /proc/net/if_inet6 ] || sed -i '/listen \[::\]/d' "$work/nginx/$file"
    done
    "$nginx" -q -t -e "$state/early.log" -g "pid $state/pid;" -c "$work/nginx/nginx.conf" 2>"$work/said" || {
        cat "$work/said" >&2
        exit 1
    }
    # A certificate of one's own has no OCSP; everything else that nginx warns of is to be mended.
    if grep -v 'no OCSP responder URL in the certificate' "$work/said" | grep -v 'the "listen ... http2" directive is deprecated' >&2; then exit 1; fi
done

if command -v systemd-analyze >/dev/null; then
    sed 's#^ExecStart=/usr/local/bin/pixeld#ExecStart=/bin/true#' systemd/pixeld.service >"$work/pixeld.service"
    systemd-analyze verify "$work/pixeld.service"
    # The figure of docs/deploy.md, times ten.
    systemd-analyze security --no-pager --offline=true --threshold=15 "$work/pixeld.service" >"$work/security" || {
        cat "$work/security" >&2
        exit 1
    }
else
    echo "systemd-analyze is not installed: systemd/pixeld.service was NOT checked (Debian, Ubuntu: apt-get install systemd)."
fi
