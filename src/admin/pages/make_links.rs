//! Links for a whole list: it arrives as CSV, and is returned with each row's own link, ready for a mail merge.

use std::borrow::Cow;

use anyhow::Context;
use hyper::StatusCode;
use maud::{Markup, html};

use super::list_form::{
    SURE, about_lists, consent_fields, consents, file_field, message, of_message, page, recipient_field, sure_field,
};
use crate::admin::Admin;
use crate::admin::answer::Answer;
use crate::admin::csv::{self, Columns};
use crate::admin::refusal::Refusal;
use crate::admin::request::{Fields, PageRequest};
use crate::admin::upload::Upload;
use crate::admin::view::{Zone, empty, field, nothing};
use crate::db::images::{self, ImageRow};
use crate::db::{installation, messages};
use crate::lists::doubts::Doubts;
use crate::lists::header::Header;
use crate::lists::rows::{Batch, quoted};
use crate::lists::{Problem, cells};
use pixeld_core::ids::ImageId;
use pixeld_core::link::key::Namespace;
use pixeld_core::link::make::{self, Names};
use pixeld_core::link::parse_uuid;
use pixeld_core::link::token::SigningKeys;

/// Images that are offered.
const IMAGES: i64 = 200;

/// `GET /messages/{message}/links`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    form_page(admin, request, StatusCode::OK, &Fields::default(), nothing()).await
}

/// `POST /messages/{message}/links`.
///
/// # Errors
/// On an error of the database or the disk, or if too many lists are answered at once.
pub(crate) async fn answer(admin: &Admin, request: &PageRequest, mut upload: Upload) -> Result<Answer, Refusal> {
    let mut fields = Fields::default();
    let answered = answered(admin, request, &mut upload, &mut fields).await;
    let form = |notice| form_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, &fields, notice);
    csv::answer_or_form(answered, upload, form).await
}

async fn answered(
    admin: &Admin,
    request: &PageRequest,
    upload: &mut Upload,
    fields: &mut Fields,
) -> Result<Answer, Refusal> {
    let message = message(request)?;
    let file = csv::fields(upload, fields).await?;
    let place = admin.lists.enter().ok_or(Refusal::Busy)?;
    let sent_at_s = sent_at(fields.get("sent-at"), request.zone, &admin.options.signing.keys)?;
    let client = admin.client().await?;
    let image = image(images::find(&client, image_id(fields)?).await?)?;
    let namespace = installation::namespace(&client).await?;
    // Not held while the list arrives: others need it, too.
    drop(client);
    let columns = MakeLinks {
        admin,
        image,
        message: message.to_string(),
        namespace,
        sent_at_s,
        fields,
        column: 0,
        consent: None,
        doubts: Doubts::default(),
        named: 0,
    };
    csv::answered(admin, upload, file, columns, place).await
}

/// The image that was typed, or else the one chosen.
fn image_id(fields: &Fields) -> Result<ImageId, Refusal> {
    let text = [fields.get("image-id").trim(), fields.get("image")].into_iter().find(|text| !text.is_empty());
    let text = text.ok_or_else(|| Refusal::Upload("Choose an image.".to_owned()))?;
    parse_uuid(text.as_bytes()).ok_or_else(|| Refusal::Upload(format!("{text:?} is not the id of an image.")))
}

fn image(found: Option<ImageRow>) -> Result<ImageRow, Refusal> {
    match found {
        None => Err(Refusal::Upload("There is no image with this id.".to_owned())),
        Some(image) if image.deleted_at.is_some() => {
            Err(Refusal::Upload("This image is deleted, so its links would show nothing.".to_owned()))
        }
        Some(image) => Ok(image),
    }
}

