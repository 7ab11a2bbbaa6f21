//! SIGTERM, SIGINT and SIGHUP (a terminal was closed).
//!
//! Guarantees: while a [`Hold`] exists, the first of them is remembered, whenever it comes, and [`signal`] returns it;
//! a second SIGTERM or SIGINT ends the process at once. A second SIGHUP does nothing: a closing terminal sends several.
//! Before the first hold the system's default applies (the process ends); without a hold after that, the effect is the
//! same. A SIGHUP that the process was started to ignore (`nohup`) stays ignored. Gives up: after a signal without a
//! hold, the process exits with 128 plus the signal's number, instead of dying from the signal itself.

use std::io;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio::sync::watch;

/// The exit status after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// The number of holds.
static HOLDS: AtomicUsize = AtomicUsize::new(0);

/// The first signal, by its name, and why signals cannot be received.
static CAME: OnceLock<watch::Receiver<Option<&'static str>>> = OnceLock::new();

/// While it exists, a signal requests an end instead of causing it.
#[derive(Debug)]
#[must_use = "signals are held as long as this lives"]
pub(crate) struct Hold(());

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Holds signals from now on.
///
/// # Errors
/// If the operating system refuses the handlers.
pub(crate) fn hold() -> io::Result<Hold> {
    HOLDS.fetch_add(1, Ordering::SeqCst);
    let hold = Hold(());
    // A command holds on its only thread, so no other thread does the same at this moment.
    if CAME.get().is_none() {
        let (first, came) = watch::channel(None);
        take_signals(first)?;
        CAME.set(came).ok();
    }
    Ok(hold)
}

/// The first signal that came while they were held.
pub(crate) fn came() -> Option<&'static str> {
    CAME.get().and_then(|came| *came.borrow())
}

/// Resolves with the name of the first signal; never if no hold ever existed.
pub(crate) async fn signal() -> &'static str {
    if let Some(mut came) = CAME.get().cloned()
        && let Ok(first) = came.wait_for(Option::is_some).await
        && let Some(name) = *first
    {
        return name;
    }
    std::future::pending().await
}

/// Starts the thread that receives them, and waits until its handlers are in place.
fn take_signals(first: watch::Sender<Option<&'static str>>) -> io::Result<()> {
    let (ready, is_ready) = mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = match runtime::Builder::new_current_thread().enable_io().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            match Signals::listen() {
                Ok(signals) => {
                    drop(ready.send(Ok(())));
                    signals.take(&first).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that takes signals ended")))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        let hang_up = if is_hang_up_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up,
        })
    }

    async fn take(mut self, first: &watch::Sender<Option<&'static str>>) {
        loop {
            let (name, kind) = self.next().await;
            let is_held = HOLDS.load(Ordering::SeqCst) > 0;
            if !is_held {
                process::exit(128 + kind.as_raw_value());
            }
            if first.borrow().is_none() {
                first.send_replace(Some(name));
            } else if kind != SignalKind::hangup() {
                tracing::warn!("a second signal: the next start loads the hits in the spool");
                process::exit(EXIT_AT_ONCE);
            }
        }
    }

    async fn next(&mut self) -> (&'static str, SignalKind) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            _ = hang_up => ("SIGHUP", SignalKind::hangup()),
        }
    }
}

/// Whether this process was started to ignore SIGHUP. Only Linux shows that; elsewhere SIGHUP is handled.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_first_bit_set(&status, "SigIgn:")
}

/// SIGHUP is signal 1, and so the lowest bit of the mask.
fn is_first_bit_set(status: &str, name: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_shows_sighup() {
        for (mask, is_set) in [("0000000000001001", true), ("0000000000001000", false), ("", false), ("x", false)] {
            assert_eq!(is_first_bit_set(&format!("Name:\tx\nSigIgn:\t{mask}\nSigCgt:\t1\n"), "SigIgn:"), is_set);
        }
    }
}
