//! What a path asks for. Pure, and it allocates nothing.
//!
//! ```text
//! /image/{image}[_{message}[_{recipient}]].{ext}      ext: 1 to 5 letters or digits
//! ```
//!
//! A UUID is 32 hexadecimal digits in either case, with hyphens at 8-4-4-4-12 or with none; no braces, no `urn:`, no percent
//! signs. The nil UUID means "absent", so a nil image is no image. Without a proper ending, or with a malformed image id,
//! it is not an image; anything wrong behind a proper image id is malformed ids: the image is served, and nothing recorded.

use uuid::Uuid;

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// An image, and whose open it is.
    Pixel {
        /// The image.
        image: Uuid,
        /// Message and recipient.
        ids: Ids,
    },
    /// Under `/image/`, with an image id that cannot be.
    NotAnImage,
    /// `/healthz`.
    Health,
    /// Nothing that we have.
    NotFound,
}

/// The ids behind an image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Proper ones; nil where absent.
    Named {
        /// The message.
        message: Uuid,
        /// The recipient.
        recipient: Uuid,
    },
    /// A message or recipient that is no UUID, or more parts than there can be.
    Malformed,
}

/// Reads a path, without its query.
#[must_use]
pub fn route(path: &str) -> Route {
    let Some(name) = path.strip_prefix("/image/") else {
        return if path == "/healthz" { Route::Health } else { Route::NotFound };
    };
    let Some((stem, extension)) = name.rsplit_once('.') else { return Route::NotAnImage };
    if !(1..=5).contains(&extension.len()) || !extension.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Route::NotAnImage;
    }
    let mut parts = stem.split('_');
    let image = parts.next().and_then(parse_uuid).filter(|image| !image.is_nil());
    let Some(image) = image else { return Route::NotAnImage };
    let mut part = || parts.next().map_or(Some(Uuid::nil()), parse_uuid);
    let ids = match (part(), part(), parts.next()) {
        (Some(message), Some(recipient), None) => Ids::Named { message, recipient },
        _ => Ids::Malformed,
    };
    Route::Pixel { image, ids }
}

/// A UUID in one of the two forms that links have.
fn parse_uuid(text: &str) -> Option<Uuid> {
    // The parser takes braces and `urn:uuid:` too; those forms are longer.
    if text.len() != 36 && text.len() != 32 {
        return None;
    }
    Uuid::try_parse_ascii(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spelled(id: u128, upper: bool, hyphens: bool) -> String {
        let id = Uuid::from_u128(id);
        let text = if hyphens { id.hyphenated().to_string() } else { id.simple().to_string() };
        if upper { text.to_uppercase() } else { text }
    }

    fn named(image: u128, message: u128, recipient: u128) -> Route {
        let ids = Ids::Named { message: Uuid::from_u128(message), recipient: Uuid::from_u128(recipient) };
        Route::Pixel { image: Uuid::from_u128(image), ids }
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
                prop_assert!((m, r) == (Uuid::from_u128(message), Uuid::from_u128(recipient)));
            }
        }

        #[test]
        fn any_path_has_an_answer(path: String, rest in "[-_./0-9a-fA-Fimage]{0,130}") {
            let _ = (route(&path), route(&format!("/image/{rest}")));
        }
    }

    #[test]
    fn odd_paths_are_what_the_contract_says() {
        let id = "0123456789abcdef0123456789abcdef";
        let image = Uuid::try_parse(id).unwrap();
        let malformed = Route::Pixel { image, ids: Ids::Malformed };
        for (path, expected) in [
            (format!("/image/{id}.gif"), named(image.as_u128(), 0, 0)),
            (format!("/image/{id}_{id}_{id}.a1B2c"), named(image.as_u128(), image.as_u128(), image.as_u128())),
            (format!("/image/{id}_00000000-0000-0000-0000-000000000000.gif"), named(image.as_u128(), 0, 0)),
            (format!("/image/{id}_.gif"), malformed),
            (format!("/image/{id}_x.gif"), malformed),
            (format!("/image/{id}_{id}_.gif"), malformed),
            (format!("/image/{id}_{id}_{id}_{id}.gif"), malformed),
            (format!("/image/{id}_{{{id}}}.gif"), malformed),
            (format!("/image/{id}_urn:uuid:{id}.gif"), malformed),
            (format!("/image/{id}_%30123456789abcdef0123456789abcdef.gif"), malformed),
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
}
