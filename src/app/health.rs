//! Checks whether `pixeld serve` serves pixels, by a request like a mail client's: for `pixeld healthcheck`, and for
//! systemd.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Maximum time, from the connection to the answer's last byte.
pub(super) const HEALTH_WAIT: Duration = Duration::from_secs(2);

/// Maximum bytes of the answer that are read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Requests the public listener's `/healthz`.
///
/// # Errors
/// If it does not answer 200 within [`HEALTH_WAIT`].
pub(super) async fn ask(listen: SocketAddr) -> anyhow::Result<()> {
    let address = reachable(listen);
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("not within {} s", HEALTH_WAIT.as_secs()));
    let answer = tokio::time::timeout(HEALTH_WAIT, exchange(address)).await.unwrap_or_else(|_| Err(late()));
    let answer = answer.with_context(|| format!("no answer from {address}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(status.starts_with("HTTP/1.1 200"), "{address} answers {status:?}");
    Ok(())
}

async fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The address under which a client on the same machine reaches a listener.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
