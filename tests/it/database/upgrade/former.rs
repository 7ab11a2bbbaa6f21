//! The loader's statements before V8, word for word (except COPY, which is text here): while nodes are replaced one by
//! one, the former program uses them on the new schema. Add those of the next release beside them, and remove the
//! oldest when upgrades from there are no longer supported.

use std::pin::pin;

use futures_util::SinkExt;
use pixeld_core::ids::{ImageId, SpoolId};
use tokio_postgres::Client;
use uuid::Uuid;

const EXISTING_IMAGES: &str =
    "SELECT id, (extract(epoch FROM deleted_at) * 1000000)::bigint FROM images WHERE id = ANY($1)";

const STORED_USER_AGENTS: &str = "SELECT id FROM user_agents WHERE id = ANY($1)";

const STORE_USER_AGENTS: &str = "INSERT INTO user_agents (id, user_agent) SELECT * FROM unnest($1::bigint[], $2::text[]) AS new (id, ua) \
                  ORDER BY id ON CONFLICT (id) DO NOTHING";

const FIND_MARK: &str = "SELECT 1 FROM spool_marks WHERE spool_uuid = $1";

const MAKE_MARK: &str = "INSERT INTO spool_marks (spool_uuid, node, next_seq) VALUES ($1, $2, 0) \
                      ON CONFLICT (spool_uuid) DO NOTHING";

const CLAIM_MARK: &str = "UPDATE spool_marks SET node = $2, backend_pid = pg_backend_pid(), updated_at = clock_timestamp(), \
                 backend_started = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) \
                 WHERE spool_uuid = $1 \
                 RETURNING spool, next_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const LOCK_MARK: &str = "SELECT next_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM spool_marks \
                WHERE spool = $1 FOR UPDATE";

const OPT_OUTS: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END, pg_advisory_lock($1), pg_advisory_unlock($1) \
                FROM suppressions_change";

const OPT_OUTS_SINCE: &str = "SELECT hash, (extract(epoch FROM since) * 1000000)::bigint, \
                    (extract(epoch FROM until) * 1000000)::bigint, change \
                  FROM suppressions WHERE change > $1 ORDER BY change LIMIT $2";

const COPY_HITS: &str = "COPY hits (at, seq, user_agent, sent_at, message, recipient, image, spool, class, rule, \
                             network, prefetch, ip, client) FROM STDIN";

const FINISH: &str = "WITH mark AS (UPDATE spool_marks SET next_seq = $3, updated_at = clock_timestamp() \
                                WHERE spool = $1 AND next_seq = $2 RETURNING spool) \
                  INSERT INTO batches (spool, first_seq, next_seq, loaded, throttled, quarantined, expired, unknown_image, \
                                       missing, min_at, max_at, suppressed, loaded_at) \
                  SELECT spool, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, clock_timestamp() FROM mark";

/// Makes the partition of a day: name, first day, next day.
fn make_partition(name: &str, from: &str, to: &str) -> String {
    const PARTITION_LOCK: i64 = 0x7069_7865_6c64_0002;
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock({PARTITION_LOCK}); \
         DO $make$ BEGIN \
           IF NOT EXISTS (SELECT 1 FROM pg_inherits \
                          WHERE inhparent = 'hits'::regclass AND inhrelid = to_regclass('{name}')) THEN \
             CREATE TABLE IF NOT EXISTS {name} (LIKE hits INCLUDING ALL); \
             ALTER TABLE hits ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00'); \
           END IF; \
         END $make$; COMMIT"
    )
}

/// Loads hits of one message and image, one per recipient, each on its own day, like the former loader.
pub async fn bring(
    client: &Client,
    spool: SpoolId,
    first_seq: i64,
    image: ImageId,
    message: Uuid,
    recipients: &[Uuid],
) {
    let agents = (vec![-77_i64, 77], vec!["Former/1.0", "Former/2.0"]);
    assert_eq!(client.query(EXISTING_IMAGES, &[&vec![image]]).await.unwrap().len(), 1);
    if client.query(STORED_USER_AGENTS, &[&agents.0]).await.unwrap().is_empty() {
        assert_eq!(client.execute(STORE_USER_AGENTS, &[&agents.0, &agents.1]).await.unwrap(), 2);
    }
    client.batch_execute(&make_partition("hits_20260310", "2026-03-10", "2026-03-11")).await.unwrap();
    if client.query_opt(FIND_MARK, &[&spool]).await.unwrap().is_none() {
        client.execute(MAKE_MARK, &[&spool, &"former"]).await.unwrap();
    }
    let mark = client.query_one(CLAIM_MARK, &[&spool, &"former"]).await.unwrap();
    let number: i32 = mark.get(0);
    assert_eq!(mark.get::<_, i64>(1), first_seq);
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
    assert_eq!(client.query_one(LOCK_MARK, &[&number]).await.unwrap().get::<_, i64>(0), first_seq);
    client.query_one(OPT_OUTS, &[&0x7069_7865_6c64_0006_i64]).await.unwrap();
    client.query(OPT_OUTS_SINCE, &[&0_i64, &50_000_i64]).await.unwrap();
    let at = "2026-03-10 09:00:00+00";
    let row = |(n, recipient): (usize, &Uuid)| {
        let seq = first_seq + n as i64;
        format!("{at}\t{seq}\t77\t\\N\t{message}\t{recipient}\t{image}\t{number}\t1\t0\t0\tf\t192.0.2.1\t0\n")
    };
    let rows: String = recipients.iter().enumerate().map(row).collect();
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>(COPY_HITS).await.unwrap());
    sink.send(rows.into()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), recipients.len() as u64);
    let (next_seq, loaded, none) = (first_seq + recipients.len() as i64, recipients.len() as i32, 0);
    let at = Some(time::macros::datetime!(2026-03-10 09:00 UTC));
    let written = client
        .execute(FINISH, &[&number, &first_seq, &next_seq, &loaded, &none, &none, &none, &none, &none, &at, &at, &none])
        .await
        .unwrap();
    assert_eq!(written, 1);
    client.batch_execute("COMMIT").await.unwrap();
}
