-- Stores an image, writes it to the audit and notifies all nodes. No row: the id is in use.
-- $1: the actor. $2: the channel. $3: the id. $4: the title. $5: the media type. $6, $7: width and height. $8: the
-- bytes. $9: their SHA-256.
WITH added AS (
    INSERT INTO images (id, title, media_type, width, height, bytes, sha256, created_at, updated_at)
    VALUES ($3, $4, $5, $6, $7, $8, $9, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO NOTHING
    RETURNING id, title
), noted AS (
    INSERT INTO audit (actor, action, subject, detail)
    SELECT $1, 'image added', id::text, jsonb_build_object('title', title) FROM added
)
SELECT pg_notify($2, id::text) FROM added
