//! One image: its picture, links to it, its hits, and what can be done with it.

use hyper::StatusCode;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::image_parts::{DAYS, PictureForm, bytes, file_field, picture_tag, refused, title};
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::upload::Upload;
use crate::admin::view::chart::{Bar, plain};
use crate::admin::view::{Frame, Tone, command, field, nothing, notice};
use crate::db::images::{self, ImageRow};
use crate::db::users::Role;
use crate::db::{counts, installation};
use crate::images::upload;
use pixeld_core::ids::ImageId;
use pixeld_core::link::key::Namespace;
use pixeld_core::link::make::{self, Names};

/// `GET /images/{image}`.
///
/// # Errors
/// If there is no such image, or on a database error.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let notice = match request.query.get("done") {
        "added" => {
            notice(Tone::Good, html! { p { "The image was added and is served within a second. Its link is below." } })
        }
        "titled" => notice(Tone::Good, html! { p { "The title was changed." } }),
        "replaced" => notice(
            Tone::Good,
            html! { p { "The image file was replaced. All links stay the same and show the new file within a second." } },
        ),
        "restored" => notice(Tone::Good, html! { p { "The image is served again." } }),
        _ => nothing(),
    };
    image_page(admin, request, id(request)?, StatusCode::OK, notice).await
}

/// `GET /images/{image}/picture`: of a deleted image, too, so that people see what they would restore.
///
/// # Errors
/// If there is no such image, or on a database error.
pub(crate) async fn picture(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let loaded = images::load_with(&*admin.client().await?, id(request)?).await?.ok_or(Refusal::NotFound)?;
    let media_type = match loaded.media_type.as_str() {
        "image/gif" => "image/gif",
        "image/png" => "image/png",
        "image/jpeg" => "image/jpeg",
        "image/webp" => "image/webp",
        _ => "application/octet-stream",
    };
    Ok(answer::picture(media_type, loaded.bytes.into()))
}

/// `POST /images/{image}/title`.
///
/// # Errors
/// If there is no such image, or on a database error.
pub(crate) async fn set_title(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let id = id(request)?;
    // PostgreSQL's text allows no NUL; `wrong_title` refuses it with all control characters.
    let title = request.form.get("title").trim();
    if let Some(wrong) = upload::wrong_title(title) {
        return unchanged(admin, request, id, wrong).await;
    }
    match images::set_title(&*admin.client().await?, request.actor(), id, title).await? {
        true => Ok(to(id, "titled")),
        false => Err(Refusal::NotFound),
    }
}

/// `POST /images/{image}/replace`.
///
/// # Errors
/// If there is no such image, if it is deleted, if the form is incomplete, or on a database error.
pub(crate) async fn replace(admin: &Admin, request: &PageRequest, mut sent: Upload) -> Result<Answer, Refusal> {
    let id = id(request)?;
    let bytes = match PictureForm::read(&mut sent).await?.file {
        Ok(bytes) => bytes,
        Err(wrong) => return unchanged(admin, request, id, &wrong).await,
    };
    let replaced = upload::replace(&*admin.client().await?, request.actor(), id, &bytes).await;
    match replaced {
        Ok(true) => Ok(to(id, "replaced")),
        Ok(false) => unchanged(admin, request, id, "it is deleted; restore it first").await,
        Err(error) => unchanged(admin, request, id, &refused(error)?).await,
    }
}

/// `POST /images/{image}/delete` and `…/restore`.
///
/// # Errors
/// If there is no such image, or on a database error.
pub(crate) async fn set_deleted(admin: &Admin, request: &PageRequest, is_deleted: bool) -> Result<Answer, Refusal> {
    let id = id(request)?;
    let client = admin.client().await?;
    let is_changed = images::set_deleted(&client, request.actor(), id, is_deleted).await?;
    if !is_changed && images::find(&client, id).await?.is_none() {
        return Err(Refusal::NotFound);
    }
    Ok(to(id, if is_deleted { "deleted" } else { "restored" }))
}

fn id(request: &PageRequest) -> Result<ImageId, Refusal> {
    request.parameter("image").parse().map_err(|_| Refusal::NotFound)
}

fn to(id: ImageId, done: &str) -> Answer {
    answer::go_to(&format!("/images/{id}?done={done}"))
}

async fn unchanged(admin: &Admin, request: &PageRequest, id: ImageId, wrong: &str) -> Result<Answer, Refusal> {
    let notice = notice(Tone::Bad, html! { p { "The image was not changed: " (wrong) "." } });
    image_page(admin, request, id, StatusCode::UNPROCESSABLE_ENTITY, notice).await
}

