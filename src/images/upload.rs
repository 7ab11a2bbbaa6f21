//! Accepts new images: checks the bytes, never a name, and stores and serves them byte for byte.
//!
//! Guarantees: the first bytes are those of a format that all mail programs and browsers treat as a picture and nothing
//! else, and the size in its header is within bounds. The answer names that format, forbids guessing another one and
//! runs nothing ([`pixeld_edge::images::Image::new`]), so bytes after the picture's end harm no reader: cameras put
//! previews and films there, and browsers ignore them. Gives up: decoding, so a picture with damaged pixels is stored
//! as it is; and checking what else the file could be for a program that opens it after a download: only signed-in
//! admins add images.

use tokio_postgres::Client;

use super::exif;
use crate::db::DbError;
use crate::db::images as queries;
use crate::db::images::Inspected;
use pixeld_core::digest;
use pixeld_core::ids::ImageId;
use pixeld_core::text;

/// Maximum bytes of an image.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Maximum pixels of an image in each direction.
pub(crate) const PIXELS_MAX: usize = 4096;

/// Maximum characters of a title.
pub(crate) const TITLE_CHARS_MAX: usize = 200;

/// The accepted images, for people.
pub(crate) const ACCEPTED: &str = "GIF, PNG, JPEG or WebP, up to 1 MiB and 4096 × 4096 pixels. No SVG.";

/// The warning about a picture that contains the place where it was taken.
const PLACE: &str = "This image says where it was taken (GPS data in its EXIF), and everybody who gets it can read that. Save it without location data \
                     and upload it again.";

/// The warning about a WebP.
const OUTLOOK: &str = "Outlook for Windows does not show WebP. Its readers see no image, but the open is recorded if Outlook fetches it. Use PNG, JPEG or GIF.";

/// Bytes that are searched for the mark of an SVG.
const SVG_BYTES_MAX: usize = 1024;

/// Why bytes are not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are none.
    #[error("the file is empty; use GIF, PNG, JPEG or WebP")]
    Empty,
    /// Too many.
    #[error("the file is larger than {BYTES_MAX} bytes (1 MiB)")]
    TooLarge,
    /// Not a picture, or one of another format.
    #[error("the file is {0}; use GIF, PNG, JPEG or WebP (the file's name does not matter)")]
    Kind(String),
    /// The size cannot be read.
    #[error("this {0}'s width and height cannot be read; the file is damaged or incomplete")]
    Header(&'static str),
    /// Too many pixels, or none.
    #[error("the image has {0} x {1} pixels; width and height may be 1 to {PIXELS_MAX}")]
    Pixels(usize, usize),
}

/// Why an image could not be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    /// The bytes are not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The id is in use.
    #[error("an image with the id {0} exists already")]
    Exists(ImageId),
    /// The nil UUID means "absent" in links.
    #[error("the nil UUID cannot be the id of an image")]
    Nil,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// What people should know about an accepted picture.
pub(crate) fn warnings(media_type: &str, bytes: &[u8]) -> Vec<&'static str> {
    let place = exif::read(media_type, bytes).has_place.then_some(PLACE);
    let outlook = (media_type == "image/webp").then_some(OUTLOOK);
    place.into_iter().chain(outlook).collect()
}

/// Checks bytes: their format, and the size at which they are shown.
///
/// # Errors
/// [`Refusal`], which says what is allowed.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    if bytes.len() > BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let kind = match infer::get(bytes) {
        _ if is_svg(bytes) => "image/svg+xml",
        Some(kind) => kind.mime_type(),
        None => "of no known kind",
    };
    let media_type = match kind {
        "image/gif" => "image/gif",
        "image/png" => "image/png",
        "image/jpeg" => "image/jpeg",
        "image/webp" => "image/webp",
        other => return Err(Refusal::Kind(other.to_owned())),
    };
    let size = imagesize::blob_size(bytes).map_err(|_| Refusal::Header(media_type))?;
    let allowed = 1..=PIXELS_MAX;
    if !allowed.contains(&size.width) || !allowed.contains(&size.height) {
        return Err(Refusal::Pixels(size.width, size.height));
    }
    let sha256 = digest::prefix(&[bytes]);
    let (width, height) = match exif::read(media_type, bytes).is_turned {
        true => (size.height, size.width),
        false => (size.width, size.height),
    };
    Ok(Inspected { media_type, width: width as i32, height: height as i32, sha256 })
}

/// Whether it is an SVG; used only for the message, since no text is accepted.
fn is_svg(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(SVG_BYTES_MAX)];
    start.trim_ascii_start().starts_with(b"<") && start.windows(4).any(|word| word.eq_ignore_ascii_case(b"<svg"))
}

/// What is wrong with a title; `None` if it is allowed.
pub(crate) fn wrong_title(title: &str) -> Option<&'static str> {
    let is_wrong = title.chars().count() > TITLE_CHARS_MAX || text::has_controls(title);
    is_wrong.then_some("a title may have at most 200 characters, and no line breaks or other control characters")
}

