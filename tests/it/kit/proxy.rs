//! A proxy between pixeld and PostgreSQL: passes bytes on, cuts a connection right after its COMMIT was sent, or passes
//! nothing more while connections stay open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// COMMIT as the simple query protocol sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

#[derive(Default)]
struct Mode {
    /// Of this many commits the last is cut; 0 cuts none.
    cut_each: AtomicU64,
    commits: AtomicU64,
    cuts: AtomicU64,
    frozen: AtomicBool,
}

/// A proxy in front of one PostgreSQL; lives until the test's process ends.
pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<Mode>,
}

impl Proxy {
    pub fn start(socket: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mode::default());
        let for_all = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let mode = Arc::clone(&for_all);
                std::thread::spawn(move || pass_on(&client, &server, &mode));
            }
        });
        Proxy { address, mode }
    }

    /// The URL of the database behind it.
    pub fn url(&self) -> String {
        format!("postgresql://pixeld@{}/pixeld?sslmode=disable", self.address)
    }

    /// Cuts one in this many commits: it reaches PostgreSQL, but its answer is lost.
    pub fn cut_each_commit(&self, each: u64) {
        self.mode.cut_each.store(each, Ordering::SeqCst);
    }

    pub fn cuts(&self) -> u64 {
        self.mode.cuts.load(Ordering::SeqCst)
    }

    /// From now on open connections stay open but pass nothing; new ones work.
    pub fn freeze_open_connections(&self) {
        self.mode.frozen.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
        self.mode.frozen.store(false, Ordering::SeqCst);
    }
}

fn pass_on(client: &TcpStream, server: &UnixStream, mode: &Mode) {
    let lost = AtomicBool::new(false);
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, server, mode, &lost, true));
        scope.spawn(|| copy(server, client, mode, &lost, false));
    });
}

/// Passes bytes on until either side ends; once frozen it only holds both ends open.
fn copy(mut from: impl Read, mut to: impl Write, mode: &Mode, lost: &AtomicBool, to_server: bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut frozen = false;
    while !lost.load(Ordering::SeqCst) {
        frozen |= mode.frozen.load(Ordering::SeqCst);
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if frozen => {}
            Ok(read) => {
                let commits = to_server && buffer[..read].windows(COMMIT.len()).any(|bytes| bytes == COMMIT);
                let each = mode.cut_each.load(Ordering::SeqCst);
                let number = if commits { mode.commits.fetch_add(1, Ordering::SeqCst) + 1 } else { 1 };
                let cuts = commits && each > 0 && number % each == 0;
                if cuts {
                    // Set first, so that the other direction does not deliver the answer.
                    lost.store(true, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(60));
                    mode.cuts.fetch_add(1, Ordering::SeqCst);
                }
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if cuts {
                    // PostgreSQL receives it completely before the connection is closed.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    lost.store(true, Ordering::SeqCst);
}
