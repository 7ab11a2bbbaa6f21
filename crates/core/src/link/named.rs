//! Finds whom a path may name, even if it is not one of our links: nothing about those who opted out may be kept. Pure.
//!
//! Guarantees: returns too many ids rather than too few: each id, each key and each token in a path or its query,
//! encoded once or twice, whole or changed on the way, valid or not. Reads at most [`PARTS_MAX`] parts. Gives up: half
//! an id, and a token that lost its beginning.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode;
use uuid::Uuid;

use super::ending::key_before_ending;
use super::key::{Key, Namespace};
use super::{opt_out, parse_uuid, token};
use crate::ids::RecipientId;

/// Maximum parts of a path and its query that are read.
const PARTS_MAX: usize = 40;

/// Maximum bytes of a path that are read.
const PATH_BYTES_MAX: usize = 4096;

/// Position of the recipient in a link's token, and in an opt-out page's token.
const RECIPIENT_AT: [(usize, usize); 2] = [(token::TOKEN_CHARS, 1 + 1 + 4 + 16 + 16), (opt_out::TOKEN_CHARS, 1 + 1)];

/// Everybody whom a path, with its query, may name; keys count if the namespace is known.
pub fn recipients(path: &str, namespace: Option<Namespace>) -> Vec<RecipientId> {
    let path = &path.as_bytes()[..path.len().min(PATH_BYTES_MAX)];
    let mut found = Vec::new();
    for text in decodings(path) {
        let text = String::from_utf8_lossy(&text);
        for part in text.split(['/', '?', '&', '=']).filter(|part| !part.is_empty()).take(PARTS_MAX) {
            let whole: String = part.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
            ids(&whole, &mut found);
            tokens(&whole, &mut found);
            if let Some(namespace) = namespace {
                for key in [part, key_before_ending(part)] {
                    found.extend(Key::typed(key).map(|key| namespace.id_of::<RecipientId>(&key)));
                    found.extend(former(key, namespace));
                }
            }
        }
    }
    found.retain(|id| !id.is_nil());
    found.sort_unstable();
    found.dedup();
    found
}

/// The recipient that a keyed link named before keys were cleaned of blanks, invisible characters and encoding; `None`
/// if it is the same one. Recipients who opted out under that id stay out.
pub fn former_recipient(path: &str, namespace: Namespace) -> Option<RecipientId> {
    let (_, last) = path.rsplit_once('/')?;
    former(key_before_ending(last), namespace)
}

fn former(key: &str, namespace: Namespace) -> Option<RecipientId> {
    let bytes: Cow<'_, [u8]> = percent_decode(key.as_bytes()).into();
    let is_other = |read: Key<'_>| matches!(&read, Key::Text(text) if *text != bytes) || matches!(read, Key::Id(_));
    let is_former = Key::in_path(key).is_ok_and(is_other) && parse_uuid::<Uuid>(&bytes).is_none();
    is_former.then(|| namespace.id_of(&Key::Text(bytes)))
}

/// A text unchanged, decoded once, and decoded twice.
fn decodings(text: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let mut all = vec![Cow::Borrowed(text)];
    for _ in 0..2 {
        let Some(last) = all.last() else { break };
        let Cow::Owned(decoded) = Cow::from(percent_decode(last)) else { break };
        all.push(Cow::Owned(decoded));
    }
    all
}

/// The ids at both ends of each run that is long enough.
fn ids(text: &str, found: &mut Vec<RecipientId>) {
    for run in text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-')) {
        for length in [36, 32] {
            let ends = [run.get(..length), run.len().checked_sub(length).and_then(|at| run.get(at..))];
            found.extend(ends.into_iter().flatten().filter_map(|id| parse_uuid::<RecipientId>(id.as_bytes())));
        }
    }
}

