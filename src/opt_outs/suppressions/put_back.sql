-- Puts opt-outs back that the database lacks or has in an older state, writes it to the audit and notifies all nodes.
-- No row: there were none.
-- $1: the recipients' hashes. $2, $3: start and end of each. $4: the channel.
-- {lock}: the number of the lock for changes of opt-outs.
WITH held AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({lock})
), kept AS (
    SELECT hash, since, until
    FROM held, unnest($1::bytea[], $2::timestamptz[], $3::timestamptz[]) AS k (hash, since, until)
), back AS (
    INSERT INTO suppressions AS s (hash, since, until, change)
    SELECT hash, since, until, nextval('suppressions_change')
    FROM kept
    WHERE NOT EXISTS (
        SELECT 1 FROM suppressions n
        WHERE n.hash = kept.hash AND COALESCE(n.until, n.since) >= COALESCE(kept.until, kept.since)
    )
    ON CONFLICT (hash) DO UPDATE
    SET since = excluded.since, until = excluded.until, change = excluded.change
    WHERE COALESCE(s.until, s.since) < COALESCE(excluded.until, excluded.since)
    RETURNING 1
), noted AS (
    INSERT INTO audit (actor, action, detail)
    SELECT 'pixeld', 'opt-outs put back', jsonb_build_object('count', count(*)) FROM back HAVING count(*) > 0
)
SELECT count(*), pg_notify($4, '') FROM back HAVING count(*) > 0
