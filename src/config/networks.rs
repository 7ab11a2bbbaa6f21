//! Lists of providers' networks.

use std::path::{Path, PathBuf};

use super::storage;
use super::value;
use super::vars::{Setting, Vars};

pub(super) const NETWORKS_DIR: Setting =
    Setting::new("PIXELD_NETWORKS_DIR", "the path of a directory, like /var/lib/pixeld/networks");
pub(super) const NETWORKS_UPDATE: Setting = Setting::new("PIXELD_NETWORKS_UPDATE", "`off` or `daily`");

/// Where lists of networks are stored, and whether they are fetched.
#[derive(Debug, Clone)]
pub struct Networks {
    /// `PIXELD_NETWORKS_DIR`: the directory of lists of providers' networks; absolute. Default: `networks` in the data directory.
    pub folder: PathBuf,
    /// `PIXELD_NETWORKS_UPDATE`: whether `serve` fetches the lists that providers publish once a day. Default: no.
    pub is_daily: bool,
}

impl Networks {
    pub(super) fn read(vars: &mut Vars, data_dir: &Path) -> Networks {
        Networks {
            folder: vars.read(&NETWORKS_DIR, data_dir.join("networks"), storage::absolute),
            is_daily: vars.read(&NETWORKS_UPDATE, false, |text| value::word(text, &[("off", false), ("daily", true)])),
        }
    }
}
