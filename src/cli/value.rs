//! Values on the command line.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::images::upload;
use pixeld_core::ids::ImageId;

/// An image's id; never nil, which means absent in a link.
pub(super) fn parse_id(text: &str) -> Result<ImageId, String> {
    match text.parse::<ImageId>() {
        Ok(id) if id.is_nil() => Err("the nil UUID means \"none\", so it cannot be the id of an image".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err("use a UUID, like 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11".to_owned()),
    }
}

/// A time as seconds since 1970; never 0, which means unknown in a link.
pub(super) fn parse_time(text: &str) -> Result<u32, String> {
    let seconds = if text == "now" {
        pixeld_core::clock::now_utc().unix_timestamp()
    } else if let Ok(seconds) = text.parse() {
        seconds
    } else {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "use a time: now, 2026-05-04T09:00:00Z, or seconds since 1970".to_owned())?
            .unix_timestamp()
    };
    u32::try_from(seconds).ok().filter(|&seconds| seconds > 0).ok_or("use a time from 1970 to 2106".to_owned())
}

/// A title or a message's name.
pub(super) fn parse_title(text: &str) -> Result<String, String> {
    upload::wrong_title(text).map_or(Ok(text.to_owned()), |wrong| Err(wrong.to_owned()))
}
