-- Puts erasures back that the database lacks, writes it to the audit, and returns how many there were.
-- $1: the recipients' hashes. $2: when each was requested.
WITH lacking AS (
    SELECT k.hash, max(k.at) AS at
    FROM unnest($1::bytea[], $2::timestamptz[]) AS k (hash, at)
    GROUP BY k.hash
), back AS (
    INSERT INTO erasures (recipient_hash, requested_at, put_back_at)
    SELECT hash, at, clock_timestamp()
    FROM lacking
    WHERE NOT EXISTS (SELECT 1 FROM erasures e WHERE e.recipient_hash = hash AND e.requested_at >= at)
    ORDER BY at
    RETURNING requested_at
), noted AS (
    INSERT INTO audit (actor, action, detail)
    SELECT 'pixeld', 'erasures put back', jsonb_build_object('count', count(*)) FROM back
)
UPDATE erasure_state
SET version = version + 1, latest_at = GREATEST(latest_at, (SELECT max(requested_at) FROM back))
RETURNING (SELECT count(*) FROM back)
