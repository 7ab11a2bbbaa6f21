//! Where a picture ends, and whether it is something else besides. Pure.
//!
//! Guarantees: a picture that passes is whole in its outer form, from its first byte to its last, so nothing hangs behind it: no archive,
//! no document, no script, no second picture. Zero bytes may follow, as some programs fill files up with them. Cameras put previews and films behind
//! the end of a JPEG: what lies there cannot be told from what an attacker puts there, so it is cut off and never served; no program shows it as part of the picture. The marks of
//! web pages and programs are looked for in all that was sent. A GIF without its last byte, the trailer, is taken: every program shows it.
//! Gives up: what is damaged inside the compressed picture. The answers' headers (a fixed type, nosniff, sandbox) keep browsers from taking a picture for
//! anything else; this keeps it from being kept as anything else, for who downloads it.

/// What a picture has no reason to contain, in small letters. All have five bytes or more, so that compressed bytes hold one by
/// chance in one of twenty thousand files at most.
const MARKS: [&str; 8] = ["<script", "<html", "<!doctype", "<?php", "<svg ", "<svg>", "<svg\n", "<svg\t"];

/// Where the picture ends; nothing where it is cut short or damaged.
pub(super) fn end(media_type: &str, bytes: &[u8]) -> Option<usize> {
    match media_type {
        "image/gif" => end_of_gif(bytes),
        "image/png" => end_of_png(bytes),
        "image/jpeg" => end_of_jpeg(bytes),
        "image/webp" => end_of_webp(bytes),
        _ => None,
    }
}

/// Bytes behind the picture that are not mere zeros.
pub(super) fn beyond(bytes: &[u8], end: usize) -> usize {
    let rest = bytes.get(end..).unwrap_or_default();
    if rest.iter().all(|&byte| byte == 0) { 0 } else { rest.len() }
}

/// The first mark of a web page or a program in these bytes.
pub(super) fn mark(bytes: &[u8]) -> Option<&'static str> {
    let begins = |at: usize| {
        let rest = &bytes[at..];
        MARKS
            .into_iter()
            .find(|mark| rest.get(..mark.len()).is_some_and(|text| text.eq_ignore_ascii_case(mark.as_bytes())))
    };
    (0..bytes.len()).filter(|&at| bytes[at] == b'<').find_map(begins).map(str::trim_end)
}

