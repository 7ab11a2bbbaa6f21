//! Queries about images. Each change notifies all nodes ([`CHANNEL`]) and is written to `audit` in the same statement.

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::{Database, DbError, QUERY_TIMEOUT, within};
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::ImageId;

/// The channel that announces changed images; the payload is the image's id.
pub const CHANNEL: &str = "pixeld_images";

/// One image in a list.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// The image's id.
    pub id: ImageId,
    /// Its title; may be empty.
    pub title: String,
    /// Its media type.
    pub media_type: String,
    /// Its width in pixels.
    pub width: i32,
    /// Its height in pixels.
    pub height: i32,
    /// Its length in bytes.
    pub length: i32,
    /// When it was deleted.
    pub deleted_at: Option<OffsetDateTime>,
}

/// What the cache needs to know about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageState {
    /// The image's id.
    pub id: ImageId,
    /// When its row last changed.
    pub version: Micros,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// An image's current bytes.
#[derive(Debug, Clone)]
pub struct ImageBytes {
    /// Its state.
    pub state: ImageState,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What was read from a picture's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `image/gif`, `image/png`, `image/jpeg` or `image/webp`.
    pub media_type: &'static str,
    /// Its width in pixels.
    pub width: i32,
    /// Its height in pixels.
    pub height: i32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

const STATE: &str = "SELECT id, updated_at, deleted_at IS NOT NULL";

fn state(row: &tokio_postgres::Row) -> ImageState {
    ImageState { id: row.get(0), version: row.get(1), is_deleted: row.get(2) }
}

/// The state of every image.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn all_states(client: &Client) -> Result<Vec<ImageState>, DbError> {
    states(client, &format!("{STATE} FROM images"), &[]).await
}

/// The state of images that changed at or after `since`.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn states_since(client: &Client, since: Micros) -> Result<Vec<ImageState>, DbError> {
    let changed = "FROM images WHERE updated_at >= $1";
    states(client, &format!("{STATE} {changed}"), &[&since]).await
}

/// The state of one image; `None` if there is none.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn state_of(client: &Client, id: ImageId) -> Result<Option<ImageState>, DbError> {
    Ok(states(client, &format!("{STATE} FROM images WHERE id = $1"), &[&id]).await?.pop())
}

async fn states(client: &Client, query: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<ImageState>, DbError> {
    let rows = within(QUERY_TIMEOUT, "reading images", client.query(query, values)).await?;
    Ok(rows.iter().map(state).collect())
}

/// An image's bytes; `None` if there is none.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn load(db: &Database, id: ImageId) -> Result<Option<ImageBytes>, DbError> {
    load_with(&*db.pool().get().await?, id).await
}

/// The same, over the caller's connection.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn load_with(client: &Client, id: ImageId) -> Result<Option<ImageBytes>, DbError> {
    let query = format!("{STATE}, media_type, bytes FROM images WHERE id = $1");
    let row = within(QUERY_TIMEOUT, "reading an image", client.query_opt(&query, &[&id])).await?;
    Ok(row.map(|row| ImageBytes { state: state(&row), media_type: row.get(3), bytes: row.get(4) }))
}

/// All images, oldest first.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn list(db: &Database) -> Result<Vec<ImageRow>, DbError> {
    let client = db.pool().get().await?;
    let query = format!("{LISTED} ORDER BY created_at, id");
    let rows = within(QUERY_TIMEOUT, "listing images", client.query(&query, &[])).await?;
    Ok(rows.iter().map(listed).collect())
}

/// At most `max` images, deleted or not, the newest first; with `before`, those added before it. Images are few and
/// their bytes are stored elsewhere, so there is no index for this.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn newest(
    client: &Client,
    is_deleted: bool,
    before: Option<ImageId>,
    max: i64,
) -> Result<Vec<ImageRow>, DbError> {
    let query = format!(
        "{LISTED} WHERE (deleted_at IS NOT NULL) = $1 \
         AND ($2::uuid IS NULL OR (created_at, id) < (SELECT created_at, id FROM images WHERE id = $2)) \
         ORDER BY created_at DESC, id DESC LIMIT $3"
    );
    let values: [&(dyn ToSql + Sync); 3] = [&is_deleted, &before, &max];
    let rows = within(QUERY_TIMEOUT, "listing images", client.query(&query, &values)).await?;
    Ok(rows.iter().map(listed).collect())
}

