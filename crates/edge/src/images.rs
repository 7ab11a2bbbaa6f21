//! Images as they are served, and the cache of them.
//!
//! Guarantees: an image's answer is made once, when the image is cached; its bytes are the stored ones, unchanged.

pub mod cache;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};

pub use cache::{Fetched, ImageCache, Knowledge, Lookup};
use pixeld_core::digest::{self, Hex};

/// A transparent GIF of one pixel: 43 bytes.
pub const TRANSPARENT_GIF: &[u8; 43] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x21\xf9\x04\x01\x00\
    \x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// An image as it is served.
#[derive(Debug)]
pub struct Image {
    /// Its bytes.
    pub bytes: Bytes,
    /// A strong ETag, computed from the bytes alone.
    pub etag: HeaderValue,
    /// All headers of an answer that has the bytes.
    pub headers: HeaderMap,
    /// All headers of a 304.
    pub not_modified_headers: HeaderMap,
}

impl Image {
    /// An image with its headers. A media type that no header can hold becomes `application/octet-stream`.
    pub fn new(bytes: Bytes, media_type: &str) -> Image {
        let digest = digest::prefix::<16>(&[&bytes]);
        let unreadable = |_| HeaderValue::from_static("\"0\"");
        let etag = HeaderValue::try_from(format!("\"{}\"", Hex(&digest))).unwrap_or_else(unreadable);
        let mut not_modified_headers = HeaderMap::with_capacity(8);
        not_modified_headers.insert(ETAG, etag.clone());
        // Each open must reach us, so no cache may keep it, and the reader asks again each time.
        let always_ask = HeaderValue::from_static("private, no-cache, max-age=0, must-revalidate");
        not_modified_headers.insert(CACHE_CONTROL, always_ask);
        not_modified_headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = HeaderValue::from_static("default-src 'none'; sandbox");
        not_modified_headers.insert(CONTENT_SECURITY_POLICY, policy);
        // Webmail shows it in a page of another origin.
        let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
        not_modified_headers.insert(resource_policy, HeaderValue::from_static("cross-origin"));
        let mut headers = not_modified_headers.clone();
        let unnamed = |_| HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(media_type).unwrap_or_else(unnamed));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        Image { bytes, etag, headers, not_modified_headers }
    }

    /// Approximate bytes of memory that the image takes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + 2048
    }
}

/// The transparent GIF: for 404s, for deleted images, and if the image itself is not available in time.
pub fn transparent_gif() -> Arc<Image> {
    static GIF: LazyLock<Arc<Image>> =
        LazyLock::new(|| Arc::new(Image::new(Bytes::from_static(TRANSPARENT_GIF), "image/gif")));
    Arc::clone(&GIF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transparent_gif_is_one_pixel() {
        assert!(infer::image::is_gif(TRANSPARENT_GIF));
        let size = imagesize::blob_size(TRANSPARENT_GIF).unwrap();
        assert_eq!((size.width, size.height), (1, 1));
        assert_eq!(transparent_gif().headers[CONTENT_LENGTH], "43");
    }

    #[test]
    fn an_etag_is_of_the_bytes_alone() {
        let etag = |bytes: &'static [u8], media_type| Image::new(Bytes::from_static(bytes), media_type).etag;
        assert_eq!(etag(b"a", "image/gif"), etag(b"a", "image/png"));
        assert_ne!(etag(b"a", "image/gif"), etag(b"b", "image/gif"));
    }
}
