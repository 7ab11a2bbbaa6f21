#!/usr/bin/env bash
# The crate sd-notify takes the address of an abstract socket in NOTIFY_SOCKET for the path of a file.
#
# Expected: as sd_notify(3) of systemd says, a NOTIFY_SOCKET that begins with @ is an abstract socket of Linux, and a message goes there.
# Seen: the crate connects to a file that is called @…, finds none, and reports an error. The manager waits for READY=1 in vain. (A path
# works, and so does a plain datagram to the abstract socket.)
# Whom it bites: services of Type=notify under managers that hand out an abstract socket, as containers and tests do so that no file has to
# be shared. They are killed at the start time-out, and most programs throw the error away.
# Exits 1 if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "ready"
version = "0.0.0"
edition = "2021"

[dependencies]
sd-notify = "=0.5.0"
TOML
cat > src/main.rs <<'RUST'
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 100];
    match socket.recv(&mut bytes) {
        Ok(length) => format!("{:?}", String::from_utf8_lossy(&bytes[..length])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn main() -> io::Result<()> {
    let address = std::env::var("NOTIFY_SOCKET").unwrap();
    let socket = match address.strip_prefix('@') {
        Some(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => UnixDatagram::bind(&address)?,
    };
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let kind = if address.starts_with('@') { "abstract" } else { "a path" };
    let outcome = sd_notify::notify(&[sd_notify::NotifyState::Ready]).map_err(|error| error.kind());
    println!("{kind}: notify says {outcome:?}, the manager receives {}", received(&socket));
    if let Some(name) = address.strip_prefix('@') {
        UnixDatagram::unbound()?.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name)?)?;
        println!("{kind}: a plain datagram, the manager receives {}", received(&socket));
    }
    Ok(())
}
RUST
echo "sd-notify 0.5.0: the address in NOTIFY_SOCKET, what notify returns, what arrives"
cargo build --quiet
{
    NOTIFY_SOCKET="$folder/notify" target/debug/ready
    NOTIFY_SOCKET="@ready-$$" target/debug/ready
} | tee seen

diff - seen <<'EXPECTED'
a path: notify says Ok(()), the manager receives "READY=1\n"
abstract: notify says Err(NotFound), the manager receives nothing
abstract: a plain datagram, the manager receives "READY=1"
EXPECTED
echo "as expected: an abstract socket is taken for a file"
