//! The Django app's database: its pictures and its log, in the order of their ids.
//!
//! Guarantees: one snapshot of it, read only. The server cuts texts to a bound, so that no row is large. A row whose
//! text the server cannot send as UTF-8 (a byte of another encoding) is found and marked, without the loss of any other
//! row.

use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::marks::Taken;
use crate::db::{Database, DbError, QUERY_TIMEOUT, Session, within};
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::ImageId;

/// How long a page of rows, or a count of them, may take.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Time-outs of a session that reads for a long time and waits for its reader in between; it holds no lock that blocks
/// others.
const SETTINGS: &str = "SET statement_timeout = '300s'; SET idle_in_transaction_session_timeout = '15min'; \
     SET default_transaction_read_only = on; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The columns that are needed of the two tables.
const TABLES: [(&str, &[&str]); 2] = [
    ("images_picture", &["id", "uuid", "image", "title"]),
    ("images_userinfo", &["id", "user_agent", "ip", "time", "message_id", "user_id", "picture_id"]),
];

/// Reads rows of the log; the table and conditions follow. A time that is not finite (`infinity`) is NULL.
const LOG: &str = "SELECT id::bigint, CASE WHEN isfinite(\"time\") THEN (extract(epoch FROM \"time\") * 1000000)::bigint END, \
     picture_id::bigint, left(user_agent::text, 2048), left(ip::text, 256), left(message_id::text, 256), left(user_id::text, 256) \
     FROM images_userinfo";

/// The same without texts: these columns can always be read.
const LOG_WITHOUT_TEXTS: &str = "SELECT id::bigint, CASE WHEN isfinite(\"time\") THEN (extract(epoch FROM \"time\") * 1000000)::bigint END, \
     picture_id::bigint FROM images_userinfo";

/// A database that was opened.
pub(super) struct Source {
    session: Session,
    name: String,
}

/// A picture of the Django app.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// The number that log rows name it by.
    pub number: i64,
    /// The id that links name it by.
    pub uuid: ImageId,
    /// Its file, relative to the media directory.
    pub file: String,
    /// Its title; may be empty.
    pub title: String,
    /// The name of its file cannot be read.
    pub is_unreadable: bool,
}

/// A row of its log, as stored there.
#[derive(Debug, Clone, Default)]
pub(super) struct LogRow {
    /// Its number.
    pub id: i64,
    /// When it was written.
    pub at: Option<Micros>,
    /// The picture's number.
    pub picture: Option<i64>,
    /// The user agent.
    pub user_agent: String,
    /// The client address, as the app determined it.
    pub ip: String,
    /// The message's id; may be empty.
    pub message: String,
    /// The recipient's id; may be empty.
    pub user: String,
    /// Its texts cannot be read, and are empty here.
    pub is_unreadable: bool,
}

impl Source {
    /// Opens the database of a URL, checks that it is the Django app's, and takes the snapshot.
    pub(super) async fn open(url: &str) -> anyhow::Result<Source> {
        let database = Database::external(url).context("the Django app's database")?;
        let session = database.connect("pixeld import").await.context("the Django app's database")?;
        let client = &session.client;
        within(QUERY_TIMEOUT, "beginning to read", client.batch_execute(SETTINGS)).await?;
        let row =
            within(QUERY_TIMEOUT, "asking for its name", client.query_one("SELECT current_database()", &[])).await?;
        let source = Source { name: row.get(0), session };
        for (table, columns) in TABLES {
            source.check(table, columns).await?;
        }
        Ok(source)
    }

