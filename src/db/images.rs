//! Queries about images. Whoever changes one tells all nodes in the same statement ([`CHANNEL`]).

use time::OffsetDateTime;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Database, DbError, QUERY_TIMEOUT, within};

/// The channel on which changed images are told; the payload is the image's id.
pub const CHANNEL: &str = "pixeld_images";

/// What a list of images says of each.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// The image's id.
    pub id: Uuid,
    /// Its title, maybe empty.
    pub title: String,
    /// Its media type.
    pub media_type: String,
    /// Pixels across.
    pub width: i32,
    /// Pixels down.
    pub height: i32,
    /// Its bytes' number.
    pub length: i32,
    /// When it was deleted.
    pub deleted_at: Option<OffsetDateTime>,
}

/// What the cache needs to know of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageState {
    /// The image's id.
    pub id: Uuid,
    /// When its row was changed, in µs since 1970.
    pub version: i64,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// An image's bytes as they are now.
#[derive(Debug, Clone)]
pub struct ImageBytes {
    /// Its state.
    pub state: ImageState,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a picture's bytes say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `image/gif`, `image/png`, `image/jpeg` or `image/webp`.
    pub media_type: &'static str,
    /// Pixels across.
    pub width: i32,
    /// Pixels down.
    pub height: i32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

const STATE: &str = "SELECT id, (extract(epoch FROM updated_at) * 1000000)::bigint, deleted_at IS NOT NULL";

fn state(row: &tokio_postgres::Row) -> ImageState {
    ImageState { id: row.get(0), version: row.get(1), is_deleted: row.get(2) }
}

/// The state of every image.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn all_states(client: &Client) -> Result<Vec<ImageState>, DbError> {
    states(client, &format!("{STATE} FROM images"), &[]).await
}

/// The state of images that were changed at or after `since`, in µs since 1970.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn states_since(client: &Client, since: i64) -> Result<Vec<ImageState>, DbError> {
    let changed = "FROM images WHERE updated_at >= to_timestamp($1::bigint / 1000000.0)";
    states(client, &format!("{STATE} {changed}"), &[&since]).await
}

/// The state of one image; nothing where there is none.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn state_of(client: &Client, id: Uuid) -> Result<Option<ImageState>, DbError> {
    Ok(states(client, &format!("{STATE} FROM images WHERE id = $1"), &[&id]).await?.pop())
}

async fn states(client: &Client, query: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<ImageState>, DbError> {
    let rows = within(QUERY_TIMEOUT, "reading images", client.query(query, values)).await?;
    Ok(rows.iter().map(state).collect())
}

/// An image's bytes; nothing where there is none.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn load(db: &Database, id: Uuid) -> Result<Option<ImageBytes>, DbError> {
    let client = db.pool().get().await?;
    let query = format!("{STATE}, media_type, bytes FROM images WHERE id = $1");
    let row = within(QUERY_TIMEOUT, "reading an image", client.query_opt(&query, &[&id])).await?;
    Ok(row.map(|row| ImageBytes { state: state(&row), media_type: row.get(3), bytes: row.get(4) }))
}

/// All images, oldest first.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn list(db: &Database) -> Result<Vec<ImageRow>, DbError> {
    let client = db.pool().get().await?;
    let query = format!("{LISTED} ORDER BY created_at, id");
    let rows = within(QUERY_TIMEOUT, "listing images", client.query(&query, &[])).await?;
    Ok(rows.iter().map(listed).collect())
}

/// The images that are not deleted, newest first, `most` at most.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn newest(client: &Client, most: i64) -> Result<Vec<ImageRow>, DbError> {
    let query = format!("{LISTED} WHERE deleted_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $1");
    let rows = within(QUERY_TIMEOUT, "listing images", client.query(&query, &[&most])).await?;
    Ok(rows.iter().map(listed).collect())
}

/// One image; nothing where there is none.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn find(client: &Client, id: Uuid) -> Result<Option<ImageRow>, DbError> {
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

/// The SHA-256 of an image's bytes and whether it was deleted; nothing where there is none.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn digest_of(client: &Client, id: Uuid) -> Result<Option<(Vec<u8>, bool)>, DbError> {
    let query = "SELECT sha256, deleted_at IS NOT NULL FROM images WHERE id = $1";
    let row = within(QUERY_TIMEOUT, "reading an image", client.query_opt(query, &[&id])).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Stores a new image. Says whether it is new; where the id is taken, nothing is changed.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn insert(
    db: &Database,
    id: Uuid,
    title: &str,
    inspected: &Inspected,
    bytes: &[u8],
) -> Result<bool, DbError> {
    let client = db.pool().get().await?;
    let insert = "WITH added AS ( \
                    INSERT INTO images (id, title, media_type, width, height, bytes, sha256, created_at, updated_at) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), clock_timestamp()) \
                    ON CONFLICT (id) DO NOTHING RETURNING id) \
                  SELECT pg_notify($8, id::text) FROM added";
    let Inspected { media_type, width, height, sha256 } = inspected;
    let digest = &sha256[..];
    let values: [&(dyn ToSql + Sync); 8] = [&id, &title, media_type, width, height, &bytes, &digest, &CHANNEL];
    let added = within(QUERY_TIMEOUT, "storing an image", client.query(insert, &values)).await?;
    Ok(!added.is_empty())
}
