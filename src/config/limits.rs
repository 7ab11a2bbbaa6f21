//! Bounds on clients and on this process.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::value::{self, Parsed, quote};
use super::vars::{Setting, Vars};

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

pub(super) fn throttle(vars: &mut Vars) -> Option<Duration> {
    let range = THROTTLE_LEAST..=THROTTLE_MOST;
    vars.read(&THROTTLE, Some(THROTTLE_DEFAULT), |text| value::or_off(text, |text| value::duration(text, range)))
}

pub(super) fn address_rate(vars: &mut Vars) -> Option<NonZeroU32> {
    let rate = |text: &str| value::or_off(text, parse_rate);
    let rate = vars.read(&ADDRESS_RATE, Some(ADDRESS_RATE_DEFAULT), rate);
    rate.and_then(|rate| u32::try_from(rate).ok()).and_then(NonZeroU32::new)
}

pub(super) fn connections_max(vars: &mut Vars) -> usize {
    let number = |text: &str| value::whole_number(text, 1..=CONNECTIONS_MAX_MOST);
    vars.read(&CONNECTIONS_MAX, CONNECTIONS_MAX_DEFAULT, number) as usize
}

pub(super) fn threads(vars: &mut Vars) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
    vars.read(&THREADS, cores.min(THREADS_MOST), |text| value::whole_number(text, 1..=THREADS_MOST)) as usize
}

pub(super) fn drain(vars: &mut Vars) -> Duration {
    let number = |text: &str| value::whole_number(text, 0..=DRAIN_SECONDS_MOST);
    Duration::from_secs(vars.read(&DRAIN_SECONDS, DRAIN_SECONDS_DEFAULT, number))
}

fn parse_rate(text: &str) -> Parsed<u64> {
    let number = text.strip_suffix("/s").ok_or_else(|| format!("is {}, which does not end with /s", quote(text)))?;
    value::whole_number(number.trim_end(), 1..=ADDRESS_RATE_MOST)
}
