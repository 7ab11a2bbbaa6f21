//! The plan of a load, and its outcome.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::pixels::Pixels;

/// The longest latency in the histogram.
pub(super) const LATENCY_MAX: Duration = Duration::from_secs(60);

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the previous answer has arrived.
    Closed,
    /// At this rate, requests a second over all threads.
    Open(f64),
}

/// How long connections are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// For all requests.
    KeepAlive,
    /// For one request.
    New,
    /// For this many of a hundred requests a new connection, otherwise the old one.
    Mixed(u8),
}

impl Reuse {
    pub(super) fn closes(self, number: u64) -> bool {
        match self {
            Reuse::KeepAlive => false,
            Reuse::New => true,
            Reuse::Mixed(percent) => {
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (u64::from(percent) << 32) / 100
            }
        }
    }
}

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's address.
    pub target: SocketAddr,
    /// The requested pixels.
    pub pixels: Pixels,
    /// The pace.
    pub pace: Pace,
    /// The use of connections.
    pub reuse: Reuse,
    /// Connections, over all threads.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// Maximum time; the ledger bounds it, too.
    pub duration: Duration,
}

/// The outcome of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
    /// Answers 200 and 304.
    pub answered: u64,
    /// Answers of another status.
    pub refused: u64,
    /// Requests whose connection ended before the answer.
    pub broken: u64,
    /// Requests whose answer took longer than [`ANSWER_WAIT`](super::ANSWER_WAIT).
    pub timed_out: u64,
    /// Connections that could not be established.
    pub not_connected: u64,
    /// Time from the first request to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    pub(super) fn new() -> anyhow::Result<Outcome> {
        let latency = Histogram::new_with_bounds(100, LATENCY_MAX.as_nanos() as u64, 3)?;
        let [answered, refused, broken, timed_out, not_connected] = [0; 5];
        Ok(Outcome { latency, answered, refused, broken, timed_out, not_connected, elapsed: Duration::ZERO })
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latency, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Shows a load's progress to others, and lets them end it early.
#[derive(Debug, Default)]
pub struct Control {
    /// Set to end it.
    pub stop: AtomicBool,
    /// Answers so far.
    pub answered: AtomicU64,
}
