//! The Django app's pictures: from its media directory into `images`, under the ids that old links have.
//!
//! Guarantees: what is stored passed the same checks as any uploaded image, whatever its name or format was in the app.
//! Files are read only below the media directory, and no further than an image's maximum size. Existing images stay
//! unchanged.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use tokio_postgres::Client;

use super::report::{Became, PictureProblem, Report, Shown};
use super::source::Picture;
use crate::cli::ImportDjangoArgs;
use crate::db::audit::COMMAND_LINE;
use crate::db::images;
use crate::images::upload::{self, AddError, BYTES_MAX};
use pixeld_core::digest;

/// Imports all pictures.
pub(super) async fn take(
    client: &Client,
    pictures: &[Picture],
    args: &ImportDjangoArgs,
    report: &mut Report,
    shown: &mut Shown,
) -> anyhow::Result<()> {
    shown.begin("images", pictures.len() as u64);
    for (done, picture) in (1..).zip(pictures) {
        match take_one(client, picture, args).await? {
            Ok(became) => report.picture(&became),
            Err(problem) => report.picture_not_taken(picture, problem),
        }
        shown.at(done);
    }
    shown.end();
    Ok(())
}

async fn take_one(
    client: &Client,
    picture: &Picture,
    args: &ImportDjangoArgs,
) -> anyhow::Result<Result<Became, PictureProblem>> {
    if picture.uuid.is_nil() {
        return Ok(Err(PictureProblem::Nil));
    }
    let bytes = match picture.is_unreadable {
        true => Err(PictureProblem::Unnamed),
        false => read(&args.media, &picture.file),
    };
    if let Some((digest, is_deleted)) = images::digest_of(client, picture.uuid).await? {
        let differs = |bytes: &Vec<u8>| digest[..] != digest::prefix::<32>(&[bytes]);
        return Ok(match bytes {
            _ if is_deleted => Ok(Became::Deleted),
            Ok(bytes) if differs(&bytes) => Err(PictureProblem::Another),
            // Even if its file is gone.
            _ => Ok(Became::Here),
        });
    }
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(problem) => return Ok(Err(problem)),
    };
    if let Err(refusal) = upload::inspect(&bytes) {
        return Ok(Err(refusal.into()));
    }
    if args.dry_run {
        return Ok(Ok(Became::Added));
    }
    match upload::add(client, COMMAND_LINE, &bytes, Some(picture.uuid), Some(&picture.title)).await {
        Ok(_) => Ok(Ok(Became::Added)),
        Err(AddError::Exists(_)) => Ok(Ok(Became::Here)),
        Err(error) => Err(error.into()),
    }
}

/// Reads one byte more than is allowed.
fn read(media: &Path, file: &str) -> Result<Vec<u8>, PictureProblem> {
    if file.is_empty() {
        return Err(PictureProblem::NoFile);
    }
    if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(PictureProblem::Outside);
    }
    let path = media.join(file);
    let read = || {
        // Opening a pipe would block forever.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(std::io::Error::other("it is not a file"));
        }
        let mut bytes = Vec::new();
        File::open(&path)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(PictureProblem::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_below_the_media_directory_only() {
        let media = tempfile::tempdir().unwrap();
        std::fs::create_dir(media.path().join("pictures")).unwrap();
        std::fs::write(media.path().join("pictures/a.gif"), b"a").unwrap();
        assert_eq!(read(media.path(), "pictures/a.gif").unwrap(), b"a");
        for file in ["../secret", "/etc/passwd", "pictures/../../secret", ".."] {
            assert!(matches!(read(media.path(), file), Err(PictureProblem::Outside)), "{file}");
        }
        assert!(matches!(read(media.path(), ""), Err(PictureProblem::NoFile)));
        for file in ["pictures", "pictures/b.gif", "a\0b"] {
            assert!(matches!(read(media.path(), file), Err(PictureProblem::Unreadable(_))), "{file}");
        }
        std::fs::write(media.path().join("large"), vec![0; BYTES_MAX + 100]).unwrap();
        assert_eq!(read(media.path(), "large").unwrap().len(), BYTES_MAX + 1);
    }
}
