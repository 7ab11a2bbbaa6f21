//! A form with a file (multipart/form-data), read as it arrives.
//!
//! Guarantees: only the part that is being read is in memory. Each part and the whole have bounds. Parts arrive in the
//! order of the form's fields, so that a page may read the small ones first. Gives up: files without a form.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use multer::{Constraints, Field, Multipart, SizeLimit};

use super::refusal::Refusal;

/// Maximum bytes of all parts together: a million rows of a thousand bytes.
pub const UPLOAD_BYTES_MAX: u64 = 1 << 30;

/// Maximum bytes of a part that is not a file.
pub(crate) const FIELD_BYTES_MAX: usize = 4096;

/// The parts of a form with a file.
pub(crate) struct Upload(Multipart<'static>);

/// One part of it.
pub(crate) struct Part(Field<'static>);

impl Upload {
    /// A request's body, if its headers say that it is a form.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn new(headers: &HeaderMap, body: Incoming) -> Result<Upload, Refusal> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(media_type).map_err(|_| Refusal::NoForm)?;
        if body.size_hint().lower() > UPLOAD_BYTES_MAX {
            return Err(too_large(UPLOAD_BYTES_MAX));
        }
        let limits = SizeLimit::new().whole_stream(UPLOAD_BYTES_MAX);
        let constraints = Constraints::new().size_limit(limits);
        Ok(Upload(Multipart::with_constraints(body.into_data_stream(), boundary, constraints)))
    }

    /// The next part.
    ///
    /// # Errors
    /// If the form is broken, too large, or cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<Part>, Refusal> {
        Ok(self.0.next_field().await.map_err(refused)?.map(Part))
    }
}

impl Part {
    /// The name of its field.
    pub(crate) fn name(&self) -> &str {
        self.0.name().unwrap_or_default()
    }

    /// The name of the file on the client's machine, as the client gives it; `None` if it is not a file, or none was
    /// chosen.
    pub(crate) fn file_name(&self) -> Option<&str> {
        self.0.file_name().filter(|name| !name.is_empty())
    }

    /// Some of its bytes; `None` at its end.
    ///
    /// # Errors
    /// As [`Upload::next`].
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.0.chunk().await.map_err(refused)
    }

    /// All of its bytes, if they are at most `max`; otherwise `None`.
    ///
    /// # Errors
    /// As [`Upload::next`].
    pub(crate) async fn bytes(mut self, max: usize) -> Result<Option<Vec<u8>>, Refusal> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > max {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The value that was filled in.
    ///
    /// # Errors
    /// As [`Upload::next`], or if it is longer than [`FIELD_BYTES_MAX`].
    pub(crate) async fn text(self) -> Result<String, Refusal> {
        let name = self.name().to_owned();
        let bytes = self.bytes(FIELD_BYTES_MAX).await?;
        let bytes = bytes
            .ok_or_else(|| Refusal::Upload(format!("The field {name:?} is longer than {FIELD_BYTES_MAX} bytes.")))?;
        // PostgreSQL's text allows no NUL.
        Ok(String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}"))
    }
}

fn too_large(max: u64) -> Refusal {
    Refusal::Upload(format!("The upload is too large. Maximum: {} MiB.", max >> 20))
}

fn refused(error: multer::Error) -> Refusal {
    match error {
        multer::Error::StreamSizeExceeded { limit } | multer::Error::FieldSizeExceeded { limit, .. } => {
            too_large(limit)
        }
        multer::Error::StreamReadFailed(_)
        | multer::Error::IncompleteStream
        | multer::Error::IncompleteFieldData { .. } => {
            Refusal::Upload("The file did not arrive completely: the connection was lost. Try again.".to_owned())
        }
        _ => Refusal::NoForm,
    }
}
