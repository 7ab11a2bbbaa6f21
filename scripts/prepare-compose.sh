#!/bin/sh
# Makes what docker-compose.yml needs and a clone does not have: a password of PostgreSQL, the URL with it, and a first
# certificate of your own. In secrets/, which git does not take. Never overwrites: run it as often as you like.
#
# scripts/prepare-compose.sh [NAME...]     the names of the certificate; pixels.example.com pixel-admin.example.com if
# none is given
set -eu
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then set -- pixels.example.com pixel-admin.example.com; fi

umask 077
mkdir -p secrets
# Nobody else on this machine enters the folder. The files in it can be read by all, since containers get them one by
# one, with the owner that they have here, and read them as users of their own.
chmod 700 secrets
readable() {
    chmod 444 "$1.new"
    mv "$1.new" "$1"
}

# What was interrupted before cannot be written to.
rm -f secrets/*.new
if [ ! -e secrets/postgres_password ]; then
    # Letters and digits only, so that it stands in a URL as it is.
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >secrets/postgres_password.new
    readable secrets/postgres_password
fi
if [ ! -e secrets/database_url ]; then
    printf 'postgresql://pixeld:%s@postgres:5432/pixeld\n' "$(cat secrets/postgres_password)" >secrets/database_url.new
    readable secrets/database_url
fi
nginx/make-certificate.sh secrets/tls "$@"
chmod 755 secrets/tls
chmod 444 secrets/tls/*.pem
echo "secrets/ is ready: docker compose up --build"
