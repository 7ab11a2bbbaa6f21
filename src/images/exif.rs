//! Reads what matters for an email in a picture's EXIF: whether it is rotated, and where it was taken. Pure.
//!
//! Guarantees: width and height are those that browsers show, as tested with Chromium: a JPEG is rotated, and so is a
//! PNG whose EXIF comes before its pixels; a WebP is not. EXIF that cannot be read is ignored. Gives up: places that a
//! program stored elsewhere (XMP).

use std::io::Cursor;

use exif::{Error, Exif, In, Reader, Tag};

/// The results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Whether width and height are swapped when it is shown.
    pub is_turned: bool,
    /// Whether it contains the place where it was taken.
    pub has_place: bool,
}

/// Reads a picture's EXIF.
pub(super) fn read(media_type: &str, bytes: &[u8]) -> Notes {
    if media_type == "image/gif" {
        return Notes::default();
    }
    let Some(exif) = exif_of(bytes) else { return Notes::default() };
    // Orientations 5 to 8 are a quarter turn.
    let orientation = exif.get_field(Tag::Orientation, In::PRIMARY).and_then(|field| field.value.get_uint(0));
    let is_heeded = match media_type {
        "image/jpeg" => true,
        "image/png" => is_before_pixels(bytes),
        _ => false,
    };
    let place = [Tag::GPSLatitude, Tag::GPSLongitude];
    Notes {
        is_turned: is_heeded && orientation.is_some_and(|orientation| (5..=8).contains(&orientation)),
        has_place: exif.fields().any(|field| place.contains(&field.tag)),
    }
}

fn exif_of(bytes: &[u8]) -> Option<Exif> {
    let mut reader = Reader::new();
    // Cameras write much that is slightly wrong; use what can be read.
    let read = reader.continue_on_error(true).read_from_container(&mut Cursor::new(bytes));
    match read {
        Ok(exif) => Some(exif),
        Err(Error::PartialResult(partial)) => Some(partial.into_inner().0),
        Err(_) => None,
    }
}

/// Whether a PNG's EXIF comes before its pixels.
fn is_before_pixels(bytes: &[u8]) -> bool {
    let mut at: usize = 8;
    loop {
        let Some([a, b, c, d, name @ ..]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return false;
        };
        match name {
            b"eXIf" => return true,
            b"IDAT" => return false,
            _ => at = at.saturating_add(12).saturating_add(u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::images::samples::{jpeg, pictures, png, webp};

    /// EXIF with an orientation and, with `has_place`, a place.
    fn tiff(orientation: u8, has_place: bool) -> Vec<u8> {
        let mut tiff = b"MM\0*\0\0\0\x08\0".to_vec();
        tiff.extend_from_slice(&[1 + u8::from(has_place), 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
        if has_place {
            // A second field points to the directory of the place, which follows: a latitude of 52, 30 and 0.
            tiff.extend_from_slice(b"\x88\x25\0\x04\0\0\0\x01\0\0\0\x26\0\0\0\0");
            tiff.extend_from_slice(b"\0\x01\0\x02\0\x05\0\0\0\x03\0\0\0\x38\0\0\0\0");
            tiff.extend_from_slice(b"\0\0\0\x34\0\0\0\x01\0\0\0\x1e\0\0\0\x01\0\0\0\0\0\0\0\x01");
        } else {
            tiff.extend_from_slice(&[0; 4]);
        }
        tiff
    }

    /// A JPEG with EXIF; it is 3 by 2 pixels.
    pub(crate) fn jpeg_with(orientation: u8, has_place: bool) -> Vec<u8> {
        let exif = [b"Exif\0\0".as_slice(), &tiff(orientation, has_place)].concat();
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        let mut bytes = jpeg();
        bytes.splice(2..2, [b"\xff\xe1".as_slice(), &length, &exif].concat());
        bytes
    }

    /// A PNG with EXIF before or after its pixels.
    pub(crate) fn png_with(orientation: u8, is_before: bool) -> Vec<u8> {
        let chunk = |name: &[u8], body: &[u8]| {
            [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], name, body, &[0; 4]].concat()
        };
        let (exif, pixels) = (chunk(b"eXIf", &tiff(orientation, false)), chunk(b"IDAT", b"x"));
        let mut bytes = png(30, 20);
        bytes.splice(33..33, if is_before { [exif, pixels].concat() } else { [pixels, exif].concat() });
        bytes
    }

    fn webp_with(orientation: u8, has_place: bool) -> Vec<u8> {
        let exif = tiff(orientation, has_place);
        let mut bytes = webp();
        bytes.extend_from_slice(b"EXIF");
        bytes.extend_from_slice(&u32::try_from(exif.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&exif);
        let length = u32::try_from(bytes.len() - 8).unwrap().to_le_bytes();
        bytes.splice(4..8, length);
        bytes
    }

    #[test]
    fn a_picture_is_turned_as_browsers_turn_it_and_its_place_is_seen() {
        for orientation in 0..=9 {
            let is_turned = (5..=8).contains(&orientation);
            for has_place in [false, true] {
                let notes = read("image/jpeg", &jpeg_with(orientation, has_place));
                assert_eq!(notes, Notes { is_turned, has_place }, "{orientation}");
                let notes = read("image/webp", &webp_with(orientation, has_place));
                assert_eq!(notes, Notes { is_turned: false, has_place }, "{orientation}");
            }
            assert_eq!(read("image/png", &png_with(orientation, true)).is_turned, is_turned);
            assert!(!read("image/png", &png_with(orientation, false)).is_turned, "Chromium does not heed it there");
        }
        for (media_type, bytes) in pictures() {
            assert_eq!(read(media_type, &bytes), Notes::default(), "{media_type}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..12), cut: usize) {
            for (media_type, mut bytes) in [
                ("image/jpeg", jpeg_with(6, true)), ("image/png", png_with(6, true)), ("image/webp", webp_with(6, true)),
            ] {
                for (at, byte) in &flips {
                    let at = at % bytes.len();
                    bytes[at] = *byte;
                }
                bytes.truncate(cut % (bytes.len() + 1));
                let notes = read(media_type, &bytes);
                prop_assert!(media_type != "image/webp" || !notes.is_turned);
            }
        }
    }
}
