//! Counts the hits that a deletion would delete, before it is requested.
//!
//! Guarantees: reads counts if there are any, and no more rows of `hits` than allowed. Gives up: hits that are loaded
//! between the answer and the deletion.

use tokio_postgres::Client;

use super::Target;
use crate::db::DbError;
use crate::db::partitions::{self, DAYS_AT_ONCE};

/// How many hits a deletion would find, from the counts; for a time range, at most `max` and one more.
pub async fn count_to_delete(client: &Client, target: Target, max: i64) -> Result<i64, DbError> {
    let row = match target {
        Target::Message(message) => {
            let count = "SELECT coalesce((SELECT hits FROM messages WHERE id = $1), 0)";
            client.query_one(count, &[&message]).await?
        }
        Target::Pair { message, recipient } => {
            let count = "SELECT coalesce((SELECT hits FROM opens WHERE message = $1 AND recipient = $2), 0)";
            client.query_one(count, &[&message, &recipient]).await?
        }
        Target::Recipient(recipient) => {
            let opens = "SELECT hits FROM opens WHERE recipient = $1 LIMIT $2";
            let count = format!("SELECT coalesce(sum(hits), 0)::bigint FROM ({opens}) AS o");
            client.query_one(&count, &[&recipient, &(max + 1)]).await?
        }
        Target::Period { from, to } => {
            let hits = "SELECT 1 FROM hits WHERE at >= $1 AND at < $2 AND at >= $4 AND at < $5 LIMIT $3";
            let count = format!("SELECT count(*) FROM ({hits}) AS h");
            let mut counted = 0;
            for group in partitions::within_times(client, from, to).await?.chunks(DAYS_AT_ONCE) {
                let Some((first, last)) = group.first().zip(group.last()) else { break };
                let left = max + 1 - counted;
                counted +=
                    client.query_one(&count, &[&from, &to, &left, &first.from, &last.to]).await?.get::<_, i64>(0);
                if counted > max {
                    break;
                }
            }
            return Ok(counted);
        }
    };
    Ok(row.get(0))
}
