//! Updates the database's schema to this program's version.
//!
//! Guarantees: however many nodes start at once, each migration runs once, in its own transaction. Gives up: refusing a
//! database that is already newer than this program. It is accepted, because nodes are replaced one by one (see
//! migrations/README.md, "expand, then contract").

use std::time::Duration;

use super::error::with_causes;
use super::{Database, DbError, QUERY_TIMEOUT, fitness, installation, locks, within};

/// How long to wait for another node's migrations.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(120);

/// Interval between attempts to get the lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Maximum time for all migrations together. A frozen server must not block the start forever.
pub const MIGRATIONS_TIMEOUT: Duration = Duration::from_secs(30 * 60);

mod built_in {
    refinery::embed_migrations!("migrations");
}

/// Runs the migrations that the database does not have yet. A read-only database that has them all is accepted.
///
/// # Errors
/// [`DbError::Unfit`] if the database cannot be used; [`DbError::MigrationLock`] if another node holds the lock for
/// longer than [`LOCK_WAIT_MAX`]; [`DbError::Migration`] if one fails (its transaction is rolled back) or differs from
/// the one that the database ran; connection errors.
pub async fn run(database: &Database) -> Result<(), DbError> {
    migrate(database, false).await
}

/// The same for any installation: the node belongs to it from now on.
///
/// # Errors
/// As [`run`].
pub async fn accept(database: &Database) -> Result<(), DbError> {
    migrate(database, true).await
}

async fn migrate(database: &Database, is_accepting: bool) -> Result<(), DbError> {
    let mut session = database.connect_unguarded("pixeld migrate").await?;
    if !is_accepting {
        within(QUERY_TIMEOUT, "looking at the installation", database.guard().check(&session.client)).await??;
    }
    match fitness::check(&session.client).await {
        // Everything exists that a migration would create, so at least it can be read.
        Err(DbError::Unfit(unfit)) if unfit.is_read_only() && is_current(&session.client).await? => return Ok(()),
        checked => checked?,
    }
    take_lock(&session.client, LOCK_WAIT_MAX).await?;
    // A migration may fill a table; all of them together are bounded below. lock_timeout stays: see
    // migrations/README.md.
    let unbounded = session.client.batch_execute("SET statement_timeout = 0");
    within(QUERY_TIMEOUT, "SET statement_timeout", unbounded).await?;
    let runner = built_in::migrations::runner().set_abort_missing(false);
    let report = tokio::time::timeout(MIGRATIONS_TIMEOUT, runner.run_async(&mut session.client))
        .await
        .map_err(|_| DbError::Timeout { what: "migrating", limit: MIGRATIONS_TIMEOUT })?
        .map_err(|error| DbError::Migration(with_causes(&error)))?;
    for migration in report.applied_migrations() {
        tracing::info!(%migration, "database migrated");
    }
    within(QUERY_TIMEOUT, "writing the words", super::words::write(&session.client)).await?;
    if is_accepting {
        let found = within(QUERY_TIMEOUT, "looking at the installation", installation::id(&session.client)).await?;
        let kept = database.guard().accept(found);
        kept.map_err(|error| DbError::Migration(format!("the installation's id cannot be saved to disk: {error}")))?;
    }
    // The session ends here, and its lock with it.
    Ok(())
}

/// Whether the database has this program's last migration, or a later one, and its tables still exist.
pub async fn is_current(client: &tokio_postgres::Client) -> Result<bool, DbError> {
    let is_there = "SELECT to_regclass('refinery_schema_history') IS NOT NULL AND to_regclass('hits') IS NOT NULL \
                    AND to_regclass('batches') IS NOT NULL AND to_regclass('spool_marks') IS NOT NULL";
    let is_there = client.query_one(is_there, &[]);
    if !within(QUERY_TIMEOUT, "looking for migrations", is_there).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let last = built_in::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    let found = client.query_one("SELECT max(version)::bigint FROM refinery_schema_history", &[]);
    let found: Option<i64> = within(QUERY_TIMEOUT, "looking for migrations", found).await?.get(0);
    Ok(found >= last.map(i64::from))
}

/// Whether a migration ever ran there.
pub async fn is_begun(client: &tokio_postgres::Client) -> Result<bool, tokio_postgres::Error> {
    Ok(client.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[]).await?.get(0))
}

