//! What a path requests. Pure; reading a path with plain ids allocates nothing. If this grammar refuses a path,
//! `link::forgive` cleans it and it is read once more.
//!
//! ```text
//! /image/{image}[_{message}[_{recipient}]].{ext}      ext: 1 to 5 letters or digits
//! /t/{image}/{message-key}/{recipient-key}.{ext}      keys: see `link::key`
//! /o/{token}.{ext}                                    tokens: see `link::token`
//! ```
//!
//! A UUID is 32 hexadecimal digits in either case, with hyphens at 8-4-4-4-12 or with none; no braces, no `urn:`. The
//! nil UUID means "absent", so a nil image is not an image. Without a proper ending, or with a malformed image id, a
//! path is not an image. Anything wrong after a proper image id makes the ids malformed: the image is served, and
//! nothing is recorded. Under `/o/`, everything that is not a valid token is forged.
use crate::ids::{ImageId, MessageId, RecipientId};
use crate::link::key::{Key, KeyError};
use crate::link::merge_tag::is_unfilled;
use crate::link::parse_uuid;
use crate::link::token::SigningKeys;
use crate::link::{ending, forgive};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use uuid::Uuid;

/// No second link is as short as this.
const TAIL_BYTES_WITHOUT_LINK: usize = 16;

/// What a path requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// An image, with the ids of its open.
    Pixel {
        /// The image.
        image: ImageId,
        /// Message and recipient.
        ids: Ids<'a>,
        /// When the message was sent, in s since 1970; 0 if the link does not say.
        sent_at_s: u32,
        /// Whether the link has our signature.
        is_signed: bool,
    },
    /// Under `/image/` or `/t/`, with an impossible image id.
    NotAnImage,
    /// Under `/o/`, without a token of ours.
    Forged,
    /// `/healthz`.
    Health,
    /// Nothing of ours.
    NotFound,
}

/// The ids after an image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids<'a> {
    /// Valid ones; nil if absent.
    Named {
        /// The message.
        message: MessageId,
        /// The recipient.
        recipient: RecipientId,
    },
    /// The sender's own keys, at least one of which is not a UUID.
    Keyed {
        /// The message.
        message: Key<'a>,
        /// The recipient.
        recipient: Key<'a>,
    },
    /// A message or recipient that is not a valid id or key, or too many parts.
    Malformed,
    /// A merge tag that the sender's program did not replace.
    Unmerged,
}

impl Route<'_> {
    /// Whether it needs no forgiving.
    fn is_read(&self) -> bool {
        matches!(self, Route::Pixel { ids: Ids::Named { .. } | Ids::Keyed { .. } | Ids::Unmerged, .. } | Route::Health)
    }

    fn into_owned(self) -> Route<'static> {
        match self {
            Route::Pixel { image, ids, sent_at_s, is_signed } => {
                Route::Pixel { image, ids: ids.into_owned(), sent_at_s, is_signed }
            }
            Route::NotAnImage => Route::NotAnImage,
            Route::Forged => Route::Forged,
            Route::Health => Route::Health,
            Route::NotFound => Route::NotFound,
        }
    }
}

impl Ids<'_> {
    fn into_owned(self) -> Ids<'static> {
        match self {
            Ids::Named { message, recipient } => Ids::Named { message, recipient },
            Ids::Keyed { message, recipient } => {
                Ids::Keyed { message: message.into_owned(), recipient: recipient.into_owned() }
            }
            Ids::Malformed => Ids::Malformed,
            Ids::Unmerged => Ids::Unmerged,
        }
    }
}

/// Reads a path, without its query. Changes on the way are forgiven, as far as the path has exactly one meaning.
pub fn route<'a>(path: &'a str, keys: &SigningKeys) -> Route<'a> {
    let read = strict(path, keys);
    if read.is_read() { read } else { forgiven(path, keys).unwrap_or(read) }
}

/// Reads a path that the strict reader refused; `None` if it is not a link at all, or may be two.
#[cold]
fn forgiven(path: &str, keys: &SigningKeys) -> Option<Route<'static>> {
    let readings = forgive::readings(path);
    let routes: Vec<Route<'_>> = readings.iter().map(|reading| strict(reading, keys)).collect();
    let mut read = routes.iter().filter(|route| route.is_read());
    match read.next() {
        Some(first) => read.all(|other| other == first).then(|| first.clone().into_owned()),
        // The reason why it is not a link says more than that nothing is under this path.
        None => routes.into_iter().next().map(Route::into_owned),
    }
}

