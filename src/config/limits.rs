//! Bounds on clients and on this process.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::value::{self, Parsed, quote};
use super::vars::{Setting, Vars};
use super::{Secret, redis};

pub(super) const THROTTLE: Setting =
    Setting::new("PIXELD_THROTTLE", "a duration from 1ms to 30d, like 1h, 30m or 10s, or `off`");
pub(super) const ADDRESS_RATE: Setting =
    Setting::new("PIXELD_ADDRESS_RATE", "hits a second from 1/s to 1000000/s, like 1000/s, or `off`");
pub(super) const CONNECTIONS_MAX: Setting =
    Setting::new("PIXELD_CONNECTIONS_MAX", "a whole number from 1 to 1000000, like 20000");
pub(super) const THREADS: Setting =
    Setting::new("PIXELD_THREADS", "a whole number from 1 to 1024, or unset for one a core");
pub(super) const DRAIN_SECONDS: Setting =
    Setting::new("PIXELD_DRAIN_SECONDS", "whole seconds from 0 to 3600, without a unit, like 10");

const THROTTLE_DEFAULT: Duration = Duration::from_secs(3600);
const THROTTLE_LEAST: Duration = Duration::from_millis(1);
const THROTTLE_MOST: Duration = Duration::from_secs(30 * 86_400);
const ADDRESS_RATE_DEFAULT: u64 = 1000;
const ADDRESS_RATE_MOST: u64 = 1_000_000;
const CONNECTIONS_MAX_DEFAULT: u64 = 20_000;
const CONNECTIONS_MAX_MOST: u64 = 1_000_000;
const THREADS_MOST: u64 = 1024;
const DRAIN_SECONDS_DEFAULT: u64 = 10;
const DRAIN_SECONDS_MOST: u64 = 3600;

/// Bounds on clients and on this process.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `PIXELD_THROTTLE`: at most one hit of the same fetch by the same client is kept in this time. `None`: all are
    /// kept. Default 1 h.
    pub throttle: Option<Duration>,
    /// `REDIS_URL` or `REDIS_URL_FILE`: the Redis through which nodes share their throttle. `None`: each has its own.
    pub redis_url: Option<Secret>,
    /// `PIXELD_ADDRESS_RATE`: maximum recorded hits per second of one client address. `None`: no bound. Default 1000.
    pub address_rate: Option<NonZeroU32>,
    /// `PIXELD_CONNECTIONS_MAX`: open connections to the public listener, all threads together. Default 20000.
    pub connections_max: usize,
    /// `PIXELD_THREADS`: threads that serve pixels. Default: the cores that this process may use.
    pub threads: usize,
    /// `PIXELD_DRAIN_SECONDS`: the time that accepted work gets to finish before exit. Default 10 s.
    pub drain: Duration,
}

impl Limits {
    pub(super) fn read(vars: &mut Vars) -> Limits {
        let redis_url = redis::redis_url(vars);
        let throttle = |text: &str| value::or_off(text, |text| value::duration(text, THROTTLE_LEAST..=THROTTLE_MOST));
        let throttle = vars.read(&THROTTLE, Some(THROTTLE_DEFAULT), throttle);
        let rate = vars.read(&ADDRESS_RATE, Some(ADDRESS_RATE_DEFAULT), |text| value::or_off(text, parse_rate));
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
        let mut number =
            |setting, default, allowed| vars.read(setting, default, |text| value::whole_number(text, allowed));
        Limits {
            throttle,
            redis_url,
            address_rate: rate.and_then(|rate| u32::try_from(rate).ok()).and_then(NonZeroU32::new),
            connections_max: number(&CONNECTIONS_MAX, CONNECTIONS_MAX_DEFAULT, 1..=CONNECTIONS_MAX_MOST) as usize,
            threads: number(&THREADS, cores.min(THREADS_MOST), 1..=THREADS_MOST) as usize,
            drain: Duration::from_secs(number(&DRAIN_SECONDS, DRAIN_SECONDS_DEFAULT, 0..=DRAIN_SECONDS_MOST)),
        }
    }
}

fn parse_rate(text: &str) -> Parsed<u64> {
    let number = text.strip_suffix("/s").ok_or_else(|| format!("is {}, which does not end with /s", quote(text)))?;
    value::whole_number(number.trim_end(), 1..=ADDRESS_RATE_MOST)
}
