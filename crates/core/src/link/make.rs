//! Makes links, and the tag that shows one in an email.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use uuid::Uuid;

use super::key::{Key, Namespace};
use super::token::{SigningKeys, Token};
use crate::ids::ImageId;

/// Characters that a key's part of a path keeps: those that RFC 3986 calls unreserved.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a link names.
#[derive(Debug, Clone)]
pub struct Names<'a> {
    /// The image.
    pub image: ImageId,
    /// The message, as the sender names it; `None` if the link names none.
    pub message: Option<&'a str>,
    /// The recipient, in the same form.
    pub recipient: Option<&'a str>,
    /// When the message was sent, in s since 1970; 0 is unknown. Only a signed link contains it.
    pub sent_at_s: u32,
    /// The link's ending, without the dot.
    pub extension: &'a str,
}

/// Why a link cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A message or recipient that cannot be a key.
    #[error("the {part} {text:?} cannot be a key: {error}")]
    Key {
        /// Which of the two.
        part: &'static str,
        /// The given text.
        text: String,
        /// What is wrong with it.
        error: super::key::KeyError,
    },
    /// A message key that browsers remove from a path.
    #[error("the message key {0:?} cannot be in a link: browsers treat it as a step in the path")]
    Dots(String),
    /// There is a send time but no key to sign it with.
    #[error("only a signed link holds a send time: set PIXELD_SIGNING_KEYS, or leave out the send time")]
    Unsigned,
}

/// The path of a link: signed if there is a key; otherwise with the ids; otherwise with the keys as they are.
pub fn path(names: &Names<'_>, namespace: Namespace, keys: &SigningKeys) -> Result<String, LinkError> {
    let Names { image, extension, .. } = names;
    let message = key("message", names.message)?;
    let recipient = key("recipient", names.recipient)?;
    let token = Token {
        sent_at_s: names.sent_at_s,
        image: *image,
        message: namespace.id_of(&message),
        recipient: namespace.id_of(&recipient),
    };
    if let Some(token) = keys.sign(&token) {
        return Ok(format!("/o/{token}.{extension}"));
    }
    if names.sent_at_s != 0 {
        return Err(LinkError::Unsigned);
    }
    Ok(match (&message, &recipient) {
        (Key::Id(message), Key::Id(recipient)) if recipient.is_nil() && message.is_nil() => {
            format!("/image/{image}.{extension}")
        }
        (Key::Id(message), Key::Id(recipient)) if recipient.is_nil() => format!("/image/{image}_{message}.{extension}"),
        (Key::Id(message), Key::Id(recipient)) => format!("/image/{image}_{message}_{recipient}.{extension}"),
        (Key::Text(text), _) if matches!(&text[..], b"." | b"..") => {
            return Err(LinkError::Dots(String::from_utf8_lossy(text).into_owned()));
        }
        _ => format!("/t/{image}/{}/{}.{extension}", spelled(&message), spelled(&recipient)),
    })
}

/// The ending of a link to an image of this media type.
pub fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        _ => "gif",
    }
}

/// The tag that shows the image at `url`. Its empty alt text makes screen readers skip it.
pub fn img_tag(url: &str, width: i32, height: i32) -> String {
    let url = url.replace('&', "&amp;").replace('"', "&quot;");
    format!("<img src=\"{url}\" width=\"{width}\" height=\"{height}\" alt=\"\">")
}

fn key<'a>(part: &'static str, text: Option<&'a str>) -> Result<Key<'a>, LinkError> {
    let Some(text) = text else { return Ok(Key::Id(Uuid::nil())) };
    Key::typed(text).map_err(|error| LinkError::Key { part, text: text.to_owned(), error })
}

