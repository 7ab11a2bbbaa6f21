#!/bin/sh
# Installs the named Debian packages, as root or with sudo; refreshes the package lists only if that does not work at once.
set -eu

if [ "$(id -u)" -eq 0 ]; then
    sudo=
elif command -v sudo >/dev/null; then
    sudo=sudo
else
    echo "Installing needs root, and there is no sudo. As root, run: apt-get install $*" >&2
    exit 1
fi

install() {
    # Through env, since sudo drops the environment.
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --option DPkg::Lock::Timeout=120 --yes --quiet --no-install-recommends "$@"
}

echo "Installing from the system's packages (this can take a minute): $*"
if install "$@" >/dev/null 2>&1; then exit 0; fi
$sudo apt-get update --quiet
install "$@" || {
    echo "These packages could not be installed: $*" >&2
    exit 1
}