/// Reads an unchanged path.
pub(super) fn strict<'a>(path: &'a str, keys: &SigningKeys) -> Route<'a> {
    if let Some(name) = path.strip_prefix("/image/") {
        return plain(name);
    }
    if let Some(rest) = path.strip_prefix("/o/") {
        return signed(rest, keys);
    }
    if let Some(rest) = path.strip_prefix("/t/") {
        return keyed(rest);
    }
    if path == "/healthz" { Route::Health } else { Route::NotFound }
}

fn plain(name: &str) -> Route<'_> {
    let Some(stem) = without_extension(name) else { return Route::NotAnImage };
    let mut parts = stem.split('_');
    let Some(image) = parts.next().and_then(image_id) else { return Route::NotAnImage };
    let (message, recipient) = (id_or_none(parts.next()), id_or_none(parts.next()));
    let ids = match (message, recipient, parts.next()) {
        (Some(message), Some(recipient), None) => Ids::Named { message, recipient },
        _ => Ids::Malformed,
    };
    Route::Pixel { image, ids, sent_at_s: 0, is_signed: false }
}

fn keyed(rest: &str) -> Route<'_> {
    let (image, keys) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(image) = image_id(image) else { return Route::NotAnImage };
    let ids = match keys.split_once('/').map(|(message, last)| (message, last, ending::key_before_ending(last))) {
        Some((_, last, _)) if is_two_links(last) => Ids::Malformed,
        Some((message, _, recipient)) if !recipient.contains('/') => {
            match (Key::in_path(message), Key::in_path(recipient)) {
                // Programs that resolve paths remove these, so the sender did not intend them.
                (Ok(Key::Text(message)), _) if matches!(&*message, b"." | b"..") => Ids::Malformed,
                (Ok(Key::Id(message)), Ok(Key::Id(recipient))) => {
                    Ids::Named { message: message.into(), recipient: recipient.into() }
                }
                (Ok(message), Ok(recipient)) => Ids::Keyed { message, recipient },
                (Err(KeyError::Unmerged), _) | (_, Err(KeyError::Unmerged)) => Ids::Unmerged,
                _ => Ids::Malformed,
            }
        }
        // A merge tag may contain a slash, as in `*|DATE:d/m/y|*`.
        _ if is_unfilled(keys.as_bytes()) || is_unfilled(&Cow::from(percent_decode_str(keys))) => Ids::Unmerged,
        _ => Ids::Malformed,
    };
    Route::Pixel { image, ids, sent_at_s: 0, is_signed: false }
}

/// Whether a second link follows the first, encoded or not.
fn is_two_links(last: &str) -> bool {
    let tail = ending::before_picture_ending(last).map_or("", |stem| &last[stem.len()..]);
    tail.len() > TAIL_BYTES_WITHOUT_LINK && forgive::names_another(tail)
}

fn signed<'a>(rest: &str, keys: &SigningKeys) -> Route<'a> {
    let token = without_extension(rest).and_then(|token| keys.verify(token).ok());
    let Some(token) = token.filter(|token| !token.image.is_nil()) else { return Route::Forged };
    let ids = Ids::Named { message: token.message, recipient: token.recipient };
    Route::Pixel { image: token.image, ids, sent_at_s: token.sent_at_s, is_signed: true }
}

/// The text before the last dot, if 1 to 5 letters or digits follow it.
fn without_extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let is_extension = (1..=5).contains(&extension.len()) && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_extension.then_some(stem)
}

fn image_id(text: &str) -> Option<ImageId> {
    parse_uuid(text.as_bytes()).filter(|image: &ImageId| !image.is_nil())
}

