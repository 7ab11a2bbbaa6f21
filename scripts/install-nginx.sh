#!/bin/sh
# Installs nginx from the system's packages if it is missing. Tests and linters only need the program: no nginx is left
# running, and none starts with the machine from now on. An nginx that is installed already is not touched.
set -eu

# Debian keeps it where users' PATH does not look.
if [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null; then exit 0; fi
exec "$(dirname "$0")/install-without-service.sh" nginx