/// One image; `None` if there is none.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn find(client: &Client, id: ImageId) -> Result<Option<ImageRow>, DbError> {
    let query = format!("{LISTED} WHERE id = $1");
    let row = within(QUERY_TIMEOUT, "reading an image", client.query_opt(&query, &[&id])).await?;
    Ok(row.as_ref().map(listed))
}

const LISTED: &str = "SELECT id, title, media_type, width, height, octet_length(bytes), deleted_at FROM images";

fn listed(row: &tokio_postgres::Row) -> ImageRow {
    ImageRow {
        id: row.get(0),
        title: row.get(1),
        media_type: row.get(2),
        width: row.get(3),
        height: row.get(4),
        length: row.get(5),
        deleted_at: row.get(6),
    }
}

/// The SHA-256 of an image's bytes and whether it was deleted; `None` if there is none.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn digest_of(client: &Client, id: ImageId) -> Result<Option<(Vec<u8>, bool)>, DbError> {
    let query = "SELECT sha256, deleted_at IS NOT NULL FROM images WHERE id = $1";
    let row = within(QUERY_TIMEOUT, "reading an image", client.query_opt(query, &[&id])).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Stores a new image. Returns whether it is new; if the id is in use, nothing changes.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn insert(
    client: &Client,
    actor: &str,
    id: ImageId,
    title: &str,
    inspected: &Inspected,
    bytes: &[u8],
) -> Result<bool, DbError> {
    let insert = include_str!("images/insert.sql");
    let Inspected { media_type, width, height, sha256 } = inspected;
    let digest = &sha256[..];
    let values: [&(dyn ToSql + Sync); 9] = [&actor, &CHANNEL, &id, &title, media_type, width, height, &bytes, &digest];
    let added = within(QUERY_TIMEOUT, "storing an image", client.query(insert, &values)).await?;
    Ok(!added.is_empty())
}

/// Replaces an image's bytes. Returns whether there is such an image that is not deleted.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn replace(
    client: &Client,
    actor: &str,
    id: ImageId,
    inspected: &Inspected,
    bytes: &[u8],
) -> Result<bool, DbError> {
    let update = include_str!("images/replace.sql");
    let Inspected { media_type, width, height, sha256 } = inspected;
    let digest = &sha256[..];
    let values: [&(dyn ToSql + Sync); 8] = [&actor, &CHANNEL, &id, media_type, width, height, &bytes, &digest];
    let replaced = within(QUERY_TIMEOUT, "replacing an image", client.query(update, &values)).await?;
    Ok(!replaced.is_empty())
}

/// Deletes or restores an image: its row and its bytes stay. Returns whether that changed something.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn set_deleted(client: &Client, actor: &str, id: ImageId, is_deleted: bool) -> Result<bool, DbError> {
    let update = include_str!("images/set_deleted.sql");
    let values: [&(dyn ToSql + Sync); 4] = [&actor, &CHANNEL, &id, &is_deleted];
    let changed = within(QUERY_TIMEOUT, "deleting an image", client.query(update, &values)).await?;
    Ok(!changed.is_empty())
}

/// Changes an image's title. Returns whether there is such an image. Nodes are not notified: titles are never served.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub async fn set_title(client: &Client, actor: &str, id: ImageId, title: &str) -> Result<bool, DbError> {
    let update = "WITH titled AS (UPDATE images SET title = $3 WHERE id = $2 RETURNING id, title) \
                  INSERT INTO audit (actor, action, subject, detail) \
                  SELECT $1, 'image titled', id::text, jsonb_build_object('title', title) FROM titled";
    let values: [&(dyn ToSql + Sync); 3] = [&actor, &id, &title];
    Ok(within(QUERY_TIMEOUT, "titling an image", client.execute(update, &values)).await? > 0)
}

/// Which of `ids` are images, and when each was deleted; `None` if it was not.
pub async fn existing(client: &Client, ids: &[ImageId]) -> Result<Vec<(ImageId, Option<Micros>)>, Error> {
    let select = "SELECT id, deleted_at FROM images WHERE id = ANY($1)";
    Ok(client.query(select, &[&ids]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}
