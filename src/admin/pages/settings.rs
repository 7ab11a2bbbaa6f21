//! Who may sign in, what was changed, and the settings that this pixeld runs with.

use hyper::StatusCode;
use maud::{Markup, html};

use super::audit::entry_table;
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::password;
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{Column, Frame, Tone, Zone, field, nothing, notice, table, time, time_or};
use crate::db::audit;
use crate::db::sessions::SignedIn;
use crate::db::users::{self, Role, User};

/// Changes that are listed.
const CHANGES: i64 = 10;

/// `GET /settings`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let notice = match request.query.get("done") {
        "added" => notice(Tone::Good, html! { p { "The user was added and can sign in." } }),
        "enabled" => notice(Tone::Good, html! { p { "The user can sign in again." } }),
        "disabled" => notice(Tone::Good, html! { p { "The user was signed out everywhere and cannot sign in." } }),
        "zone" => notice(Tone::Good, html! { p { "Times are shown in " (request.zone.name()) " from now on." } }),
        "unchanged" => notice(
            Tone::Warning,
            html! {
                p { "Nothing changed: that was already the case." }
            },
        ),
        "last-admin" => notice(Tone::Warning, html! { p { "Nothing changed: the last admin cannot be disabled." } }),
        _ => nothing(),
    };
    settings_page(admin, request, StatusCode::OK, notice).await
}

/// `POST /settings/zone`.
pub(crate) async fn set_zone(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let (Some(user), Some(zone)) = (&request.user, Zone::named(request.form.get("zone"))) else {
        let notice = notice(Tone::Bad, html! { p { "This time zone does not exist. Choose one from the list." } });
        return settings_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, notice).await;
    };
    users::set_zone(&*admin.client().await?, user.id, zone.name()).await?;
    Ok(answer::go_to("/settings?done=zone"))
}

/// `POST /settings/users`.
///
/// # Errors
/// On a database error, or if too many passwords are hashed at once.
pub(crate) async fn add_user(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let (name, password) = (request.form.get("name"), request.form.get("new-password"));
    let role = Role::of(request.form.get("role"));
    let wrong = users::wrong_name(name).or_else(|| password::wrong_password(password, name));
    let (role, wrong) = match (role, wrong) {
        (Some(role), None) => (role, None),
        (_, wrong) => (Role::Viewer, wrong.or(Some("choose a role"))),
    };
    if let Some(wrong) = wrong {
        return refused(admin, request, wrong).await;
    }
    let hash = admin.passwords.hash(password.to_owned()).await?;
    let added = users::add(&*admin.client().await?, request.actor(), name, role, &hash).await?;
    match added {
        Some(_) => Ok(answer::go_to("/settings?done=added")),
        None => refused(admin, request, "a user with this name already exists").await,
    }
}

/// `POST /settings/users/{user}/enable` and `…/disable`.
pub(crate) async fn set_enabled(admin: &Admin, request: &PageRequest, enabled: bool) -> Result<Answer, Refusal> {
    let id = request.parameter("user").parse().map_err(|_| Refusal::NotFound)?;
    let client = admin.client().await?;
    let is_changed = users::set_enabled(&client, request.actor(), id, enabled).await?;
    let is_last_admin = !is_changed
        && !enabled
        && users::list(&client).await?.iter().any(|user| user.id == id && user.disabled_at.is_none());
    Ok(answer::go_to(match (is_changed, enabled) {
        (false, _) if is_last_admin => "/settings?done=last-admin",
        (false, _) => "/settings?done=unchanged",
        (true, true) => "/settings?done=enabled",
        (true, false) => "/settings?done=disabled",
    }))
}

async fn refused(admin: &Admin, request: &PageRequest, wrong: &str) -> Result<Answer, Refusal> {
    let notice = notice(Tone::Bad, html! { p { "The user was not added: " (wrong) "." } });
    settings_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, notice).await
}

