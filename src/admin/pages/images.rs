//! All images: a grid of them, and the form that adds one.

use hyper::StatusCode;
use maud::{Markup, html};

use super::image_parts::{DAYS, PictureForm, bytes, file_field, picture_tag, refused, title};
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::upload::Upload;
use crate::admin::view::{Frame, Tone, empty, fetches, field, nothing, notice};
use crate::db::counts;
use crate::db::images::{self, ImageRow};
use crate::db::users::Role;
use crate::images::upload;
use pixeld_core::ids::ImageId;

/// Images on a page.
const IMAGES: usize = 60;

/// `GET /images`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    images_page(admin, request, StatusCode::OK, nothing(), "").await
}

/// `POST /images`.
///
/// # Errors
/// If the form is incomplete, or on a database error.
pub(crate) async fn add(admin: &Admin, request: &PageRequest, mut sent: Upload) -> Result<Answer, Refusal> {
    let PictureForm { title, file } = PictureForm::read(&mut sent).await?;
    let title = title.trim();
    let refused = match (upload::wrong_title(title), file) {
        (Some(wrong), _) => wrong.to_owned(),
        (None, Err(wrong)) => wrong,
        (None, Ok(bytes)) => {
            let added = upload::add(&*admin.client().await?, request.actor(), &bytes, None, Some(title)).await;
            match added {
                Ok(id) => return Ok(answer::go_to(&format!("/images/{id}?done=added"))),
                Err(error) => refused(error)?,
            }
        }
    };
    let notice = notice(Tone::Bad, html! { p { "The image was not added: " (refused) "." } });
    images_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, notice, title).await
}

async fn images_page(
    admin: &Admin,
    request: &PageRequest,
    status: StatusCode,
    notice: Markup,
    title: &str,
) -> Result<Answer, Refusal> {
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    let is_deleted = request.query.get("show") == "deleted";
    let before = request.query.get("before").parse::<ImageId>().ok();
    let since = request.zone.days_till(pixeld_core::clock::now_utc(), DAYS)[0];
    let client = admin.client().await?;
    let mut listed = images::newest(&client, is_deleted, before, IMAGES as i64 + 1).await?;
    let has_more = listed.len() > IMAGES;
    listed.truncate(IMAGES);
    let ids: Vec<ImageId> = listed.iter().map(|image| image.id).collect();
    let hits = counts::image_hits_since(&client, &ids, since).await?;
    drop(client);
    let content = html! {
        (notice)
        @if is_admin && !is_deleted { (add_form(title)) }
        (filter(is_deleted))
        @if listed.is_empty() {
            (none(admin, is_admin, is_deleted, before.is_some()))
        } @else {
            (grid(&listed, &hits))
            (pager(&listed, is_deleted, before.is_some(), has_more))
        }
    };
    let frame = Frame { title: "Images", path: "/images", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

fn add_form(title: &str) -> Markup {
    html! {
        form.panel method="post" action="/images" enctype="multipart/form-data" {
            h2 { "Add an image" }
            div.row {
                // The title comes first, so that it is read whatever happens to the file.
                (field("Title", "title", Some("Only you see it; readers never do."), html! {
                    input #title name="title" value=(title) maxlength=(upload::TITLE_CHARS_MAX) autocomplete="off" aria-describedby="title-hint";
                }))
                (file_field())
            }
            button type="submit" { "Add the image" }
        }
    }
}

fn filter(is_deleted: bool) -> Markup {
    html! {
        ul.filter aria-label="Which images" {
            li { a href="/images" aria-current=[(!is_deleted).then_some("true")] { "In use" } }
            li { a href="/images?show=deleted" aria-current=[is_deleted.then_some("true")] { "Deleted" } }
        }
    }
}

fn none(admin: &Admin, is_admin: bool, is_deleted: bool, is_later_page: bool) -> Markup {
    if is_later_page {
        return html! { p.muted { "End of list." } };
    }
    if is_deleted {
        return empty("No deleted images", html! { p { "Deleted images are kept here and can be restored." } });
    }
    empty(
        "No images yet",
        html! {
            @if is_admin {
                p { "Add one above: best a logo that your messages show anyway. Or use the command line:" }
                (crate::admin::view::command(&admin.command("image add logo.png")))
            } @else {
                p { "Ask an admin to add one. You then make links to it here, which show who opened a message." }
            }
        },
    )
}

fn grid(listed: &[ImageRow], hits: &[i64]) -> Markup {
    html! {
        ul.pictures {
            @for (image, hits) in listed.iter().zip(hits) {
                li {
                    a href={ "/images/" (image.id) } {
                        span.ground { (picture_tag(image, true)) }
                        span.title { (title(image)) }
                    }
                    p.muted { (image.width) " × " (image.height) " px · " (bytes(image.length)) }
                    p.muted { (fetches(*hits)) " in " (DAYS) " days" }
                }
            }
        }
    }
}

fn pager(listed: &[ImageRow], is_deleted: bool, is_later_page: bool, has_more: bool) -> Markup {
    let (start, joint) = if is_deleted { ("/images?show=deleted", "&") } else { ("/images", "?") };
    html! {
        @if is_later_page || has_more {
            p.pager {
                @if is_later_page { a href=(start) { "Newest" } }
                @if let Some(last) = listed.last().filter(|_| has_more) {
                    a rel="next" href={ (start) (joint) "before=" (last.id) } { "Older" }
                }
            }
        }
    }
}