fn spelled(key: &Key<'_>) -> String {
    match key {
        Key::Id(id) => id.to_string(),
        Key::Text(text) => percent_encode(text, KEPT).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{MessageId, RecipientId};
    use crate::link::route::{Ids, Route, route};

    const IMAGE: ImageId = ImageId::from_u128(0x11);
    const NAMESPACE: Namespace = Namespace(Uuid::from_u128(0x22));

    fn signing() -> SigningKeys {
        SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").unwrap()
    }

    fn names<'a>(message: Option<&'a str>, recipient: Option<&'a str>) -> Names<'a> {
        Names { image: IMAGE, message, recipient, sent_at_s: 0, extension: "gif" }
    }

    /// What the edge reads in a link.
    fn read(path: &str, keys: &SigningKeys) -> Option<(ImageId, MessageId, RecipientId, u32)> {
        let Route::Pixel { image, ids, sent_at_s, .. } = route(path, keys) else { return None };
        match ids {
            Ids::Named { message, recipient } => Some((image, message, recipient, sent_at_s)),
            Ids::Keyed { message, recipient } => {
                Some((image, NAMESPACE.id_of(&message), NAMESPACE.id_of(&recipient), sent_at_s))
            }
            Ids::Malformed | Ids::Unmerged => None,
        }
    }

    #[test]
    fn ids_make_a_plain_link_and_keys_a_keyed_one() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        let nil = Uuid::nil();
        for (message, recipient, expected) in [
            (None, None, format!("/image/{IMAGE}.gif")),
            (Some(id), None, format!("/image/{IMAGE}_{id}.gif")),
            (Some(id), Some(id), format!("/image/{IMAGE}_{id}_{id}.gif")),
            (None, Some(id), format!("/image/{IMAGE}_{nil}_{id}.gif")),
            (Some("May"), Some("jane@example.com"), format!("/t/{IMAGE}/May/jane%40example.com.gif")),
            (Some(id), Some("a/b c"), format!("/t/{IMAGE}/{id}/a%2Fb%20c.gif")),
            (None, Some("4711"), format!("/t/{IMAGE}/{nil}/4711.gif")),
        ] {
            assert_eq!(path(&names(message, recipient), NAMESPACE, &SigningKeys::default()).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_a_link_is_reported() {
        let unsigned = SigningKeys::default();
        let error = path(&names(Some("*|CAMPAIGN_UID|*"), None), NAMESPACE, &unsigned).unwrap_err().to_string();
        assert!(error.contains("message") && error.contains("merge tag"), "{error}");
        assert!(path(&names(None, Some("")), NAMESPACE, &unsigned).is_err());
        for dots in [".", ".."] {
            assert_eq!(path(&names(Some(dots), None), NAMESPACE, &unsigned), Err(LinkError::Dots(dots.to_owned())));
            assert!(path(&names(Some("may"), Some(dots)), NAMESPACE, &unsigned).is_ok(), "its ending keeps it");
        }
        let timed = Names { sent_at_s: 5, ..names(None, None) };
        assert_eq!(path(&timed, NAMESPACE, &unsigned), Err(LinkError::Unsigned));
    }

    proptest! {
        #[test]
        fn every_link_reads_back(message in "\\PC{1,30}", recipient in "\\PC{1,30}", sent_at_s: u32) {
            prop_assume!(Key::typed(&message).is_ok() && Key::typed(&recipient).is_ok() && message != "." && message != "..");
            let key = |text: &str| Key::typed(text).unwrap().into_owned();
            let (message_id, recipient_id) = (NAMESPACE.id_of(&key(&message)), NAMESPACE.id_of(&key(&recipient)));
            let given = names(Some(&message), Some(&recipient));
            for (keys, sent_at_s) in [(SigningKeys::default(), 0), (signing(), sent_at_s)] {
                let path = path(&Names { sent_at_s, ..given.clone() }, NAMESPACE, &keys).unwrap();
                prop_assert_eq!(read(&path, &keys), Some((IMAGE, message_id, recipient_id, sent_at_s)), "{}", path);
            }
        }
    }

    #[test]
    fn the_tag_is_silent_and_has_its_size() {
        assert_eq!(
            img_tag("https://p.example/i.gif", 1, 2),
            "<img src=\"https://p.example/i.gif\" width=\"1\" height=\"2\" alt=\"\">"
        );
    }
}
