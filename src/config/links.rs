//! Signed links.

use super::value;
use super::vars::{Setting, Vars};
use pixeld_core::link::token::SigningKeys;

pub(super) const SIGNING_KEYS: Setting = Setting::secret(
    "PIXELD_SIGNING_KEYS",
    "id:base64, separated by commas, newest first: an id from 0 to 255, a key of at least 16 bytes, like 1:$(openssl rand -base64 32)",
);
pub(super) const REQUIRE_SIGNED: Setting = Setting::new("PIXELD_REQUIRE_SIGNED", "`true` or `false`");

/// The signing of links.
#[derive(Debug, Clone)]
pub struct Signing {
    /// `PIXELD_SIGNING_KEYS` or `PIXELD_SIGNING_KEYS_FILE`: the keys of signed links, the newest first. Default: none.
    pub keys: SigningKeys,
    /// `PIXELD_REQUIRE_SIGNED`: only signed links are recorded; there is a key then. Default false.
    pub is_required: bool,
}

impl Signing {
    pub(super) fn read(vars: &mut Vars) -> Signing {
        let secret = vars.secret(&SIGNING_KEYS, |text| {
            SigningKeys::parse(text).map(drop).map_err(|wrong| format!("{wrong} (its value is not shown)"))
        });
        let keys = secret.and_then(|secret| SigningKeys::parse(secret.expose()).ok()).unwrap_or_default();
        let is_required =
            vars.read(&REQUIRE_SIGNED, false, |text| value::word(text, &[("true", true), ("false", false)]));
        // A command may run without them; `link` reports what is missing.
        if is_required && keys.is_empty() && !vars.is_refused(&SIGNING_KEYS) && !vars.is_after_serve() {
            vars.refuse(
                REQUIRE_SIGNED.name,
                "is true without PIXELD_SIGNING_KEYS, so nothing could be recorded",
                "`false`, or set the keys",
            );
        }
        Signing { keys, is_required }
    }
}
