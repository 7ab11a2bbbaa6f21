//! Pictures for the tests of this folder.

use pixeld_edge::images::TRANSPARENT_GIF;

/// A PNG without content: header and end only.
pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend_from_slice(&width.to_be_bytes());
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&[8, 6, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(b"\0\0\0\0IEND\xae\x42\x60\x82");
    bytes
}

/// A JPEG with a scan that has a stuffed FF, a restart and a filled marker.
pub(super) fn jpeg() -> Vec<u8> {
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\
      \xff\xda\0\x03\0ab\xff\0cd\xff\xd0ef\xff\xff\xff\xd9"
        .to_vec()
}

pub(super) fn webp() -> Vec<u8> {
    let mut webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0".to_vec();
    webp.resize(34, 0);
    webp
}

pub(super) fn pictures() -> [(&'static str, Vec<u8>); 5] {
    [
        ("image/gif", TRANSPARENT_GIF.to_vec()),
        ("image/png", png(1, 1)),
        ("image/png", include_bytes!("../app/sample.png").to_vec()),
        ("image/jpeg", jpeg()),
        ("image/webp", webp()),
    ]
}