/// Header, colours, then blocks of which each is a row of sub-blocks, up to the trailer.
fn end_of_gif(bytes: &[u8]) -> Option<usize> {
    /// A colour table's bytes, as the flags before it say.
    fn colours(flags: u8) -> usize {
        if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
    }
    let mut at = 13 + colours(*bytes.get(10)?);
    let mut has_frame = false;
    loop {
        if has_frame && at == bytes.len() {
            return Some(at);
        }
        match *bytes.get(at)? {
            0x3b => return Some(at + 1),
            // An extension: its label, then sub-blocks.
            0x21 => at += 2,
            // A frame: its place, its colours, the width of its codes, then sub-blocks.
            0x2c => {
                has_frame = true;
                at += 11 + colours(*bytes.get(at + 9)?);
            }
            _ => return None,
        }
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// A signature, then chunks up to IEND: length, type, that many bytes, a checksum.
fn end_of_png(bytes: &[u8]) -> Option<usize> {
    let mut at: usize = 8;
    loop {
        let head = bytes.get(at..at.checked_add(8)?)?;
        let length = u32::from_be_bytes(*head.first_chunk()?) as usize;
        at = at.checked_add(12)?.checked_add(length)?;
        if at > bytes.len() {
            return None;
        }
        if head.ends_with(b"IEND") {
            return Some(at);
        }
    }
}

/// Segments up to EOI. A segment has a length; compressed bytes follow each start of a scan, up to the next marker.
fn end_of_jpeg(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        // Any number of FF may fill up before a marker.
        while *bytes.get(at)? == 0xff {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        match marker {
            0xd9 => return Some(at),
            0x00 | 0xd8 => return None,
            0x01 | 0xd0..=0xd7 => continue,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        if length < 2 {
            return None;
        }
        at += length;
        if marker == 0xda {
            // FF 00 is a byte of the picture, FF D0 to FF D7 restart it.
            while bytes.get(at..at + 2).is_some_and(|pair| pair[0] != 0xff || matches!(pair[1], 0x00 | 0xd0..=0xd7)) {
                at += 1;
            }
        }
    }
}

/// RIFF says how long it is, and fills up to an even length.
fn end_of_webp(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let end = length.checked_add(8)?;
    if end > bytes.len() {
        return None;
    }
    // The byte that fills up may be missing at the end of a file.
    Some((end + length % 2).min(bytes.len()))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::images::TRANSPARENT_GIF;

    /// A PNG of the outer form only: header, no picture, end.
    pub fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend_from_slice(&width.to_be_bytes());
        bytes.extend_from_slice(&height.to_be_bytes());
        bytes.extend_from_slice(&[8, 6, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(b"\0\0\0\0IEND\xae\x42\x60\x82");
        bytes
    }

    /// A JPEG with a scan that has a stuffed FF, a restart and a filled marker.
    pub fn jpeg() -> Vec<u8> {
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\
          \xff\xda\0\x03\0ab\xff\0cd\xff\xd0ef\xff\xff\xff\xd9"
            .to_vec()
    }

    pub fn webp() -> Vec<u8> {
        let mut webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0".to_vec();
        webp.resize(34, 0);
        webp
    }

    pub fn pictures() -> [(&'static str, Vec<u8>); 5] {
        [
            ("image/gif", TRANSPARENT_GIF.to_vec()),
            ("image/png", png(1, 1)),
            ("image/png", include_bytes!("../app/sample.png").to_vec()),
            ("image/jpeg", jpeg()),
            ("image/webp", webp()),
        ]
    }

    #[test]
    fn a_picture_ends_with_its_last_byte_and_no_sooner() {
        for (media_type, bytes) in pictures() {
            assert_eq!(end(media_type, &bytes), Some(bytes.len()), "{media_type}");
            // A GIF's last byte may be missing.
            let least = bytes.len() - usize::from(media_type == "image/gif");
            for cut in 0..least {
                assert_eq!(end(media_type, &bytes[..cut]), None, "{media_type} cut at {cut}");
            }
            assert_eq!(end(media_type, &bytes[..least]), Some(least), "{media_type}");
            let longer = [bytes.as_slice(), b"PK\x03\x04"].concat();
            assert_eq!(end(media_type, &longer), Some(bytes.len()), "{media_type}");
        }
        // A length that is odd is filled up, or not.
        let mut webp = webp();
        webp[4] -= 1;
        assert_eq!(end("image/webp", &webp), Some(34));
        assert_eq!(end("image/webp", &webp[..33]), Some(33));
    }

    #[test]
    fn zeros_behind_a_picture_are_nothing() {
        assert_eq!((beyond(b"abc\0\0", 3), beyond(b"abc", 3), beyond(b"abc\0x", 3)), (0, 0, 2));
    }

    #[test]
    fn marks_are_found_in_any_spelling() {
        for (bytes, found) in [
            (&b"abc<ScRiPt>"[..], Some("<script")),
            (b"<<?PHP", Some("<?php")),
            (b"x<SVG\nx", Some("<svg")),
            (b"<svgx <htm <scrip <?xpacket", None),
            (b"<", None),
        ] {
            assert_eq!(mark(bytes), found);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over_or_point_outside(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0usize..5, keep in 0usize..40,
        ) {
            let (media_type, picture) = &pictures()[which];
            let keep = keep.min(picture.len());
            bytes.splice(0..0, picture[..keep].iter().copied());
            let end = end(media_type, &bytes);
            prop_assert!(end.is_none_or(|end| end <= bytes.len()));
            prop_assert!(mark(&bytes).is_none_or(|mark| bytes.len() >= mark.len()));
        }
    }
}