/// Adds an image under `id`, or a new one, and notifies all nodes.
///
/// # Errors
/// [`AddError`]; nothing was stored then.
pub(crate) async fn add(
    client: &Client,
    actor: &str,
    bytes: &[u8],
    id: Option<ImageId>,
    title: Option<&str>,
) -> Result<ImageId, AddError> {
    let inspected = inspect(bytes)?;
    let id = id.unwrap_or_else(ImageId::random);
    if id.is_nil() {
        return Err(AddError::Nil);
    }
    // PostgreSQL's text allows no NUL.
    let title = title.unwrap_or_default().replace('\0', "");
    let is_new = queries::insert(client, actor, id, &title, &inspected, bytes).await?;
    if is_new { Ok(id) } else { Err(AddError::Exists(id)) }
}

/// Replaces an image's bytes, and notifies all nodes. Returns whether there is such an image that is not deleted.
///
/// # Errors
/// [`AddError`]; nothing was changed then.
pub(crate) async fn replace(client: &Client, actor: &str, id: ImageId, bytes: &[u8]) -> Result<bool, AddError> {
    let inspected = inspect(bytes)?;
    Ok(queries::replace(client, actor, id, &inspected, bytes).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::exif::tests::{jpeg_with, png_with};
    use crate::images::samples::{jpeg, pictures, png, webp};
    use pixeld_edge::images::TRANSPARENT_GIF;

    #[test]
    fn pictures_are_known_by_their_bytes() {
        let gif = inspect(TRANSPARENT_GIF).unwrap();
        assert_eq!((gif.media_type, gif.width, gif.height), ("image/gif", 1, 1));
        let png = inspect(&png(4096, 1)).unwrap();
        assert_eq!((png.media_type, png.width, png.height), ("image/png", 4096, 1));
        assert_eq!(inspect(&webp()).unwrap().media_type, "image/webp");
        let jpeg = inspect(&jpeg()).unwrap();
        assert_eq!((jpeg.media_type, jpeg.width, jpeg.height), ("image/jpeg", 3, 2));
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        assert_eq!(inspect(b""), Err(Refusal::Empty));
        assert_eq!(inspect(&vec![0; BYTES_MAX + 1]), Err(Refusal::TooLarge));
        assert!(matches!(inspect(b"plain words, whatever the name"), Err(Refusal::Kind(_))));
        assert!(matches!(inspect(b"%PDF-1.7 a document"), Err(Refusal::Kind(kind)) if kind == "application/pdf"));
        assert!(matches!(inspect(b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0"), Err(Refusal::Kind(_))));
        assert_eq!(inspect(&png(1, 1)[..14]), Err(Refusal::Header("image/png")));
        for (width, height) in [(0, 1), (1, 0), (4097, 1), (1, u32::MAX)] {
            assert_eq!(inspect(&png(width, height)), Err(Refusal::Pixels(width as usize, height as usize)));
        }
    }

    #[test]
    fn a_picture_is_accepted_whatever_comes_after_its_end() {
        for (media_type, picture) in pictures() {
            let plain = inspect(&picture).unwrap();
            // A second picture, a camera's film, an archive, a web page, zeros.
            for after in [&jpeg()[..], b"MotionPhoto_Data\0\0\0\x18ftypmp42", b"PK\x03\x04", b"<script>", b"\0\0\0"] {
                let taken = inspect(&[picture.as_slice(), after].concat()).unwrap();
                assert_eq!((taken.media_type, taken.width, taken.height), (media_type, plain.width, plain.height));
                assert_ne!(taken.sha256, plain.sha256, "the digest is of all bytes, as all are kept");
            }
        }
        // Without the trailer, and with an odd length without padding.
        assert!(inspect(&TRANSPARENT_GIF[..TRANSPARENT_GIF.len() - 1]).is_ok());
        let mut webp = webp();
        webp[4] -= 1;
        assert!(inspect(&webp[..webp.len() - 1]).is_ok());
    }

    #[test]
    fn width_and_height_are_those_that_are_shown_and_a_place_and_a_webp_are_warned_of() {
        let size = |bytes: &[u8]| inspect(bytes).map(|found| (found.width, found.height)).unwrap();
        assert_eq!([1, 3, 6, 8].map(|turn| size(&jpeg_with(turn, false))), [(3, 2), (3, 2), (2, 3), (2, 3)]);
        assert_eq!([1, 6].map(|turn| size(&png_with(turn, true))), [(30, 20), (20, 30)]);
        assert_eq!(warnings("image/jpeg", &jpeg_with(1, true)), [PLACE]);
        assert!(
            warnings("image/jpeg", &jpeg_with(1, false)).is_empty() && warnings("image/png", &png(1, 1)).is_empty()
        );
        assert_eq!(warnings("image/webp", &webp()), [OUTLOOK]);
    }

    #[test]
    fn a_drawing_in_words_is_called_by_its_name() {
        for svg in
            ["<svg xmlns='http://www.w3.org/2000/svg'/>", "<?xml version='1.0'?>\n<!-- x -->\n<SVG/>", " \n<svg>"]
        {
            assert_eq!(inspect(svg.as_bytes()), Err(Refusal::Kind("image/svg+xml".to_owned())));
        }
        assert!(wrong_title("Our logo, 2026 <b>").is_none() && wrong_title(&"ä".repeat(200)).is_none());
        assert!(wrong_title("a\nb").is_some() && wrong_title(&"x".repeat(201)).is_some());
    }
}