/// The recipients in tokens of all our lengths; signatures are not checked. `3D` may precede a token.
fn tokens(text: &str, found: &mut Vec<RecipientId>) {
    for begin in [0, 2] {
        for (chars, at) in RECIPIENT_AT {
            // The last characters are not a complete group of three bytes, and contain only a part of the signature.
            let Some(front) = text.get(begin..begin + chars / 4 * 4) else { continue };
            let Ok(bytes) = URL_SAFE_NO_PAD.decode(front) else { continue };
            found.extend(bytes.get(at..at + 16).and_then(|id| Uuid::from_slice(id).ok().map(RecipientId::of)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::opt_out::OptOutKeys;
    use crate::link::token::{SigningKeys, Token};

    const NAMESPACE: Namespace = Namespace(Uuid::from_u128(77));
    const JANE: RecipientId = RecipientId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

    fn names(path: &str, id: RecipientId) -> bool {
        recipients(path, Some(NAMESPACE)).contains(&id)
    }

    #[test]
    fn every_recipient_that_a_path_may_name_is_found() {
        let keys = SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").unwrap();
        let other = RecipientId::from_u128(5);
        let (image, message) = (other.as_uuid().into(), other.as_uuid().into());
        let token = keys.sign(&Token { sent_at_s: 1, image, message, recipient: JANE }).unwrap();
        let out = OptOutKeys::new(keys, [7; 32]).sign(JANE);
        let simple = JANE.as_uuid().simple();
        for path in [
            format!("/image/{other}_{other}_{JANE}.gif"),
            format!("/image/nope_x_{simple}.png"),
            format!("/image/{other}_{other}_{JANE}_{other}.gif"),
            format!("/IMAGE/{other}%5F{other}%5F{JANE}"),
            format!("/image/{other}%255F{other}%255F{JANE}.gif&utm=1"),
            format!("/image/{other}_{other}_{{{JANE}}}.gif"),
            format!("/image/{other}_{other}_3D{simple}.gif"),
            format!("/t/nope/May/{JANE}.gif"),
            format!("/base/t/{other}/*|X|*/{JANE}"),
            format!("/o/{token}.gif"),
            format!("/o/3D{token}"),
            format!("/o/{}A.gif", &token[..93]),
            format!("/o/{}%20%0D%0A{}.gif", &token[..40], &token[40..]),
            format!("/opt-out/{out}"),
            format!("/OPT-OUT/{out})"),
            format!("/?r={JANE}"),
        ] {
            assert!(names(&path, JANE), "{path}");
        }
        let key = NAMESPACE.id_of(&Key::typed("jane@example.com").unwrap());
        for path in [
            "/t/nope/May/jane@example.com.gif",
            "/t/x/May/jane%2540example.com",
            "/x/y/jane@example.com.gif&utm=1",
            "/t/x/%20jane@example.com/y/z.gif",
            "/jane@example.com",
        ] {
            assert!(names(path, key), "{path}");
        }
        assert!(recipients("/.env", None).is_empty() && recipients("/o/x.gif", None).is_empty());
    }

    #[test]
    fn a_former_reading_is_returned_only_if_it_differs() {
        let id = |key: &[u8]| RecipientId::of(Uuid::new_v5(&NAMESPACE.0, key));
        for (path, former) in [
            ("/t/x/May/4711%20.gif", Some(id(b"4711 "))),
            ("/t/x/May/jane%2540example.com.gif", Some(id(b"jane%40example.com"))),
            ("/t/x/May/%E2%80%8B4711", Some(id("\u{200b}4711".as_bytes()))),
            ("/t/x/May/jane%40example.com.gif", None),
            ("/t/x/May/4711.50", None),
            ("/t/x/May/0123456789abcdef0123456789abcdef.gif", None),
        ] {
            assert_eq!(former_recipient(path, NAMESPACE), former, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: String, junk in "[-_/%.0-9a-fA-F]{0,200}") {
            for path in [path, junk] {
                let _ = (recipients(&path, Some(NAMESPACE)), former_recipient(&path, NAMESPACE));
            }
        }
    }
}
