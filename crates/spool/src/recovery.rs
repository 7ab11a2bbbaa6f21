//! Finds the spools of earlier starts, and makes them readable to their end.
//!
//! Guarantees: after it, every segment that an earlier process left is in a list, in the order in which they were
//! written, and the newest one ends with a whole frame: a torn tail (bytes after the last valid frame) is copied to the
//! quarantine and cut off, and the cut is synced. Damage with valid frames after it is left for the reader, which
//! copies it to the quarantine. Only the newest segment is read here, and the few that were written again after a
//! failed sync, so that a long backlog does not delay the first pixel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::frame::{self, FrameKey};
use super::rewrite::NEW;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId, refuse_newer};
use super::{Published, Segment, Spool};
use pixeld_core::ids::SpoolId;

/// Maximum bytes of all copies of damaged or refused hits; beyond that they are counted but not kept.
const QUARANTINE_BYTES_MAX: u64 = 256 << 20;

/// What earlier starts left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The spools, oldest first.
    pub spools: Vec<Arc<Spool>>,
    /// Why others, or the folder of all, cannot be read: they are left unchanged.
    pub left_alone: Vec<io::Error>,
    /// Segments that could not be read and were quarantined.
    pub moved_aside: u64,
}

/// All spools below `spools`. Empty ones are removed. One that cannot be read does not stop the others.
///
/// # Errors
/// Only if a newer pixeld wrote a spool: this one must not run beside it.
pub fn recover(spools: &Path) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut found = Vec::new();
    let folders = match list_folders(spools) {
        Ok(folders) => folders,
        Err(error) => {
            tracing::error!(%error, spools = %spools.display(), "the spools of earlier starts cannot be read");
            recovered.left_alone.push(error);
            Vec::new()
        }
    };
    for uuid in folders {
        let _spool = super::span(uuid).entered();
        match recover_spool(spools, uuid, &mut recovered.moved_aside) {
            Ok(None) => {}
            Ok(Some(spool)) => found.push((begun(&spool.folder), spool)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a spool of an earlier start cannot be read; it waits for the next start");
                recovered.left_alone.push(error);
            }
        }
    }
    found.sort_by_key(|(begun, spool)| (*begun, spool.uuid));
    recovered.spools = found.into_iter().map(|(_, spool)| spool).collect();
    Ok(recovered)
}

/// The spools below `spools`.
fn list_folders(spools: &Path) -> io::Result<Vec<SpoolId>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(spools) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let uuid = entry.file_name().to_str().and_then(|name| name.parse::<SpoolId>().ok());
        match uuid.filter(|_| entry.path().is_dir()) {
            Some(uuid) => found.push(uuid),
            None => tracing::warn!(path = %entry.path().display(), "this is not a spool; pixeld leaves it alone"),
        }
    }
    Ok(found)
}

/// A spool's state on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolOnDisk {
    /// Its UUID.
    pub uuid: SpoolId,
    /// How many segments it has.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The number after its last whole frame.
    pub next_seq: u64,
}

/// All spools below `spools`, as they are. Changes nothing; safe beside a running writer.
pub fn list_spools(spools: &Path) -> io::Result<Vec<SpoolOnDisk>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spools)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<SpoolId>().ok());
        let Some(uuid) = name else { continue };
        let segments = list_segments(&folder)?;
        let bytes = segments.iter().map(|segment| segment.length).sum();
        let mut next_seq = 0;
        for segment in segments.iter().rev() {
            if next_seq > 0 && !segment.id.may_overlap() {
                continue;
            }
            // What cannot be read is not counted; the rest is.
            let Ok(bytes) = fs::read(folder.join(segment.id.file_name())) else { continue };
            next_seq = next_seq.max(valid_end(FrameKey::of(uuid), &bytes).1.unwrap_or(0));
        }
        found.push(SpoolOnDisk { uuid, segments: segments.len(), bytes, next_seq });
    }
    Ok(found)
}

/// When a spool was begun, as far as the file system knows.
fn begun(folder: &Path) -> Duration {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stamp = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).map(since).unwrap_or_default();
    // The folder's own time changes when a segment is removed; that of its first segment only increases while it is
    // written.
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| stamp(&entry.path())).min().unwrap_or_default()
}

