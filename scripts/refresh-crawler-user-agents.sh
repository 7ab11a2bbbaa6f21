#!/usr/bin/env bash
# Replaces crates/core/src/opens/crawler-user-agents by the files of the npm package of that name, unmodified. Needs npm (and so node).
#
# scripts/refresh-crawler-user-agents.sh [VERSION], the newest if none is given. npm checks the archive's hash. Nothing is
# replaced unless the new list is sound; each file is replaced at once, and VERSION last.
set -euo pipefail

name=crawler-user-agents
version=${1:-latest}
target=$(cd "$(dirname "$0")/.." && pwd)/src/opens/$name
mkdir -p "$target"

for program in npm node tar; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is needed, and is not installed." >&2
        exit 1
    fi
done

# Beside the target, since only a rename within one file system is atomic.
work=$(mktemp -d "$target/.refresh.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The archive dates its files 1985, which would hide a change from cargo: hence -m.
archive=$(cd "$work" && npm pack --loglevel=error "$name@$version" | tail -n 1)
tar -xzmf "$work/$archive" -C "$work" package/$name.json package/LICENSE package/package.json

node - "$work/package/$name.json" "$work/package/package.json" "$work/package/VERSION" <<'EOF'
const fs = require("fs");
const [list, manifest, out] = process.argv.slice(2);
const crawlers = JSON.parse(fs.readFileSync(list, "utf8"));
if (!Array.isArray(crawlers) || crawlers.length < 1000) throw new Error("the list is too short to be the whole one");
for (const [index, crawler] of crawlers.entries()) {
    const pattern = crawler.pattern;
    if (typeof pattern !== "string" || pattern.trim() === "") throw new Error(`entry ${index} has no pattern`);
    // The regex crate has neither look-around nor back-references, so that an entry with one would never match.
    if (/\(\?(<?[=!]|>)|\\[1-9]|\\k</.test(pattern)) throw new Error(`entry ${index}: ${pattern} is beyond the regex crate`);
    if (new RegExp(pattern).test("")) throw new Error(`entry ${index}: ${pattern} matches everything`);
}
fs.writeFileSync(out, JSON.parse(fs.readFileSync(manifest, "utf8")).version + "\n");
EOF
grep -q "MIT License" "$work/package/LICENSE"

chmod 644 "$work/package/$name.json" "$work/package/LICENSE" "$work/package/VERSION"
mv "$work/package/LICENSE" "$target/LICENSE"
mv "$work/package/$name.json" "$target/$name.json"
mv "$work/package/VERSION" "$target/VERSION"
echo "$name is now $(cat "$target/VERSION")."