    /// The database's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    async fn check(&self, table: &str, columns: &[&str]) -> anyhow::Result<()> {
        let select = "SELECT attname::text FROM pg_attribute \
                      WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
        let rows = within(QUERY_TIMEOUT, "looking for tables", self.session.client.query(select, &[&table])).await?;
        anyhow::ensure!(
            !rows.is_empty(),
            "the database {:?} has no table {table}; is it the Django app's? (DJANGO_DATABASE_URL is its database, DATABASE_URL \
             is pixeld's)",
            self.name
        );
        let there: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let missing: Vec<&str> = columns.iter().copied().filter(|column| !there.contains(column)).collect();
        anyhow::ensure!(
            missing.is_empty(),
            "the table {table} of the database {:?} has no column {}; it is not the Django app's, or it has another version",
            self.name,
            missing.join(", ")
        );
        Ok(())
    }

    /// All pictures, the oldest first.
    pub(super) async fn pictures(&self) -> anyhow::Result<Vec<Picture>> {
        let rows =
            self.read("reading pictures", "SELECT id::bigint, uuid::text::uuid FROM images_picture ORDER BY id", &[]);
        let all = "SELECT id::bigint, left(image::text, 1024), left(title::text, 1024) FROM images_picture ORDER BY id";
        let mut pictures: Vec<Picture> = Vec::new();
        for row in rows.await? {
            let (number, uuid) = (row.try_get(0)?, row.try_get(1)?);
            pictures.push(Picture { number, uuid, file: String::new(), title: String::new(), is_unreadable: false });
        }
        if let Some(texts) = self.read_texts("reading pictures", all, &[]).await? {
            for (picture, row) in pictures.iter_mut().zip(&texts) {
                (picture.file, picture.title) = (text(row, 1)?, text(row, 2)?);
            }
            return Ok(pictures);
        }
        for picture in &mut pictures {
            let one = |column| format!("SELECT left({column}::text, 1024) FROM images_picture WHERE id = $1");
            let title = self.read_texts("reading a picture", &one("title"), &[&picture.number]).await?;
            let file = self.read_texts("reading a picture", &one("image"), &[&picture.number]).await?;
            picture.is_unreadable = file.is_none();
            for (to, rows) in [(&mut picture.title, title), (&mut picture.file, file)] {
                *to = rows.iter().flatten().next().map(|row| text(row, 0)).transpose()?.unwrap_or_default();
            }
        }
        Ok(pictures)
    }

    /// The number of rows after `id`.
    pub(super) async fn count_after(&self, id: i64) -> anyhow::Result<u64> {
        let count = "SELECT count(*) FROM images_userinfo WHERE id > $1";
        let rows = self.read("counting log rows", count, &[&id]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
    }

    /// The next rows after `id`.
    pub(super) async fn rows_after(&self, id: i64, limit: usize) -> anyhow::Result<Vec<LogRow>> {
        let select = format!("{LOG} WHERE id > $1 ORDER BY id LIMIT $2");
        if let Some(rows) = self.read_texts("reading log rows", &select, &[&id, &(limit as i64)]).await? {
            return rows.iter().map(log_row).collect();
        }
        let select = "SELECT id::bigint FROM images_userinfo WHERE id > $1 ORDER BY id LIMIT $2";
        let ids = self.read("reading log rows", select, &[&id, &(limit as i64)]).await?;
        self.rows_in_parts(ids.iter().map(|row| row.get(0)).collect()).await
    }

    /// The rows among `ids` that exist.
    pub(super) async fn rows_among(&self, ids: &[i64]) -> anyhow::Result<Vec<LogRow>> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        self.rows_in_parts(ids).await
    }

    /// Reads rows by their ids, which are in order: all together and, if one cannot be read, in halves down to that
    /// one.
    async fn rows_in_parts(&self, ids: Vec<i64>) -> anyhow::Result<Vec<LogRow>> {
        let select = format!("{LOG} WHERE id = ANY($1) ORDER BY id");
        let mut rows = Vec::with_capacity(ids.len());
        // The next part last.
        let mut parts = vec![ids];
        while let Some(part) = parts.pop() {
            if let Some(read) = self.read_texts("reading log rows", &select, &[&part]).await? {
                for row in &read {
                    rows.push(log_row(row)?);
                }
            } else if part.len() == 1 {
                let select = format!("{LOG_WITHOUT_TEXTS} WHERE id = ANY($1)");
                for row in self.read("reading log rows", &select, &[&part]).await? {
                    let (id, at, picture) = (row.try_get(0)?, time(&row)?, row.try_get(2)?);
                    rows.push(LogRow { id, at, picture, is_unreadable: true, ..LogRow::default() });
                }
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second.to_vec(), first.to_vec()]);
            }
        }
        Ok(rows)
    }

    /// Refuses a database that is not a continuation of the one that was imported before: ids would mean other rows. If
    /// the last row has been deleted, the check is skipped.
    pub(super) async fn check_is_what_was_imported(&self, taken: &Taken) -> anyhow::Result<()> {
        let (Some(last_id), Some(last_at)) = (taken.last_id, taken.last_at) else { return Ok(()) };
        let last = self.rows_among(&[last_id]).await?.pop();
        anyhow::ensure!(
            last.is_none_or(|row| row.at == Some(last_at)),
            "row {last_id} of images_userinfo in the database {:?} differs from the row that was imported before; this copy has \
             rows of its own, and it is not known which of its rows are already imported",
            self.name
        );
        Ok(())
    }

    /// Reads rows with texts; `None` if the server cannot send a text of one of them. The snapshot survives that.
    async fn read_texts(
        &self,
        what: &'static str,
        select: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> anyhow::Result<Option<Vec<Row>>> {
        let client = &self.session.client;
        within(QUERY_TIMEOUT, what, client.batch_execute("SAVEPOINT texts")).await?;
        let read = within(READ_TIMEOUT, what, client.query(select, values)).await;
        let is_refused = read.as_ref().is_err_and(is_of_encoding);
        let end =
            if is_refused { "ROLLBACK TO SAVEPOINT texts; RELEASE SAVEPOINT texts" } else { "RELEASE SAVEPOINT texts" };
        if read.is_ok() || is_refused {
            within(QUERY_TIMEOUT, what, client.batch_execute(end)).await?;
        }
        match read {
            Err(_) if is_refused => Ok(None),
            read => Ok(Some(read.with_context(|| format!("the Django app's database {:?}", self.name))?)),
        }
    }

    async fn read(
        &self,
        what: &'static str,
        select: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> anyhow::Result<Vec<Row>> {
        let reading = within(READ_TIMEOUT, what, self.session.client.query(select, values));
        reading.await.with_context(|| format!("the Django app's database {:?}", self.name))
    }
}

/// Whether the server could not send a text as UTF-8: its bytes do not match the database's encoding, or have no
/// equivalent.
fn is_of_encoding(error: &DbError) -> bool {
    let encoding = [SqlState::CHARACTER_NOT_IN_REPERTOIRE, SqlState::UNTRANSLATABLE_CHARACTER];
    error.sql_state().is_some_and(|state| encoding.contains(state))
}

fn log_row(row: &Row) -> anyhow::Result<LogRow> {
    Ok(LogRow {
        id: row.try_get(0)?,
        at: time(row)?,
        picture: row.try_get(2)?,
        user_agent: text(row, 3)?,
        ip: text(row, 4)?,
        message: text(row, 5)?,
        user: text(row, 6)?,
        is_unreadable: false,
    })
}

/// Its time, which the statement counts in µs since 1970: the column has a time zone or none, as that program was set up.
fn time(row: &Row) -> anyhow::Result<Option<Micros>> {
    Ok(row.try_get::<_, Option<i64>>(1)?.map(Micros))
}

fn text(row: &Row, column: usize) -> anyhow::Result<String> {
    Ok(row.try_get::<_, Option<String>>(column)?.unwrap_or_default())
}
