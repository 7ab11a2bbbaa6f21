//! Finds the spools of earlier starts, and makes them readable to their end.
//!
//! Guarantees: after it, every segment that an earlier process left is in a list, in order, and the newest one ends with a
//! whole frame: a torn tail (bytes behind the last valid frame) is cut off and the cut synced. Damage with valid frames behind
//! it is left for the reader, which copies it aside. Only the newest segment is read here, so that a long backlog does not
//! delay the first pixel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::frame::{self, FrameKey};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId};
use super::{Published, Segment, Spool};

/// Bytes that all copies of damaged or refused hits take at most; beyond it they are counted but not kept.
const QUARANTINE_BYTES_MAX: u64 = 256 << 20;

/// All spools below `spools`, oldest first. Empty ones are removed.
///
/// # Errors
/// As the disk says.
pub fn recover(spools: &Path) -> io::Result<Vec<Arc<Spool>>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spools)? {
        let entry = entry?;
        let uuid = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
        let Some(uuid) = uuid.filter(|_| entry.path().is_dir()) else {
            tracing::warn!(path = %entry.path().display(), "this is no spool; it is left alone");
            continue;
        };
        if let Some(spool) = recover_spool(spools, uuid)? {
            found.push((begun(&spool.folder), spool));
        }
    }
    found.sort_by_key(|(begun, spool)| (*begun, spool.uuid));
    Ok(found.into_iter().map(|(_, spool)| spool).collect())
}

/// A spool as it lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolOnDisk {
    /// Its UUID.
    pub uuid: Uuid,
    /// How many segments it has.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The number behind its last whole frame.
    pub next_seq: u64,
}

/// All spools below `spools`, as they are. Changes nothing; safe beside a running writer.
///
/// # Errors
/// As the disk says.
pub fn list_spools(spools: &Path) -> io::Result<Vec<SpoolOnDisk>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spools)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| Uuid::try_parse(name).ok());
        let Some(uuid) = name else { continue };
        let segments = list_segments(&folder)?;
        let bytes = segments.iter().map(|segment| segment.length).sum();
        let mut next_seq = 0;
        for segment in segments.iter().rev() {
            if let (_, Some(end)) = valid_end(FrameKey::of(uuid), &fs::read(folder.join(segment.id.file_name()))?) {
                next_seq = end;
                break;
            }
        }
        found.push(SpoolOnDisk { uuid, segments: segments.len(), bytes, next_seq });
    }
    Ok(found)
}

/// When a spool was begun, as far as the file system knows.
fn begun(folder: &Path) -> Duration {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stamp = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).map(since).unwrap_or_default();
    // The folder's own time moves when a segment is removed; that of its first segment only grows while it is written.
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| stamp(&entry.path())).min().unwrap_or_default()
}

fn recover_spool(spools: &Path, uuid: Uuid) -> io::Result<Option<Arc<Spool>>> {
    let folder = spools.join(uuid.to_string());
    let key = FrameKey::of(uuid);
    let mut segments = list_segments(&folder)?;
    let mut next_seq = 0;
    while let Some(newest) = segments.last_mut() {
        let path = folder.join(newest.id.file_name());
        let (length, end) = valid_end(key, &fs::read(&path)?);
        if let Some(end) = end {
            if length < newest.length {
                tracing::warn!(segment = %path.display(), from = length, bytes = newest.length - length, "a torn tail is cut off");
                let file = File::options().write(true).open(&path)?;
                file.set_len(length)?;
                file.sync_all()?;
                newest.length = length;
            }
            // A segment that was written again after a failed sync can sort before one that was begun earlier.
            let stamp = |id: SegmentId| fs::metadata(folder.join(id.file_name())).and_then(|m| m.modified());
            let newest_stamp = stamp(newest.id)?;
            next_seq = end;
            for other in &segments {
                if stamp(other.id)? > newest_stamp {
                    let (_, end) = valid_end(key, &fs::read(folder.join(other.id.file_name()))?);
                    next_seq = next_seq.max(end.unwrap_or(0));
                }
            }
            break;
        }
        tracing::info!(segment = %path.display(), "a segment without a whole frame is removed");
        if newest.length > SEGMENT_HEADER_BYTES as u64 {
            copy_aside(&quarantine(spools), &format!("{uuid}-{}-0.damaged", newest.id.file_name()), &fs::read(&path)?);
        }
        fs::remove_file(&path)?;
        segments.pop();
    }
    if segments.is_empty() {
        fs::remove_dir_all(&folder)?;
        return Ok(None);
    }
    File::open(&folder)?.sync_all()?;
    Ok(Some(Spool::new(spools, uuid, Published { segments, next_seq, closed: true })))
}

/// The segments in a spool's folder, in order, all ended.
///
/// # Errors
/// As the disk says.
pub fn list_segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(SegmentId::parse) {
            segments.push(Segment { id, length: entry.metadata()?.len(), ended: true });
        }
    }
    segments.sort_by_key(|segment| segment.id);
    Ok(segments)
}

/// Where the last valid frame of a segment ends, and the number behind its last hit; no number where there is no frame.
fn valid_end(key: FrameKey, bytes: &[u8]) -> (u64, Option<u64>) {
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    let mut end = (offset as u64, None);
    loop {
        while let Ok(frame) = frame::decode(key, &bytes[offset..]) {
            offset += frame.bytes();
            end = (offset as u64, Some(frame.next_seq()));
        }
        let seq = end.1.unwrap_or(0);
        let Some(found) = bytes.get(offset + 1..).and_then(|rest| frame::find(key, rest, seq)) else { return end };
        offset += 1 + found;
    }
}

/// Where damaged and refused hits of the spools in `spools` are kept.
#[must_use]
pub fn quarantine(spools: &Path) -> std::path::PathBuf {
    spools.parent().unwrap_or(spools).join("quarantine")
}

/// Keeps a copy of bytes that cannot be loaded. Best effort and bounded: that they are lost is counted in any case.
pub fn copy_aside(quarantine: &Path, name: &str, bytes: &[u8]) {
    let outcome = (|| {
        fs::create_dir_all(quarantine)?;
        let kept: u64 =
            fs::read_dir(quarantine)?.flatten().filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum();
        if kept + bytes.len() as u64 > QUARANTINE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the quarantine already holds {kept} of {QUARANTINE_BYTES_MAX} bytes"
            )));
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(quarantine.join(name))?.write_all(bytes)
    })();
    if let Err(error) = outcome {
        tracing::error!(%error, name, "bytes that cannot be loaded could not be copied aside");
    }
}
