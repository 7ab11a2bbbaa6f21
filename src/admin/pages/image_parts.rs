//! What the pages of images share: the upload form, and how a picture, its title and its size are shown.

use maud::{Markup, html};

use crate::admin::refusal::Refusal;
use crate::admin::upload::{Part, Upload};
use crate::admin::view::{counted, field, number};
use crate::db::images::ImageRow;
use crate::images::upload::{self, ACCEPTED, AddError, BYTES_MAX};

/// Days whose hits are shown.
pub(super) const DAYS: u16 = 30;

/// Bytes of a too large file that are still read, so that the browser shows our answer: one that is answered while it
/// is still sending shows an error of its own instead.
const UNREAD_BYTES_MAX: usize = 64 << 20;

/// What a form with a picture holds.
pub(super) struct PictureForm {
    /// The title, as typed.
    pub title: String,
    /// The picture's bytes, or why there are none.
    pub file: Result<Vec<u8>, String>,
}

impl PictureForm {
    pub(super) async fn read(sent: &mut Upload) -> Result<PictureForm, Refusal> {
        let mut title = String::new();
        let mut file = Err("choose a file first".to_owned());
        while let Some(part) = sent.next().await? {
            match part.name() {
                "title" => title = part.text().await?,
                "file" if part.file_name().is_some() => {
                    file = picture(part).await?.ok_or_else(|| upload::Refusal::TooLarge.to_string());
                    if file.is_err() {
                        break;
                    }
                }
                _ => {}
            }
        }
        Ok(PictureForm { title, file })
    }
}

/// A picture's bytes; `None` if there are too many.
async fn picture(mut part: Part) -> Result<Option<Vec<u8>>, Refusal> {
    let mut bytes = Vec::new();
    let mut unread = 0;
    while let Some(chunk) = part.chunk().await? {
        if unread == 0 && bytes.len() + chunk.len() <= BYTES_MAX {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        bytes = Vec::new();
        unread += chunk.len();
        if unread > UNREAD_BYTES_MAX {
            break;
        }
    }
    Ok((unread == 0).then_some(bytes))
}

/// The message to the user who sent it; if it is not the user's fault, an error.
pub(super) fn refused(error: AddError) -> Result<String, Refusal> {
    match error {
        AddError::Refused(refusal) => Ok(refusal.to_string()),
        AddError::Database(error) => Err(error.into()),
        AddError::Exists(_) | AddError::Nil => Err(Refusal::Broken(error.into())),
    }
}

/// The field for a picture file.
pub(super) fn file_field() -> Markup {
    field(
        "Image file",
        "file",
        Some(ACCEPTED),
        html! {
            input #file name="file" type="file" accept="image/gif,image/png,image/jpeg,image/webp" required aria-describedby="file-hint";
        },
    )
}

/// A number of bytes, for people.
pub(super) fn bytes(length: i32) -> String {
    match length {
        ..1024 => counted(i64::from(length), "byte"),
        _ => format!("{} KiB", number(i64::from((length + 512) / 1024))),
    }
}

/// What people call it.
pub(super) fn title(image: &ImageRow) -> &str {
    if image.title.is_empty() { "Untitled image" } else { &image.title }
}

/// The picture itself, at most in its own size. In a list its title is beside it, so screen readers skip it there.
pub(super) fn picture_tag(image: &ImageRow, is_in_list: bool) -> Markup {
    let (alt, loading) = if is_in_list { ("", Some("lazy")) } else { ("The image", None) };
    html! {
        img src={ "/images/" (image.id) "/picture" } alt=(alt) width=(image.width) height=(image.height) loading=[loading];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_round_numbers() {
        for (length, said) in
            [(1, "1 byte"), (43, "43 bytes"), (1023, "1,023 bytes"), (1536, "2 KiB"), (1 << 20, "1,024 KiB")]
        {
            assert_eq!(bytes(length), said);
        }
    }
}