async fn settings_page(
    admin: &Admin,
    request: &PageRequest,
    status: StatusCode,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    let client = admin.client().await?;
    let listed = users::list(&client).await?;
    let changes = if is_admin { audit::latest(&client, None, CHANGES).await? } else { Vec::new() };
    drop(client);
    let content = html! {
        (notice)
        h2 { "Users" }
        (user_table(&listed, request.user.as_ref(), request.zone))
        @if is_admin { (add_form(request)) }
        h2 #zone { "Your time zone" }
        (zone_form(request.zone))
        h2 { "Your sessions" }
        p { "A session ends 12 hours after its last use and a week after the sign-in." }
        form method="post" action="/sign-out-everywhere" { button.quiet type="submit" { "Sign out everywhere" } }
        @if is_admin {
            h2 { "Latest changes" }
            (entry_table("Latest changes", &changes, request.zone))
            p { a href="/audit" { "Full audit" } " · " a href="/erasures" { "Receipts of erasures" } }
        }
        h2 { "Running settings" }
        p.muted { "The settings that pixeld started with; secrets are not shown. To change one, edit the environment and restart pixeld." }
        (setting_table(admin))
    };
    let frame = Frame { title: "Settings", path: "/settings", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

fn user_table(listed: &[User], me: Option<&SignedIn>, zone: Zone) -> Markup {
    let is_admin = me.is_some_and(|me| me.role == Role::Admin);
    let mut columns =
        vec![Column::words("Name"), Column::words("Role"), Column::words("Since"), Column::words("Last seen")];
    if is_admin {
        columns.push(Column::words(""));
    }
    let rows = listed.iter().map(|user| {
        let is_me = me.is_some_and(|me| me.id == user.id);
        html! {
            th scope="row" {
                (user.name)
                @if is_me { " " span.tag { "you" } }
                @if user.disabled_at.is_some() { " " span.tag { "disabled" } }
            }
            td { (user.role.word()) }
            td { (time(user.created_at, zone)) }
            td { (time_or(user.used_at, zone, "never")) }
            @if is_admin { td.actions { (switch(user)) } }
        }
    });
    table("Users", &columns, rows)
}

fn switch(user: &User) -> Markup {
    let (path, label) = if user.disabled_at.is_some() { ("enable", "Enable") } else { ("disable", "Disable") };
    html! {
        form method="post" action={ "/settings/users/" (user.id) "/" (path) } {
            button.quiet type="submit" aria-label={ (label) " " (user.name) } { (label) }
        }
    }
}

fn add_form(request: &PageRequest) -> Markup {
    let (name, role) = (request.form.get("name"), request.form.get("role"));
    html! {
        form.panel method="post" action="/settings/users" {
            h3 { "Add a user" }
            div.row {
                (field("Name", "name", Some("For example, an email address."), html! {
                    input #name name="name" value=(name) maxlength="64" autocomplete="off" autocapitalize="none" spellcheck="false"
                        required aria-describedby="name-hint";
                }))
                (field("Password", "new-password", Some("At least 12 characters."), html! {
                    input #new-password name="new-password" type="password" minlength="12" maxlength="1024"
                        autocomplete="new-password" required aria-describedby="new-password-hint";
                }))
                (field("Role", "role", Some("Viewers see everything. Admins can also change, delete and add users."), html! {
                    select #role name="role" aria-describedby="role-hint" {
                        @for known in Role::ALL {
                            option value=(known.word()) selected[known.word() == role] { (known.word()) }
                        }
                    }
                }))
            }
            button type="submit" { "Add the user" }
        }
    }
}

fn zone_form(zone: Zone) -> Markup {
    html! {
        form.panel method="post" action="/settings/zone" {
            (field("Show times in", "zone-name", Some("Applies to your account. Hover over a time to see it in UTC."), html! {
                select #zone-name name="zone" aria-describedby="zone-name-hint" {
                    @for name in Zone::names() { option value=(name) selected[name == zone.name()] { (name) } }
                }
            }))
            button type="submit" { "Save" }
        }
    }
}

fn setting_table(admin: &Admin) -> Markup {
    let rows = admin.options.settings.iter().map(|(name, value)| html! { td { (name) } td { (value) } });
    html! { div.settings { (table("Running settings", &[Column::words("Setting"), Column::words("Value")], rows)) } }
}
