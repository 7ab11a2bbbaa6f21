//! Notifications to systemd, for a service with `Type=notify`: pixels are served, pixeld is alive, pixeld drains.
//!
//! Guarantees: ready is sent only after the public listener answered. With `WatchdogSec=`, a keep-alive is sent only
//! while it answers, so that systemd restarts a pixeld that runs but serves nobody. Gives up: a message that cannot be
//! sent is logged and not repeated; outside systemd (no `NOTIFY_SOCKET`) nothing is sent. Each message is one datagram.
//! The crate sd-notify (0.5, of January 2025) does not support abstract sockets, and waits forever while systemd's
//! queue is full.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::health;

/// How long a message may wait for room in systemd's queue.
const NOTIFY_WAIT: Duration = Duration::from_secs(1);

/// Wait between two checks of a listener that does not answer yet.
const READY_POLL: Duration = Duration::from_millis(20);

/// Keep-alives per watchdog time: a busy machine may fail to answer in time now and then.
const SIGNS: u32 = 4;

/// Time requested beyond the drain, for stopping what comes after it.
const STOP_RESERVE: Duration = Duration::from_secs(10);

/// The connection to systemd.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: UnixDatagram,
    to: UnixAddress,
    /// The time after which systemd misses a keep-alive; `None` if it does not expect any.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// systemd, if it started this process and expects notifications.
    pub(super) fn from_env() -> Option<Notifier> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&time| is_ours && time > 0).map(Duration::from_micros);
        match Notifier::new(&name, watchdog) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is set but cannot be used; systemd gets no reports");
                None
            }
        }
    }

    fn new(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Notifier> {
        let to = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddress::from_abstract_name(name)?,
            None => UnixAddress::from_pathname(Path::new(name))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(NOTIFY_WAIT))?;
        Ok(Notifier { socket, to, watchdog })
    }

    /// Sends "ready" once pixels are served, and then keep-alives as long as they are.
    pub(super) async fn notify_while_serving(self: Arc<Self>, listen: SocketAddr) {
        while let Err(error) = health::ask(listen).await {
            tracing::debug!(error = format!("{error:#}"), "pixels are not served yet");
            tokio::time::sleep(READY_POLL).await;
        }
        self.notify(&format!("READY=1\nSTATUS=pixels are served on {listen}"));
        let Some(watchdog) = self.watchdog else { return };
        loop {
            match health::ask(listen).await {
                Ok(()) => self.notify("WATCHDOG=1"),
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "pixels are not served; nothing is reported to the watchdog"
                    )
                }
            }
            tokio::time::sleep(watchdog / SIGNS).await;
        }
    }

    /// Sends that the drain has begun, and how long it may take, whatever `TimeoutStopSec=` is.
    pub(super) fn notify_stopping(&self, drain: Duration) {
        let time = (drain + STOP_RESERVE).as_micros();
        self.notify(&format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={time}"));
    }

    fn notify(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.to) {
            tracing::warn!(%error, message, "cannot report to systemd");
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test plays systemd beside what it tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// How long something may take on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers as `status` says: not at all, or with this status. Reports how it treated each connection.
    async fn listener(status: watch::Receiver<Option<u16>>) -> (SocketAddr, watch::Receiver<Vec<Option<u16>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, treated) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let status = *status.borrow();
                if let Some(status) = status {
                    // Read all of it: unread bytes would turn the close into a reset.
                    assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
                    stream.write_all(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).await.unwrap();
                } else {
                    held.push(stream);
                }
                told.send_modify(|all| all.push(status));
            }
        });
        (address, treated)
    }

    /// The next message, when it comes.
    async fn next(systemd: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let receiving = async {
            loop {
                match systemd.recv(&mut buffer) {
                    Ok(length) => return String::from_utf8(buffer[..length].to_vec()).unwrap(),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, receiving).await.expect("a message")
    }

    fn heard(systemd: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        std::iter::from_fn(|| {
            systemd.recv(&mut buffer).ok().map(|length| String::from_utf8(buffer[..length].to_vec()).unwrap())
        })
        .collect()
    }

    #[tokio::test]
    async fn ready_and_alive_are_sent_only_while_the_listener_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let (answer, status) = watch::channel(Some(503));
        let (address, mut treated) = listener(status).await;
        let notifier = Arc::new(Notifier::new(path.as_os_str(), Some(Duration::from_millis(100))).unwrap());
        let notifying = tokio::spawn(Arc::clone(&notifier).notify_while_serving(address));
        let mut until = async |done: fn(&Vec<Option<u16>>) -> bool| {
            timeout(PATIENCE, treated.wait_for(done)).await.expect("a request").unwrap();
        };
        until(|all| all.len() > 3).await;
        assert_eq!(heard(&systemd), Vec::<String>::new(), "it answers 503");
        answer.send_replace(Some(200));
        assert_eq!(next(&systemd).await, format!("READY=1\nSTATUS=pixels are served on {address}"));
        for _ in 0..3 {
            assert_eq!(next(&systemd).await, "WATCHDOG=1");
        }
        // It accepts connections, and hangs. A client that asks again has reported the previous answer.
        answer.send_replace(None);
        until(|all| all.contains(&None)).await;
        heard(&systemd);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(heard(&systemd), Vec::<String>::new());
        notifying.abort();
        notifier.notify_stopping(Duration::from_secs(7));
        assert_eq!(heard(&systemd), ["STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=17000000"]);
    }

    #[tokio::test]
    async fn a_missing_systemd_or_a_bad_socket_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Notifier::new(folder.path().join("gone").as_os_str(), None).unwrap();
        gone.notify_stopping(Duration::ZERO);
        let too_long = "/".repeat(200);
        assert!(Notifier::new(OsStr::new(&too_long), None).is_err());
        assert!(Notifier::new(OsStr::new("@an abstract name"), None).is_ok());
    }
}