/// The send time, in s since 1970; 0 if none was typed.
fn sent_at(typed: &str, zone: Zone, keys: &SigningKeys) -> Result<u32, Refusal> {
    if typed.is_empty() {
        return Ok(0);
    }
    if keys.is_empty() {
        return Err(Refusal::Upload(
            "Only signed links hold a send time, and PIXELD_SIGNING_KEYS is not set. Leave the send time empty."
                .to_owned(),
        ));
    }
    let at = zone.typed(typed).and_then(|at| u32::try_from(at.unix_timestamp()).ok()).filter(|at| *at != 0);
    at.ok_or_else(|| Refusal::Upload("The send time must be a date and time from 1970 to 2106.".to_owned()))
}

struct MakeLinks<'a> {
    admin: &'a Admin,
    image: ImageRow,
    message: String,
    namespace: Namespace,
    sent_at_s: u32,
    fields: &'a Fields,
    column: usize,
    consent: Option<usize>,
    doubts: Doubts,
    /// Links that name their recipient.
    named: u64,
}

impl Columns for MakeLinks<'_> {
    const NAMES: &'static [&'static str] = &["pixeld_link", "pixeld_img", "pixeld_recipient_in_link", "pixeld_note"];

    fn choose(&mut self, header: &Header) -> Result<(), Problem> {
        self.column = header.recipients(self.fields.get("column"))?;
        self.consent = header.consents(consents(self.fields)?)?;
        Ok(())
    }

    async fn fill(&mut self, header: &Header, rows: &Batch, out: &mut Vec<Cow<'static, str>>) -> Result<(), Refusal> {
        for row in rows.rows() {
            if row.is_blank() {
                out.extend(["", "", "", "an empty row"].map(Cow::Borrowed));
                continue;
            }
            let cell = header.recipient(row, self.column)?;
            let named = cells::recipient(cell).map_err(|error| Problem::NoKey {
                row: row.number(),
                cell: quoted(cell),
                error,
            })?;
            let has_consented = header.has_consented(row, self.consent)?;
            self.doubts.add(row.number(), named.as_deref());
            let recipient = named.as_deref().filter(|_| has_consented);
            let names = Names {
                image: self.image.id,
                message: Some(&self.message),
                recipient,
                sent_at_s: self.sent_at_s,
                extension: make::extension(&self.image.media_type),
            };
            let path = make::path(&names, self.namespace, &self.admin.options.signing.keys);
            let url = format!("{}{}", self.admin.options.listen.base_url, path.context("a link could not be made")?);
            let img = make::img_tag(&url, self.image.width, self.image.height);
            let (is_named, note) = match (&named, has_consented) {
                (None, _) => ("no", "no recipient"),
                (_, false) => ("no", "no consent"),
                _ => ("yes", ""),
            };
            self.named += u64::from(recipient.is_some());
            out.extend([url.into(), img.into(), is_named.into(), note.into()]);
        }
        Ok(())
    }

    async fn end(&mut self, header: &Header) -> Result<String, Refusal> {
        match self.doubts.words(header.name(self.column)) {
            Some(words) if self.fields.get(SURE).is_empty() => Err(Refusal::Upload(words)),
            _ => Ok(format!("links-{}-{}-rows-{}-named.csv", self.message, self.doubts.rows(), self.named)),
        }
    }
}

