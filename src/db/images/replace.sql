-- Replaces an image's bytes, writes it to the audit and notifies all nodes. No row: there is no such image, or it is
-- deleted.
-- $1: the actor. $2: the channel. $3: the id. $4: the media type. $5, $6: width and height. $7: the bytes. $8: their
-- SHA-256.
WITH replaced AS (
    UPDATE images
    SET media_type = $4, width = $5, height = $6, bytes = $7, sha256 = $8, updated_at = clock_timestamp()
    WHERE id = $3 AND deleted_at IS NULL
    RETURNING id, title
), noted AS (
    INSERT INTO audit (actor, action, subject, detail)
    SELECT $1, 'image replaced', id::text, jsonb_build_object('title', title) FROM replaced
)
SELECT pg_notify($2, id::text) FROM replaced