/// An id that a path may leave out.
fn id_or_none<Id: From<Uuid>>(part: Option<&str>) -> Option<Id> {
    part.map_or(Some(Uuid::nil().into()), |part| parse_uuid(part.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::link::token::Token;

    fn spelled(id: u128, upper: bool, hyphens: bool) -> String {
        let id = Uuid::from_u128(id);
        let text = if hyphens { id.hyphenated().to_string() } else { id.simple().to_string() };
        if upper { text.to_uppercase() } else { text }
    }

    fn pixel<'a>(image: u128, ids: Ids<'a>) -> Route<'a> {
        Route::Pixel { image: ImageId::from_u128(image), ids, sent_at_s: 0, is_signed: false }
    }

    fn named<'a>(image: u128, message: u128, recipient: u128) -> Route<'a> {
        pixel(
            image,
            Ids::Named { message: MessageId::from_u128(message), recipient: RecipientId::from_u128(recipient) },
        )
    }

    fn keys() -> SigningKeys {
        SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").unwrap()
    }

    fn route(path: &str) -> Route<'_> {
        super::route(path, &keys())
    }

    proptest! {
        #[test]
        fn every_legal_spelling_means_the_same_ids(
            image in 1u128.., message: u128, recipient: u128, forms: [(bool, bool); 3], parts in 1usize..=3,
            extension in "[0-9A-Za-z]{1,5}",
        ) {
            let ids = [image, message, recipient];
            let texts: Vec<String> =
                ids.iter().zip(forms).take(parts).map(|(&id, (upper, hyphens))| spelled(id, upper, hyphens)).collect();
            let path = format!("/image/{}.{extension}", texts.join("_"));
            let absent = |part: usize, id: u128| if part < parts { id } else { 0 };
            prop_assert_eq!(route(&path), named(image, absent(1, message), absent(2, recipient)), "{}", path);
        }

        #[test]
        fn a_path_cut_anywhere_never_names_other_ids(image in 1u128.., message: u128, recipient: u128, cut in 0usize..130) {
            let path = format!("/image/{}_{}_{}.gif", spelled(image, false, true), spelled(message, false, true), spelled(recipient, false, false));
            if let Some(cut) = path.get(..cut)
                && let Route::Pixel { ids: Ids::Named { message: m, recipient: r }, .. } = route(cut)
            {
                prop_assert!((m, r) == (MessageId::from_u128(message), RecipientId::from_u128(recipient)));
            }
        }

        #[test]
        fn any_path_has_an_answer(path: String, rest in "[-_./0-9a-fA-Fimage]{0,130}") {
            for front in ["", "/image/", "/t/", "/o/"] {
                let _ = (route(&format!("{front}{path}")), route(&format!("{front}{rest}")));
            }
        }
    }

    #[test]
    fn odd_paths_are_what_the_contract_says() {
        let id = "0123456789abcdef0123456789abcdef";
        let image = Uuid::try_parse(id).unwrap();
        let malformed = pixel(image.as_u128(), Ids::Malformed);
        for (path, expected) in [
            (format!("/image/{id}.gif"), named(image.as_u128(), 0, 0)),
            (format!("/image/{id}_{id}_{id}.a1B2c"), named(image.as_u128(), image.as_u128(), image.as_u128())),
            (format!("/image/{id}_00000000-0000-0000-0000-000000000000.gif"), named(image.as_u128(), 0, 0)),
            (format!("/image/{id}_.gif"), malformed.clone()),
            (format!("/image/{id}_x.gif"), malformed.clone()),
            (format!("/image/{id}_{id}_.gif"), malformed.clone()),
            (format!("/image/{id}_{id}_{id}_{id}.gif"), malformed.clone()),
            (format!("/image/{id}_{{{id}}}.gif"), malformed.clone()),
            (format!("/image/{id}_urn:uuid:{id}.gif"), malformed.clone()),
            (format!("/image/{id}_{}.gif", &id[1..]), malformed),
            (format!("/image/{id}_%30123456789abcdef0123456789abcdef.gif"), named(image.as_u128(), image.as_u128(), 0)),
            (format!("/image/{id}.a.gif"), Route::NotAnImage),
            (format!("/image/{id}"), Route::NotAnImage),
            (format!("/image/{id}."), Route::NotAnImage),
            (format!("/image/{id}.abcdef"), Route::NotAnImage),
            (format!("/image/{id}.g-f"), Route::NotAnImage),
            (format!("/image/{id}x.gif"), Route::NotAnImage),
            (format!("/image/{}.gif", "0".repeat(32)), Route::NotAnImage),
            ("/image/01234567-89ab-cdef-0123456789abcdef-.gif".to_owned(), Route::NotAnImage),
            ("/image/.gif".to_owned(), Route::NotAnImage),
            ("/image/".to_owned(), Route::NotAnImage),
            ("/image".to_owned(), Route::NotFound),
            ("/healthz".to_owned(), Route::Health),
            ("/healthz/".to_owned(), Route::NotFound),
            ("/".to_owned(), Route::NotFound),
            ("*".to_owned(), Route::NotFound),
            (String::new(), Route::NotFound),
        ] {
            assert_eq!(route(&path), expected, "{path}");
        }
    }

    #[test]
    fn keyed_paths_are_what_the_contract_says() {
        let id = "0123456789abcdef0123456789abcdef";
        let image = Uuid::try_parse(id).unwrap().as_u128();
        let keyed = |message: &'static str, recipient: &'static str| {
            let text = |key: &'static str| Key::Text(key.as_bytes().into());
            pixel(image, Ids::Keyed { message: text(message), recipient: text(recipient) })
        };
        for (path, expected) in [
            (format!("/t/{id}/May/4711.gif"), keyed("May", "4711")),
            (format!("/t/{id}/May/jane%40example.com.png"), keyed("May", "jane@example.com")),
            (format!("/t/{id}/a%2Fb/c%2Fd.gif"), keyed("a/b", "c/d")),
            (format!("/t/{id}/{id}/{id}.gif"), named(image, image, image)),
            (
                format!("/t/{id}/{id}/x.gif"),
                pixel(
                    image,
                    Ids::Keyed { message: Key::Id(Uuid::from_u128(image)), recipient: Key::Text(b"x"[..].into()) },
                ),
            ),
            (format!("/t/{id}/May/*|UNIQID|*.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/%7B%7Bid%7D%7D/4711.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/*|DATE:d/m/y|*/4711.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/*%7CDATE:d/m/y%7C*/4711.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}//*|UNIQID|*.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}//4711.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/./4711.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/%2E%2E/4711.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May%2F4711.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/a/b.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/1.gif,https://x/t/{id}/May/2.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/1.gif%20https%3A%2F%2Fx%2Ft%2F{id}%2FMay%2F2.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/4711"), keyed("May", "4711")),
            (format!("/t/{id}/May/jane@example.com"), keyed("May", "jane@example.com")),
            (format!("/t/{id}/May/4711.50"), keyed("May", "4711.50")),
            (format!("/t/{id}/May/4711.50.PNG"), keyed("May", "4711.50")),
            (format!("/t/{id}/May/%2534711%20%2Egif"), keyed("May", "4711")),
            (format!("/t/{id}/%E2%80%8BMay%00/jane%2540example.com%C2%A0.gif"), keyed("May", "jane@example.com")),
            (format!("/t/{id}/May/%7Bcontactfield%3Did%7D.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/May/%257B%257Bid.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/May/%ACCOUNT%"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/May/undefined.gif"), pixel(image, Ids::Unmerged)),
            (format!("/t/{id}/May/%20.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/x/4711.gif"), pixel(image, Ids::Malformed)),
            (format!("/t/{id}/May/{}.gif", "x".repeat(129)), pixel(image, Ids::Malformed)),
            (format!("/t/{id}"), pixel(image, Ids::Malformed)),
            (format!("/t/x{id}/May/4711.gif"), Route::NotAnImage),
            (format!("/t/{}/May/4711.gif", "0".repeat(32)), Route::NotAnImage),
            ("/t/".to_owned(), Route::NotAnImage),
            ("/t".to_owned(), Route::NotFound),
        ] {
            assert_eq!(route(&path), expected, "{path}");
        }
    }

    #[test]
    fn signed_paths_are_valid_or_forged() {
        let (image, message, recipient) = (ImageId::from_u128(1), MessageId::from_u128(2), RecipientId::from_u128(3));
        let token = Token { sent_at_s: 9, image, message, recipient };
        let text = keys().sign(&token).unwrap();
        let valid = Route::Pixel { image, ids: Ids::Named { message, recipient }, sent_at_s: 9, is_signed: true };
        assert_eq!(route(&format!("/o/{text}.gif")), valid);
        for path in [format!("/o/{text}"), format!("/o/{text}.abcdef"), format!("/o//{text}.gif")] {
            assert_eq!(route(&path), valid, "{path}");
        }
        let nil = keys().sign(&Token { image: ImageId::NONE, ..token }).unwrap();
        for path in [
            format!("/o/{text}=.gif"),
            format!("/o/{text}A.gif"),
            format!("/o/{}.gif", &text[1..]),
            format!("/o/{nil}.gif"),
            "/o/".to_owned(),
        ] {
            assert_eq!(route(&path), Route::Forged, "{path}");
        }
        assert_eq!(super::route(&format!("/o/{text}.gif"), &SigningKeys::default()), Route::Forged);
    }
}