fn recover_spool(spools: &Path, uuid: SpoolId, moved_aside: &mut u64) -> io::Result<Option<Arc<Spool>>> {
    let folder = spools.join(uuid.to_string());
    remove_unfinished(&folder)?;
    let mut mend = |segment: &mut Segment| {
        mend(&folder, uuid, segment, &quarantine(spools)).or_else(|error| {
            use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, Unsupported};
            if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | Unsupported) {
                return Err(error);
            }
            move_aside(&folder, uuid, segment.id, &quarantine(spools), &error)?;
            *moved_aside += 1;
            Ok(None)
        })
    };
    let (overlapping, mut in_order): (Vec<_>, Vec<_>) =
        list_segments(&folder)?.into_iter().partition(|segment| segment.id.may_overlap());
    let mut next_seq = 0;
    while let Some(newest) = in_order.last_mut() {
        if let Some(end) = mend(newest)? {
            next_seq = end;
            break;
        }
        in_order.pop();
    }
    // In the order in which they were written, which names alone do not show: a segment that was written again after a
    // failed sync begins at an earlier number than others that existed before it, but what follows it begins where it
    // ends.
    let mut placed: Vec<_> = in_order.into_iter().map(|segment| ((segment.id.first_seq, true), segment)).collect();
    for mut segment in overlapping {
        if let Some(end) = mend(&mut segment)? {
            next_seq = next_seq.max(end);
            segment.end = Some(end);
            placed.push(((end, false), segment));
        }
    }
    placed.sort_by_key(|(place, segment)| (*place, segment.id));
    let segments: Vec<Segment> = placed.into_iter().map(|(_, segment)| segment).collect();
    if segments.is_empty() {
        fs::remove_dir_all(&folder)?;
        return Ok(None);
    }
    File::open(&folder)?.sync_all()?;
    Ok(Some(Spool::new(spools, uuid, Published { segments, next_seq, closed: true, ..Published::default() })))
}

/// Removes unfinished files that were meant to replace others.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == NEW) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Quarantines a segment that the disk cannot read, so that the rest of its spool can be loaded.
fn move_aside(folder: &Path, spool: SpoolId, id: SegmentId, quarantine: &Path, error: &io::Error) -> io::Result<()> {
    let (from, to) = (folder.join(id.file_name()), quarantine.join(format!("{spool}-{}.unreadable", id.file_name())));
    fs::create_dir_all(quarantine)?;
    fs::rename(&from, &to)?;
    tracing::error!(
        %error, segment = %from.display(), moved_to = %to.display(),
        "a segment cannot be read and was moved to the folder quarantine; the number of its hits is not known"
    );
    Ok(())
}

/// Cuts off a segment's torn tail, and removes a segment without a whole frame. Returns the number after its last hit.
fn mend(folder: &Path, spool: SpoolId, segment: &mut Segment, quarantine: &Path) -> io::Result<Option<u64>> {
    let name = segment.id.file_name();
    let path = folder.join(&name);
    let bytes = fs::read(&path)?;
    refuse_newer(&bytes).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let (length, end) = valid_end(FrameKey::of(spool), &bytes);
    let kept = if end.is_some() { length as usize } else { 0 };
    // Damage to the last frame looks like a torn tail; then the copy is all that is left of hits that were answered.
    if kept < bytes.len() && bytes.len() > SEGMENT_HEADER_BYTES {
        copy_aside(quarantine, &format!("{spool}-{name}-{kept}.damaged"), &bytes[kept..]);
    }
    if end.is_none() {
        tracing::info!(segment = %path.display(), "a segment without a complete frame was removed");
        fs::remove_file(&path)?;
    } else if length < segment.length {
        tracing::warn!(segment = %path.display(), from = length, bytes = segment.length - length, "a torn tail was cut off");
        let file = File::options().write(true).open(&path)?;
        file.set_len(length)?;
        file.sync_all()?;
        segment.length = length;
    }
    Ok(end)
}

/// The segments in a spool's folder, in order, all ended.
pub fn list_segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(SegmentId::parse) {
            segments.push(Segment { id, length: entry.metadata()?.len(), ended: true, end: None });
        }
    }
    segments.sort_by_key(|segment| segment.id);
    Ok(segments)
}

/// Where the last valid frame of a segment ends, and the number after its last hit; `None` if there is no frame.
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

/// The folder with damaged and refused hits of the spools in `spools`.
pub fn quarantine(spools: &Path) -> std::path::PathBuf {
    spools.parent().unwrap_or(spools).join("quarantine")
}

/// Keeps a copy of bytes that cannot be loaded. Best effort and bounded: their loss is counted in any case.
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
        tracing::error!(%error, name, "bytes that cannot be loaded could not be copied to the folder quarantine");
    }
}
