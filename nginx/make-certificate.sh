#!/bin/sh
# Makes a first certificate of your own, so that nginx starts before you have a real one. Browsers and mail clients do
# not trust it.
#
# nginx/make-certificate.sh FOLDER NAME...
# nginx/make-certificate.sh secrets/tls pixels.example.com pixel-admin.example.com
#
# Never overwrites: with a certificate in FOLDER, it does nothing.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 FOLDER NAME..." >&2
    exit 64
fi
folder=$1
shift
if [ -e "$folder/fullchain.pem" ] || [ -e "$folder/privkey.pem" ]; then
    echo "$folder has a certificate already."
    exit 0
fi
if ! command -v openssl >/dev/null; then
    echo "openssl is needed and was not found (Debian, Ubuntu: apt-get install openssl)." >&2
    exit 1
fi

first=$1
names=
for name in "$@"; do names="$names,DNS:$name"; done

mkdir -p "$folder"
new=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
# Without settings of our own, the system's would make it a certificate of an authority.
printf '[req]\ndistinguished_name=name\n[name]\n' >"$new/openssl.cnf"
openssl req -x509 -config "$new/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=$first" -addext "subjectAltName=${names#,}" -addext "basicConstraints=critical,CA:FALSE" \
    -keyout "$new/privkey.pem" -out "$new/fullchain.pem" 2>"$new/said" || {
    cat "$new/said" >&2
    exit 1
}
# Its own issuer.
cp "$new/fullchain.pem" "$new/chain.pem"
mv "$new/chain.pem" "$new/privkey.pem" "$new/fullchain.pem" "$folder/"
echo "$folder has a certificate of your own for $*, for a year."
