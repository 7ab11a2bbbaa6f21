//! Takes new images: looks at the bytes, never at a name, and stores them as they are.
//!
//! The check reads the picture's header: what it is and how large. It does not decode the whole picture, so a picture
//! whose later bytes are damaged is stored as it came and is as damaged for the reader as it was before.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::db::images as queries;
use crate::db::images::Inspected;
use crate::db::{Database, DbError};

/// The most bytes that an image has.
pub const BYTES_MAX: usize = 1 << 20;

/// The most pixels that an image has each way.
pub const PIXELS_MAX: usize = 4096;

/// Why bytes are not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// There are none.
    #[error("the file is empty; a GIF, PNG, JPEG or WebP is needed")]
    Empty,
    /// Too many.
    #[error("the file is larger than {BYTES_MAX} bytes (1 MiB)")]
    TooLarge,
    /// No picture, or one of another kind.
    #[error("the bytes are {0}; a GIF, PNG, JPEG or WebP is needed (the file's name does not matter)")]
    Kind(String),
    /// The size cannot be read.
    #[error("the {0}'s width and height cannot be read; the file is damaged or cut short")]
    Header(&'static str),
    /// Too many pixels, or none.
    #[error("the picture has {0} x {1} pixels; 1 to {PIXELS_MAX} each way are allowed")]
    Pixels(usize, usize),
}

/// Why an image could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The bytes are not taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The id is taken.
    #[error("an image with the id {0} exists already")]
    Exists(Uuid),
    /// The nil UUID means "absent" in links.
    #[error("the nil UUID cannot be an image's id")]
    Nil,
    /// The database could not be asked.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Looks at bytes.
///
/// # Errors
/// [`Refusal`], which says what is allowed.
pub fn inspect(bytes: &[u8]) -> Result<Inspected, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    if bytes.len() > BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let kind = infer::get(bytes).map_or("of no known kind", |kind| kind.mime_type());
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
    let sha256 = Sha256::digest(bytes).into();
    Ok(Inspected { media_type, width: size.width as i32, height: size.height as i32, sha256 })
}

/// Adds an image under `id`, or a new one, and tells all nodes.
///
/// # Errors
/// [`AddError`]; nothing was stored then.
pub async fn add(db: &Database, bytes: Vec<u8>, id: Option<Uuid>, title: Option<&str>) -> Result<Uuid, AddError> {
    let inspected = inspect(&bytes)?;
    let id = id.unwrap_or_else(Uuid::new_v4);
    if id.is_nil() {
        return Err(AddError::Nil);
    }
    // PostgreSQL's text has no NUL.
    let title = title.unwrap_or_default().replace('\0', "");
    let is_new = queries::insert(db, id, &title, &inspected, &bytes).await?;
    if is_new { Ok(id) } else { Err(AddError::Exists(id)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::TRANSPARENT_GIF;

    /// A PNG's signature and header, as far as its size goes.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend_from_slice(&width.to_be_bytes());
        bytes.extend_from_slice(&height.to_be_bytes());
        bytes.extend_from_slice(&[8, 6, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn pictures_are_known_by_their_bytes() {
        let gif = inspect(TRANSPARENT_GIF).unwrap();
        assert_eq!((gif.media_type, gif.width, gif.height), ("image/gif", 1, 1));
        let png = inspect(&png(4096, 1)).unwrap();
        assert_eq!((png.media_type, png.width, png.height), ("image/png", 4096, 1));
        let mut webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0".to_vec();
        webp.resize(34, 0);
        assert_eq!(inspect(&webp).unwrap().media_type, "image/webp");
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9";
        let jpeg = inspect(jpeg).unwrap();
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
}
