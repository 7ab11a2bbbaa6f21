#!/bin/sh
# Installs one of the system's packages whose service must not run: tests and linters only need its program. No service is
# left running, and none starts with the machine from now on. Usage: install-without-service.sh PACKAGE
set -eu
package=$1

if ! command -v apt-get >/dev/null; then
    echo "$package is needed and there is no apt-get to install it: install it with this system's packages." >&2
    exit 1
fi
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# What packages ask before they start a service (Debian's policy-rc.d): 101 is no. A machine that has its own answer
# keeps it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    remove() { as_root rm -f "$policy"; }
    trap remove EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi
"$(dirname "$0")/apt-install.sh" "$package"
# It would start with the machine. Without systemd there is nothing that would.
if command -v systemctl >/dev/null; then as_root systemctl --quiet disable "$package.service" >/dev/null 2>&1 || true; fi