async fn image_page(
    admin: &Admin,
    request: &PageRequest,
    id: ImageId,
    status: StatusCode,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    let days = request.zone.days_till(pixeld_core::clock::now_utc(), DAYS);
    let client = admin.client().await?;
    let image = images::find(&client, id).await?.ok_or(Refusal::NotFound)?;
    let by_day = counts::image_hits_between(&client, id, &days).await?;
    let namespace = installation::namespace(&client).await?;
    let loaded = images::load_with(&client, id).await?;
    drop(client);
    let warnings = loaded.map_or(Vec::new(), |loaded| upload::warnings(&loaded.media_type, &loaded.bytes));
    let is_deleted = image.deleted_at.is_some();
    let content = html! {
        (notice)
        @for warning in warnings { (self::notice(Tone::Warning, html! { p { (warning) } })) }
        @if is_deleted { (deleted(&image, is_admin)) }
        div.picture {
            div.ground { (picture_tag(&image, false)) }
            p.muted {
                (image.media_type) " · " (image.width) " × " (image.height) " px · " (bytes(image.length)) " · "
                span.id { (image.id) }
            }
        }
        @if !is_deleted { (link(admin, request, &image, namespace)) }
        (day_chart(request, &days, &by_day))
        @if is_admin { (changes(&image)) }
        p { a href="/images" { "All images" } }
    };
    let frame = Frame { title: title(&image), path: "/images", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

fn deleted(image: &ImageRow, is_admin: bool) -> Markup {
    notice(
        Tone::Warning,
        html! {
            p { strong { "This image is deleted." } " Messages that use it show a transparent GIF of one pixel, and their opens are not recorded." }
            @if is_admin {
                form method="post" action={ "/images/" (image.id) "/restore" } { button.quiet type="submit" { "Restore the image" } }
            }
        },
    )
}

fn link(admin: &Admin, request: &PageRequest, image: &ImageRow, namespace: Namespace) -> Markup {
    let [message, recipient, sent_at] = ["message", "recipient", "sent-at"].map(|name| request.query.get(name).trim());
    let is_signed = !admin.options.signing.keys.is_empty();
    html! {
        h2 #link { "Link" }
        @match url(admin, request, image, namespace, [message, recipient, sent_at]) {
            Ok(url) => {
                p.muted {
                    @if message.is_empty() && recipient.is_empty() {
                        "This link only counts fetches. Add a message and a recipient to see who opened what."
                    } @else { "Click the link to select it. If you open it in your browser, that is recorded, too." }
                }
                (command(&url))
                (command(&make::img_tag(&url, image.width, image.height)))
            }
            Err(wrong) => (notice(Tone::Bad, html! { p { "The link cannot be made: " (wrong) "." } }))
        }
        form.panel method="get" action={ "/images/" (image.id) "#link" } {
            h3 { "For a message and a recipient" }
            div.row {
                (field("Message", "message", Some("Your key or UUID, such as may-news."), html! {
                    input #message name="message" value=(message) autocomplete="off" autocapitalize="none" spellcheck="false" aria-describedby="message-hint";
                }))
                (field("Recipient", "recipient", Some("Your key or UUID, such as 4711. Avoid email addresses."), html! {
                    input #recipient name="recipient" value=(recipient) autocomplete="off" autocapitalize="none" spellcheck="false" aria-describedby="recipient-hint";
                }))
                @if is_signed || !sent_at.is_empty() {
                    (field("Sent at", "sent-at", Some("Optional. It helps to tell scanners, which fetch at once, from readers."), html! {
                        input #sent-at name="sent-at" type="datetime-local" value=(sent_at) aria-describedby="sent-at-hint";
                    }))
                }
            }
            button type="submit" { "Make the link" }
        }
    }
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The requested link, or in words why there is none.
fn url(
    admin: &Admin,
    request: &PageRequest,
    image: &ImageRow,
    namespace: Namespace,
    [message, recipient, sent_at]: [&str; 3],
) -> Result<String, String> {
    let sent_at_s = match sent_at {
        "" => 0,
        typed => {
            let at = request.zone.typed(typed).ok_or("the send time cannot be read; write it like 2026-05-04T09:00")?;
            let seconds = u32::try_from(at.unix_timestamp()).ok().filter(|&seconds| seconds > 0);
            seconds.ok_or("the send time must be from 1970 to 2106")?
        }
    };
    let names = Names {
        image: image.id,
        message: given(message),
        recipient: given(recipient),
        sent_at_s,
        extension: make::extension(&image.media_type),
    };
    let path = make::path(&names, namespace, &admin.options.signing.keys).map_err(|error| error.to_string())?;
    Ok(format!("{}{path}", admin.options.listen.base_url))
}

fn day_chart(request: &PageRequest, days: &[OffsetDateTime], by_day: &[i64]) -> Markup {
    let bars: Vec<Bar> = days
        .iter()
        .zip(by_day)
        .map(|(&day, &hits)| {
            let time = request.zone.date(day);
            let label = time.rsplit_once(' ').map_or(time.as_str(), |(day, _)| day).to_owned();
            Bar { label, time, values: [hits, 0, 0] }
        })
        .collect();
    html! {
        h2 { "Fetches by day" }
        (plain("Fetches in the last 30 days, machines included", "fetches", &bars))
    }
}

fn changes(image: &ImageRow) -> Markup {
    let path = format!("/images/{}", image.id);
    html! {
        h2 { "Change the image" }
        form.panel method="post" action={ (path) "/title" } {
            (field("Title", "title", Some("Only you see it; readers never do."), html! {
                input #title name="title" value=(image.title) maxlength=(upload::TITLE_CHARS_MAX) autocomplete="off" aria-describedby="title-hint";
            }))
            button type="submit" { "Save the title" }
        }
        @if image.deleted_at.is_none() {
            form.panel method="post" action={ (path) "/replace" } enctype="multipart/form-data" {
                h3 { "Replace the image file" }
                p.muted { "Links stay the same: messages that are already sent show the new file." }
                (file_field())
                button type="submit" { "Replace the file" }
            }
            details.panel {
                summary { "Delete the image…" }
                p {
                    "Messages that use it then show a transparent GIF of one pixel, and their opens are no longer recorded. "
                    "Opens that are already recorded stay, and you can restore the image."
                }
                form method="post" action={ (path) "/delete" } { button.danger type="submit" { "Delete the image" } }
            }
        }
    }
}
