//! Lists of providers' networks.

use std::path::{Path, PathBuf};

use super::storage;
use super::value;
use super::vars::{Setting, Vars};

pub(super) const NETWORKS_DIR: Setting =
    Setting::new("PIXELD_NETWORKS_DIR", "the path of a directory, like /var/lib/pixeld/networks");
pub(super) const NETWORKS_UPDATE: Setting = Setting::new("PIXELD_NETWORKS_UPDATE", "`off` or `daily`");

pub(super) fn folder(vars: &mut Vars, data_dir: &Path) -> PathBuf {
    vars.read(&NETWORKS_DIR, data_dir.join("networks"), storage::absolute)
}

pub(super) fn daily(vars: &mut Vars) -> bool {
    vars.read(&NETWORKS_UPDATE, false, |text| value::word(text, &[("off", false), ("daily", true)]))
}
