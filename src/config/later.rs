//! Settings that later versions bring.
//!
//! Guarantees: none of them can be set to something that is then not done.

use std::path::Path;

use super::storage;
use super::vars::{Setting, Vars};

pub(super) const REDIS_URL: Setting = Setting::secret("REDIS_URL", UNSET);
pub(super) const SIGNING_KEYS: Setting = Setting::secret("PIXELD_SIGNING_KEYS", UNSET);
pub(super) const REQUIRE_SIGNED: Setting = Setting::new("PIXELD_REQUIRE_SIGNED", "`false`, or unset");
pub(super) const NETWORKS_DIR: Setting =
    Setting::new("PIXELD_NETWORKS_DIR", "the directory `networks` in PIXELD_DATA_DIR, or unset");
pub(super) const NETWORKS_UPDATE: Setting = Setting::new("PIXELD_NETWORKS_UPDATE", "`off`, or unset");

const UNSET: &str = "unset";
const NOT_YET: &str = "is not available in this version yet; unset it";

/// Notes each of them that is not what it is without being set.
pub(super) fn refuse(vars: &mut Vars, data_dir: &Path) {
    let not_yet = || NOT_YET.to_owned();
    for setting in [&REDIS_URL, &SIGNING_KEYS] {
        vars.secret(setting, |_| Err(not_yet()));
    }
    vars.read(&REQUIRE_SIGNED, (), |text| (text == "false").then_some(()).ok_or_else(not_yet));
    vars.read(&NETWORKS_UPDATE, (), |text| (text == "off").then_some(()).ok_or_else(not_yet));
    let networks = data_dir.join("networks");
    vars.read(&NETWORKS_DIR, (), |text| {
        storage::absolute(text).ok().filter(|path| *path == networks).map(drop).ok_or_else(not_yet)
    });
}