async fn form_page(
    admin: &Admin,
    request: &PageRequest,
    status: StatusCode,
    fields: &Fields,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let message = message(request)?;
    let client = admin.client().await?;
    let name = messages::name_of(&client, message).await?;
    let offered = images::newest(&client, false, None, IMAGES).await?;
    drop(client);
    let content = html! {
        (notice)
        (of_message(message, &name))
        p {
            "Upload your recipient list. You get it back with one link per row, ready for a mail merge. "
            "The list is not stored."
        }
        @if offered.is_empty() {
            (empty("No images yet", html! { p { "A link shows an image: upload one first." } }))
        } @else {
            form.panel method="post" action={ "/messages/" (message) "/links" } enctype="multipart/form-data" {
                div.row { (image_fields(fields, &offered)) }
                div.row { (recipient_field(fields)) (consent_fields(fields)) }
                div.row {
                    @if !admin.options.signing.keys.is_empty() { (sent_at_field(fields, request.zone)) }
                    (file_field())
                }
                @if status != StatusCode::OK { (sure_field()) }
                button type="submit" { "Download the list with links" }
            }
        }
        h2 { "What the new columns mean" }
        ul {
            li { code { "pixeld_link" } ": the link. " code { "pixeld_img" } ": the HTML tag that shows the image, with its size." }
            li {
                code { "pixeld_recipient_in_link" } ": " code { "yes" } ", or " code { "no" } " if the row has no consent or no recipient. "
                "Its link then identifies nobody: fetches are counted for the message only."
            }
            li { code { "pixeld_note" } ": the reason for a no." }
            li { "The file's name says how many rows it has and how many links name a recipient." }
        }
        p {
            @if admin.options.signing.keys.is_empty() {
                "Links are not signed because " code { "PIXELD_SIGNING_KEYS" } " is not set: anyone who has one link can forge others."
            } @else {
                "Links are signed: nobody can forge or change them."
            }
        }
        (about_lists())
    };
    Ok(page(request, status, "Make links", content))
}

fn image_fields(fields: &Fields, offered: &[ImageRow]) -> Markup {
    let chosen = fields.get("image");
    html! {
        (field("Image", "image", Some("The newest 200 images."), html! {
            select #image name="image" aria-describedby="image-hint" {
                @for image in offered {
                    @let id = image.id.to_string();
                    option value=(id) selected[id == chosen] {
                        @if image.title.is_empty() { (id) } @else { (image.title) }
                        " (" (image.width) "×" (image.height) ")"
                    }
                }
            }
        }))
        (field("Or image id", "image-id", Some("For an older image. It is used instead of the one that you chose."), html! {
            input #image-id name="image-id" value=(fields.get("image-id")) maxlength="36" autocomplete="off" autocapitalize="none"
                spellcheck="false" aria-describedby="image-id-hint";
        }))
    }
}

fn sent_at_field(fields: &Fields, zone: Zone) -> Markup {
    let hint =
        format!("Optional. Time zone: {}. It helps to tell scanners, which fetch at once, from readers.", zone.name());
    field(
        "Send time",
        "sent-at",
        Some(&hint),
        html! {
            input #sent-at name="sent-at" type="datetime-local" value=(fields.get("sent-at")) aria-describedby="sent-at-hint";
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_sending_needs_a_key_and_is_of_the_zone() {
        let signed = SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").unwrap();
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert_eq!(sent_at("2026-05-04T11:00", berlin, &signed).unwrap(), 1_777_885_200);
        assert_eq!(sent_at("", berlin, &signed).unwrap(), 0);
        assert_eq!(sent_at("", berlin, &SigningKeys::default()).unwrap(), 0);
        for wrong in ["x", "1969-05-04T11:00", "2107-05-04T11:00"] {
            assert!(sent_at(wrong, berlin, &signed).unwrap_err().to_string().contains("1970 to 2106"));
        }
        let error = sent_at("2026-05-04T11:00", berlin, &SigningKeys::default()).unwrap_err().to_string();
        assert!(error.contains("PIXELD_SIGNING_KEYS"));
    }

    #[test]
    fn the_image_that_is_typed_goes_before_the_one_that_is_chosen() {
        let fields = |typed: &str, chosen: &str| {
            let mut fields = Fields::default();
            fields.add("image".to_owned(), chosen.to_owned());
            fields.add("image-id".to_owned(), typed.to_owned());
            image_id(&fields).map_err(|refusal| refusal.to_string())
        };
        let [one, two] = [1, 2].map(ImageId::from_u128);
        assert_eq!(fields(&format!(" {one} "), &two.to_string()), Ok(one));
        assert_eq!(fields("", &two.to_string()), Ok(two));
        assert_eq!(fields("", ""), Err("Choose an image.".to_owned()));
        assert!(fields("x", &two.to_string()).is_err());
    }
}
