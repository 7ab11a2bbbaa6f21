//! Links: how a pixel's path names an image, a message and a recipient. Pure: text and keys in, ids out.
//!
//! ```text
//! /image/{image}[_{message}[_{recipient}]].{ext}      the ids as they are
//! /t/{image}/{message-key}/{recipient-key}.{ext}      the sender's own keys (see `key`)
//! /o/{token}.{ext}                                    ids and send time under a signature (see `token`)
//! /opt-out/{token}                                    no pixel: the page on which a recipient opts out (see `opt_out`)
//! ```

pub mod ending;
pub mod forgive;
pub mod key;
pub mod make;
pub mod merge_tag;
pub mod named;
pub mod opt_out;
pub mod pasted;
pub mod route;
mod signed;
pub mod token;

use uuid::Uuid;

/// A UUID in one of the two forms that links have: 32 hexadecimal digits in either case, with hyphens at 8-4-4-4-12 or
/// none.
pub fn parse_uuid<Id: From<Uuid>>(text: &[u8]) -> Option<Id> {
    // The parser accepts braces and `urn:uuid:` too; those forms are longer.
    if text.len() != 36 && text.len() != 32 {
        return None;
    }
    Uuid::try_parse_ascii(text).ok().map(Id::from)
}
