//! What is kept about people, and for how long.

use std::num::NonZeroU32;
use std::time::Duration;

use pixeld_core::privacy::IpPrivacy;

use super::value;
use super::vars::{Setting, Vars};

pub(super) const IP_PRIVACY: Setting = Setting::new("PIXELD_IP_PRIVACY", "`full`, `truncated` or `none`");
pub(super) const RETENTION_DAYS: Setting =
    Setting::new("PIXELD_RETENTION_DAYS", "whole days from 1 to 36500, without a unit, like 365, or `off`");

const RETENTION_DAYS_MOST: u64 = 36_500;

/// What is kept about people, and for how long.
#[derive(Debug, Clone)]
pub struct Privacy {
    /// `PIXELD_IP_PRIVACY`: how much of a client's address is kept. Default `full`.
    pub addresses: IpPrivacy,
    /// `PIXELD_RETENTION_DAYS`: days after which hits are deleted. `None`, the default: never.
    pub retention_days: Option<NonZeroU32>,
}

impl Privacy {
    pub(super) fn read(vars: &mut Vars) -> Privacy {
        let words = [("full", IpPrivacy::Full), ("truncated", IpPrivacy::Truncated), ("none", IpPrivacy::None)];
        let days = |text: &str| value::or_off(text, |text| value::whole_number(text, 1..=RETENTION_DAYS_MOST));
        Privacy {
            addresses: vars.read(&IP_PRIVACY, IpPrivacy::Full, |text| value::word(text, &words)),
            retention_days: vars
                .read(&RETENTION_DAYS, None, days)
                .and_then(|days| u32::try_from(days).ok())
                .and_then(NonZeroU32::new),
        }
    }

    /// The age at which hits are deleted.
    pub fn retention(&self) -> Option<Duration> {
        self.retention_days.map(|days| Duration::from_hours(24 * u64::from(days.get())))
    }
}
