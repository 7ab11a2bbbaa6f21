#!/bin/sh
# Fetches axe-core, which looks for what keeps people with a screen reader or a keyboard from using a page, into
# target/tools/. The tests run it in Chromium; nothing of it is shipped.
set -eu
cd "$(dirname "$0")/.."

version=4.14.1
# What the npm registry says of this version (dist.integrity), in hexadecimal.
sha512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5
file=target/tools/axe-core-$version.min.js
if [ -s "$file" ]; then exit 0; fi

mkdir -p target/tools
archive=$(mktemp target/tools/axe.XXXXXX)
trap 'rm -f "$archive"' EXIT
curl --fail --silent --show-error --location --retry 3 --max-time 120 --output "$archive" \
    "https://registry.npmjs.org/axe-core/-/axe-core-$version.tgz"
if ! echo "$sha512  $archive" | sha512sum --check --quiet; then
    echo "axe-core $version is not what it was when its checksum was written down: not used." >&2
    exit 1
fi
tar -xzf "$archive" -O package/axe.min.js >"$file.part"
mv "$file.part" "$file"