/// Tries repeatedly instead of one waiting statement: that would hold a snapshot all the time, for which the migrating
/// node may have to wait.
async fn take_lock(client: &tokio_postgres::Client, wait_max: Duration) -> Result<(), DbError> {
    let give_up_at = tokio::time::Instant::now() + wait_max;
    loop {
        if locks::try_lock(client, locks::MIGRATING).await? {
            return Ok(());
        }
        if tokio::time::Instant::now() >= give_up_at {
            return Err(DbError::MigrationLock { waited: wait_max });
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A real PostgreSQL for this test, in a directory that its user can enter.
    async fn start() -> (tempfile::TempDir, Database, crate::db::Lease) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let database = Database::embedded_in(dir.path(), None).unwrap();
        let lease = database.start().await.unwrap();
        (dir, database, lease)
    }

    #[tokio::test]
    async fn two_nodes_that_start_at_once_migrate_once_and_a_third_changes_nothing() {
        let (_dir, database, lease) = start().await;
        let (one, two) = tokio::join!(run(&database), run(&database));
        one.unwrap();
        two.unwrap();
        run(&database).await.unwrap();
        let session = database.connect("test").await.unwrap();
        let count = |sql: &'static str| async { session.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) };
        let built_in = built_in::migrations::runner().get_migrations().len() as i64;
        assert_eq!(count("SELECT count(*) FROM refinery_schema_history").await, built_in);
        assert_eq!(count("SELECT count(*) FROM user_agents WHERE id = 0").await, 1);
        assert_eq!(count("SELECT count(*) FROM rollup_state").await, 1);
        let key = "SELECT octet_length(secret)::bigint FROM installation WHERE name = 'throttle_key'";
        assert_eq!(count(key).await, 32);
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_waits_too_long_for_the_lock_fails_with_a_reason() {
        let (_dir, database, lease) = start().await;
        let (holder, waiter) = (database.connect("holder").await.unwrap(), database.connect("waiter").await.unwrap());
        take_lock(&holder.client, Duration::ZERO).await.unwrap();
        let error = take_lock(&waiter.client, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, DbError::MigrationLock { .. }), "{error}");
        drop(holder);
        take_lock(&waiter.client, Duration::from_secs(10)).await.unwrap();
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn an_upgrade_keeps_what_people_built_on_the_view_and_who_may_read_it() {
        let (_dir, database, lease) = start().await;
        let mut session = database.connect("test").await.unwrap();
        let first = built_in::migrations::runner().set_target(refinery::Target::Version(1));
        first.run_async(&mut session.client).await.unwrap();
        session
            .client
            .batch_execute(
                "CREATE ROLE reporter; GRANT SELECT ON hits_readable TO reporter; \
                 CREATE VIEW report AS SELECT at, class FROM hits_readable",
            )
            .await
            .unwrap();
        run(&database).await.unwrap();
        let kept = "SELECT has_table_privilege('reporter', 'hits_readable', 'SELECT') AND count(*) = 0 FROM report";
        assert!(session.client.query_one(kept, &[]).await.unwrap().get::<_, bool>(0));
        let last = "SELECT attname = 'client' FROM pg_attribute WHERE attrelid = 'hits_readable'::regclass ORDER BY attnum DESC LIMIT 1";
        assert!(session.client.query_one(last, &[]).await.unwrap().get::<_, bool>(0));
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn the_schema_is_what_the_loader_and_people_count_on() {
        let (_dir, database, lease) = start().await;
        run(&database).await.unwrap();
        let client = database.connect("test").await.unwrap();
        let client = &client.client;
        let columns = client
            .query_one(
                "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ',' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = 'hits'::regclass AND attnum > 0",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(
            columns.get::<_, &str>(0),
            "at timestamp with time zone,seq bigint,user_agent bigint,sent_at timestamp with time zone,message uuid,\
             recipient uuid,image uuid,spool integer,class smallint,rule smallint,network smallint,prefetch boolean,ip inet,\
             client smallint"
        );
        let uncommented = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             AND relkind IN ('r', 'p', 'v') AND relname NOT LIKE 'refinery%' AND obj_description(oid) IS NULL";
        assert_eq!(client.query_one(uncommented, &[]).await.unwrap().get::<_, i64>(0), 0);

        client
            .batch_execute(
                "CREATE TABLE hits_20260102 (LIKE hits); \
                 ALTER TABLE hits ATTACH PARTITION hits_20260102 FOR VALUES FROM ('2026-01-02') TO ('2026-01-03'); \
                 INSERT INTO user_agents VALUES (7, 'Thunderbird'); \
                 INSERT INTO hits VALUES ('2026-01-02 03:04:05', 1, 7, NULL, '00000000-0000-0000-0000-000000000000', \
                 '11111111-1111-1111-1111-111111111111', gen_random_uuid(), 1, 2, 0, 0, false, '192.0.2.1')",
            )
            .await
            .unwrap();
        let shown = "SELECT message IS NULL AND recipient IS NOT NULL AND class = 'proxied' AND rule = 'not_judged' \
             AND network = 'none known' AND user_agent = 'Thunderbird' FROM hits_readable";
        assert!(client.query_one(shown, &[]).await.unwrap().get::<_, bool>(0));

        let batch = "INSERT INTO batches (spool, first_seq, next_seq, loaded, missing, min_at, max_at) \
             VALUES (1, 0, 10, 8, $1, now(), now())";
        let error = client.execute(batch, &[&1]).await.unwrap_err();
        assert!(error.as_db_error().unwrap().constraint() == Some("every_hit_is_accounted_for"), "{error:?}");
        client.execute(batch, &[&2]).await.unwrap();
        let error = client.execute(batch, &[&2]).await.unwrap_err();
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION));
        lease.release().await.unwrap();
    }
}
