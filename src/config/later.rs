//! Settings that later versions bring.
//!
//! Guarantees: none of them can be set to something that is then not done.

use super::vars::{Setting, Vars};

pub(super) const REDIS_URL: Setting = Setting::secret("REDIS_URL", "unset");

const NOT_YET: &str = "is not available in this version yet; unset it";

/// Notes each of them that is not what it is without being set.
pub(super) fn refuse(vars: &mut Vars) {
    vars.secret(&REDIS_URL, |_| Err(NOT_YET.to_owned()));
}
