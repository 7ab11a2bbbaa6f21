//! The file in which an answer waits until its list was received whole.
//!
//! Guarantees: the file has no name, never takes the room that hits need, and never grows beyond [`ANSWER_BYTES_MAX`];
//! no thread that answers requests waits for the disk. Gives up: durability.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};

use crate::admin::gate::Place;
use crate::admin::refusal::Refusal;

/// Maximum bytes of an answer.
pub(crate) const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// Bytes of the disk that stay free for hits.
pub(crate) const ROOM_BYTES_LEFT: u64 = 256 << 20;

/// Bytes that are written at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Bytes that are read at once.
const READ_BYTES: u64 = 256 << 10;

/// An answer that is being written, or has been.
pub(crate) struct AnswerFile {
    file: Arc<File>,
    block: Vec<u8>,
    written: u64,
}

impl AnswerFile {
    /// Creates an empty one in a directory.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) async fn create(dir: &Path) -> Result<AnswerFile, Refusal> {
        let dir = dir.to_owned();
        let file = away(move || tempfile::tempfile_in(&dir)).await?;
        Ok(AnswerFile { file: Arc::new(file), block: Vec::new(), written: 0 })
    }

    /// The buffer to append to.
    pub(crate) fn block(&mut self) -> &mut Vec<u8> {
        &mut self.block
    }

    /// Writes what was appended, once there is a whole block.
    ///
    /// # Errors
    /// If the file grows too large, or the disk has no room.
    pub(crate) async fn write_if_full(&mut self) -> Result<(), Refusal> {
        if self.block.len() < BLOCK_BYTES { Ok(()) } else { self.end().await }
    }

    /// Writes all that was appended.
    ///
    /// # Errors
    /// As [`AnswerFile::write_if_full`].
    pub(crate) async fn end(&mut self) -> Result<(), Refusal> {
        let (file, block) = (Arc::clone(&self.file), std::mem::take(&mut self.block));
        self.written += block.len() as u64;
        if self.written > ANSWER_BYTES_MAX {
            let most = ANSWER_BYTES_MAX >> 30;
            return Err(Refusal::Upload(format!(
                "The result would be larger than {most} GiB. Upload the list in parts, or with fewer columns."
            )));
        }
        self.block = away(move || {
            let room = rustix::fs::fstatvfs(&*file)?;
            if room.f_bavail.saturating_mul(room.f_frsize) < ROOM_BYTES_LEFT + block.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            (&*file).write_all(&block)?;
            Ok(block)
        })
        .await?;
        self.block.clear();
        Ok(())
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.written
    }

    /// Its bytes, as an answer's body; `place` is freed with the last of them.
    pub(crate) fn body(self, place: Place) -> impl Body<Data = Bytes, Error = io::Error> + Send + 'static {
        let AnswerFile { file, written, .. } = self;
        StreamBody::new(stream::try_unfold((0, place), move |(at, place)| {
            let file = Arc::clone(&file);
            async move {
                let length = READ_BYTES.min(written - at);
                if length == 0 {
                    return Ok(None);
                }
                let read = move || {
                    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
                    file.read_exact_at(&mut bytes, at)?;
                    Ok::<_, io::Error>(bytes)
                };
                let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
                Ok(Some((Frame::data(bytes.into()), (at + length, place))))
            }
        }))
    }
}

/// Runs blocking disk work on a thread that may block.
async fn away<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await.context("writing an answer broke")?;
    done.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Refusal::NoRoom,
        _ => Refusal::Broken(anyhow::Error::new(error).context("a file for an answer cannot be written")),
    })
}
