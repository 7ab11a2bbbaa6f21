#!/usr/bin/env bash
# The crate http, and with it hyper, takes a request target with a raw `#` and silently drops what follows.
#
# Expected: the grammar of a request target has no `#` (RFC 9112, section 3.2), so it is refused, as `<` and `>` are.
# Seen: `/t/may/jane#1.gif` parses, and its path is `/t/may/jane`: another, valid path.
# Whom it bites: servers on hyper whose paths carry ids. No browser sends `#`, but scripts, scanners and mail proxies that take a
# link out of an email as it stands do, and the request then names somebody else.
# Exits 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "hash"
version = "0.0.0"
edition = "2021"

[dependencies]
http = "=1.5.0"
TOML
cat > src/main.rs <<'RUST'
fn main() {
    for target in ["/t/may/jane#1.gif", "/t/may/jane#", "/t/may/jane?a=1#b", "/t/may/<jane>.gif", "/t/may/{jane}.gif"] {
        match target.parse::<http::Uri>() {
            Ok(uri) => println!("{target} -> {}", uri.path_and_query().map_or("nothing", |path| path.as_str())),
            Err(error) => println!("{target} -> refused: {error}"),
        }
    }
}
RUST
echo "http 1.5.0: a request target -> its path and query"
cargo run --quiet | tee seen

diff - seen <<'EXPECTED'
/t/may/jane#1.gif -> /t/may/jane
/t/may/jane# -> /t/may/jane
/t/may/jane?a=1#b -> /t/may/jane?a=1
/t/may/<jane>.gif -> refused: invalid uri character
/t/may/{jane}.gif -> /t/may/{jane}.gif
EXPECTED
echo "as expected: what follows a raw # is dropped, and not refused"
