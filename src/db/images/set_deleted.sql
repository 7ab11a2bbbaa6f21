-- Deletes or restores an image, writes it to the audit and notifies all nodes. No row: that changes nothing.
-- $1: the actor. $2: the channel. $3: the id. $4: whether to delete it.
WITH changed AS (
    UPDATE images
    SET updated_at = clock_timestamp(), deleted_at = CASE WHEN $4 THEN clock_timestamp() END
    WHERE id = $3 AND (deleted_at IS NOT NULL) <> $4
    RETURNING id, title
), noted AS (
    INSERT INTO audit (actor, action, subject, detail)
    SELECT $1, CASE WHEN $4 THEN 'image deleted' ELSE 'image restored' END, id::text,
        jsonb_build_object('title', title)
    FROM changed
)
SELECT pg_notify($2, id::text) FROM changed
